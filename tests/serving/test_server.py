"""`tfnvp serve`: TF Serving's REST paths; test_client.py asks it through the client."""

import shutil
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import tfnvp
from tfnvp.cli import app
from tfnvp.serving import server

httpx = pytest.importorskip("httpx", reason="the extra `serving` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def flow(tiny_model):
    return tiny_model((4, 4, 1), levels=17)


@pytest.fixture(scope="module")
def path(flow, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "tiny"
    return tfnvp.export_saved_model(flow, directory, ["log_prob", "score_encoded", "decode"])


@pytest.fixture(scope="module")
def loaded(path):
    return server.ServedModel(path, "tiny")


@pytest.fixture(scope="module")
def served(loaded):
    """served(method, place, json=None): the status and the parsed answer."""
    from fastapi.testclient import TestClient

    client = TestClient(server.application(loaded))

    def ask(method, place, **content):
        response = client.request(method, f"/v1/models/{place}", **content)
        return response.status_code, response.json()

    return ask


IMAGES = np.random.default_rng(0).integers(0, 17, (3, 4, 4, 1), dtype=np.uint8)


def test_columns_and_rows_are_answered_alike(served, flow):
    status, answer = served("POST", "tiny:predict", json={"inputs": {"images": IMAGES.tolist()}})
    assert status == 200 and set(answer["outputs"]) == {"log_prob", "bits_per_dim", "error"}
    np.testing.assert_allclose(answer["outputs"]["log_prob"], flow.log_prob(IMAGES), rtol=1e-5)
    for rows in (IMAGES.tolist(), [{"images": image.tolist()} for image in IMAGES]):
        status, by_rows = served("POST", "tiny/versions/1:predict", json={"instances": rows})
        assert status == 200
        for i, row in enumerate(by_rows["predictions"]):
            assert row == {name: column[i] for name, column in answer["outputs"].items()}


def test_files_are_sent_in_base64_and_scores_that_are_none_are_nan(served):
    inputs = [{"b64": "aGVsbG8="}]
    body = {"signature_name": "score_encoded", "inputs": inputs}
    status, answer = served("POST", "tiny/labels/stable:predict", json=body)
    assert status == 200 and np.isnan(answer["outputs"]["log_prob"][0])
    assert answer["outputs"]["error"] == [
        "image_bytes must hold PNG or JPEG files, got something else"
    ]


def test_status_and_metadata(served):
    status, answer = served("GET", "tiny")
    (version,) = answer["model_version_status"]
    assert status == 200 and (version["version"], version["state"]) == ("1", "AVAILABLE")
    status, answer = served("GET", "tiny/versions/1/metadata")
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    assert signatures["log_prob"]["inputs"]["images"]["dtype"] == "DT_UINT8"
    dims = signatures["log_prob"]["inputs"]["images"]["tensor_shape"]["dim"]
    assert [dim["size"] for dim in dims] == ["-1", "4", "4", "1"]


WRONG = {
    "another model": ("other:predict", {"inputs": {}}, 404, "Servable not found"),
    "another version": ("tiny/versions/2:predict", {"inputs": {}}, 404, "Servable not found"),
    "another label": ("tiny/labels/today:predict", {"inputs": {}}, 404, "Servable not found"),
    "another signature": ("tiny:predict", {"signature_name": "x", "inputs": 1}, 400, '"x" not'),
    "a signature that is no name": (
        "tiny:predict",
        {"signature_name": [], "inputs": 1},
        400,
        "not found",
    ),
    "neither rows nor columns": ("tiny:predict", {"rows": 1}, 400, "inputs or instances"),
    "no rows": ("tiny:predict", {"instances": []}, 400, "a list of rows"),
    "a missing input": ("tiny:predict", {"inputs": {}}, 400, "input must be images"),
    "another input": ("tiny:predict", {"inputs": {"x": [1]}}, 400, "must be images, got x"),
    "pixels beyond uint8": ("tiny:predict", {"inputs": [[[[256]]]]}, 400, "numbers of uint8"),
    "floats": ("tiny:predict", {"inputs": [[[[0.5]]]]}, 400, "must be numbers of uint8"),
    "ragged": ("tiny:predict", {"inputs": [[1], 2]}, 400, "images is no array"),
    "another shape": ("tiny:predict", {"inputs": [[[[5]]]]}, 400, r"images must be uint8 [rows, 4"),
    "no base64": (
        "tiny:predict",
        {"signature_name": "score_encoded", "inputs": [{"b64": "?"}]},
        400,
        "no array",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_answered_is_an_error(served, case):
    place, body, expected, message = WRONG[case]
    status, answer = served("POST", place, json=body)
    assert status == expected and message in answer["error"]


@pytest.mark.parametrize("place", ["tiny/versions/x", "tiny/nothing", "a/b/c:predict"])
def test_a_path_that_there_is_not_is_an_error_in_tf_servings_form(served, place):
    status, answer = served("GET", place)
    assert status == 400
    assert answer == {"error": f"Malformed request: GET /v1/models/{place}"}


def test_a_name_that_paths_cannot_have_is_refused(path):
    for name in ("a/b", "a:b"):
        with pytest.raises(ValueError, match="name must have neither / nor :"):
            server.ServedModel(path, name)


def test_a_body_that_is_no_json_is_an_error(served):
    status, answer = served("POST", "tiny:predict", content=b"images=1")
    assert status == 400 and answer["error"].startswith("JSON Parse error")


def test_the_command_serves_models_and_exports_and_says_what_it_is_for(
    path, randomize, monkeypatch, tmp_path
):
    started = []
    monkeypatch.setattr(server, "run", lambda app, host, port: started.append((app, host, port)))
    randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))).save(
        tmp_path / "mine.keras"
    )
    for model, name in ((path, "tiny"), (tmp_path / "mine.keras", "mine")):
        result = CliRunner().invoke(app, ["serve", str(model), "--port", "1234"])
        assert result.exit_code == 0, result.output
        assert f"serving {name} at http://127.0.0.1:1234/v1/models/{name}" in result.output
        assert "TF Serving is for production" in result.output
    assert [call[1:] for call in started] == [("127.0.0.1", 1234)] * 2
    result = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert result.exit_code == 2 and "cannot be loaded" in result.output
    versions = tmp_path / "versions"
    for number in ("9", "10", "notes"):
        shutil.copytree(path, versions / number)
    result = CliRunner().invoke(app, ["serve", str(versions)])
    assert result.exit_code == 2 and f"name one, such as {versions / '10'}\n" in result.output


def test_without_the_extra_the_command_says_so(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match="extra `serve`"):
        server.application(loaded)


def test_a_loaded_model_answers_no_rows(loaded):
    answer = loaded.predict("log_prob", {"images": IMAGES[:0]})
    assert answer["log_prob"].shape == answer["error"].shape == (0,)

"""The examples run as they stand, but for numbers: of epochs, rows and scales.

Those that check themselves are run in full by `make test-all`.
"""

import contextlib
import functools
import io
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.examples import EXAMPLES, SHORT, run, several_devices
from helpers.processes import Program
from PIL import Image

import tfnvp

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def one_scale(monkeypatch):
    preset = tfnvp.presets.get
    monkeypatch.setattr(tfnvp.presets, "get", lambda name: {**preset(name), "num_scales": 1})


def size_of(picture):
    with Image.open(picture) as image:
        return image.size


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short_and_has_a_test(path):
    assert len(path.read_text().splitlines()) < 100
    assert (
        f'"{path.stem}"'
        in Path(__file__).read_text() + (ROOT / "tests" / "helpers" / "examples.py").read_text()
    )


@pytest.mark.usefixtures("one_scale")
def test_the_image_model():
    names = run("image_model", **SHORT)
    assert names["dist"].event_shape.as_list() == [8, 8, 1]
    assert np.isfinite(names["dist"].log_prob(names["x"])).all()


def test_the_vector_model():
    rows = (r"make_moons\(10_000", "make_moons(64")
    names = run("vector_model", epochs=SHORT["epochs"], rows=rows)
    assert names["model"].log_prob(names["x"][:5]).shape == (5,)


def test_the_density_of_a_table(monkeypatch):
    monkeypatch.setattr(tfnvp.models.fitting, "default_steps", lambda rows: 30)
    small = (r"FlowDensity\(", "FlowDensity(2, (8,), ")
    names = run("table_density", small=small)
    assert np.isfinite(names["density"].score(names["x"]))


@pytest.mark.usefixtures("one_scale")
def test_the_conditional_model():
    names = run("conditional_model", **SHORT)
    assert names["model"].distribution_for(labels=names["y"]).batch_shape == [64]


def test_your_own_flow_learns():
    names = run("your_own_flow")
    bits = names["model"].history.history["bits_per_dim"]
    # The data's own entropy is near 0.4 bits/dim; a standard normal would pay 2.8.
    assert bits[-1] < 1.5 < bits[0]


@pytest.mark.slow
def test_class_conditional_digits_are_told_apart():
    names = run("class_conditional_digits")
    assert names["accuracy"] > 0.9
    assert np.mean(names["given"]) < np.mean(names["without"])
    # Ten images of 32 pixels with a line between.
    assert size_of("classes.png") == (331, 331)


@pytest.mark.slow
def test_damaged_files_are_found_among_the_others():
    names = run("anomalies_in_a_folder")
    assert len(names["files"]) == 1297 and names["images"].max() == 16
    assert sum("damaged" in file.name for file in names["files"]) == 8
    assert Path("unusual.png").is_file()
    found = sum("damaged" in names["files"][i].name for i in names["unusual"])
    # By chance it would be 0.06 of the ten.
    assert found >= 5


def test_a_flow_as_variational_posterior():
    names = run("variational_posterior", few=(r"steps = 1500", "steps = 100"))
    # Importance sampling is right for any flow, and the bound is one but for its noise.
    assert abs(names["evidence"] - names["exact_evidence"]) < 0.1
    assert names["bound"] < names["exact_evidence"] + 0.05
    np.testing.assert_allclose(names["exact_means"], [0.95, 9.98], atol=0.3)


@pytest.mark.slow
def test_the_variational_posterior_comes_near_the_true_one():
    names = run("variational_posterior")
    assert abs(names["bound"] - names["exact_evidence"]) < 0.03
    means = np.mean(names["x"], axis=0)
    np.testing.assert_allclose(means, names["exact_means"], atol=0.15)


def test_importance_sampling():
    names = run("importance_sampling", few=(r"steps = 2000", "steps = 100"))
    for log_z, error, share in (names["by_flow"], names["by_normal"]):
        assert abs(log_z - names["exact"]) < 5 * error and 0 < share < 1


@pytest.mark.slow
def test_importance_sampling_by_a_flow_wastes_few_samples():
    names = run("importance_sampling")
    (log_z, error, share), (*_, share_of_normal) = names["by_flow"], names["by_normal"]
    assert abs(log_z - names["exact"]) < 5 * error < 0.05
    assert share > 0.7 > 2 * share_of_normal


def test_a_flow_as_prior_of_a_vae():
    names = run("vae_with_flow_prior", few=(r"epochs=100", "epochs=1"))
    # The encoder and the decoder have two layers each, and the flow is trained with them.
    trained, of_flow = (len(names[name].trainable_variables) for name in ("model", "flow"))
    assert trained == 8 + of_flow and of_flow > 0
    assert names["learned"] < 0 and size_of("vae.png") == (133, 133)


@pytest.mark.slow
def test_a_flow_as_prior_has_a_better_bound():
    names = run("vae_with_flow_prior")
    assert names["plain"] + 1 < names["learned"] < 0


def test_simulation_based_inference():
    few = {
        "rows": (r"20_000, 2000", "512, 100"),
        "epochs": (r"epochs, batch_size = 60", "epochs, batch_size = 1"),
    }
    names = run("simulation_based_inference", **few)
    assert names["learned"].shape == (100, 2) and 0.5 <= names["accuracy"] <= 1
    # The reference is of parameters from which the simulator comes to the data observed.
    a, b = names["reference"].T / np.sqrt(2)
    x, y = np.abs(a + b) - 0.25, a - b
    radius = np.hypot(x, y)
    assert np.all(np.abs(radius - 0.1) < 0.06) and np.all(x > -1e-6)
    assert 20 < np.sum(a + b > 0) < 80


@pytest.mark.slow
def test_simulation_based_inference_comes_near_the_true_posterior():
    names = run("simulation_based_inference")
    # Untrained, the flow is told apart in nearly all cases.
    assert names["accuracy"] < 0.65


@pytest.mark.slow
def test_several_devices_train_as_one(tmp_path):
    code, out, errors = Program(functools.partial(several_devices, 2, tmp_path)).end()
    assert code == 0, errors
    assert "2 devices" in out and "differ by 0.0" in out
    model = keras.models.load_model(tmp_path / "many_gpus.keras")
    assert model.image_shape == (8, 8, 1)


def test_a_client_of_what_is_served():
    pytest.importorskip("httpx", reason="the extra `serving` is not installed")
    pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
    from helpers import serving_server

    served = serving_server.Model(ROOT / "saved_models" / "digits" / "1", "digits")
    out = io.StringIO()
    with serving_server.rest(served) as url, contextlib.redirect_stdout(out):
        names = run("serving_client", url=(r"http://127\.0\.0\.1:8501", url))
    assert names["errors"].max() == 0 and "17 levels: INVALID_ARGUMENT" in out.getvalue()
    assert names["samples"].shape == (16, 8, 8, 1) and Path("served.png").is_file()

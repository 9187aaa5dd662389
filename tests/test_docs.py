"""The programs in docs/ run as they stand, and show what their page says."""

import importlib.util
import re
import shlex
from pathlib import Path

import click
import numpy as np
import PIL.Image
import pytest
import sklearn.datasets
import typer
from helpers import pages
from helpers.pages import DOCS

import tfnvp
from tfnvp import cli

LANGUAGES = {"python", "text", "console"}
# An epoch has two batches, and there are few of them.
SHORT = (r"epochs=\d+", "epochs=1")
# Pages with tests of their own, below.
OF_THEIR_OWN = {"anomalies.md", "inside-tensorflow.md", "serving.md"}
# Numbers that make a page's program long are replaced.
REPLACED = {
    "index.md": [SHORT, (r"FlowDensity\(", "FlowDensity(2, (8,), ")],
    "tutorials/classes.md": [SHORT],
    "tutorials/digits.md": [SHORT],
    "tutorials/moons.md": [SHORT, (r"make_moons\(10_000", "make_moons(500")],
    "howto/from-normflows.md": [SHORT],
    "howto/from-tfb-real-nvp.md": [SHORT],
    "vectors.md": [SHORT, (r"dropout=0.3", "dropout=0.3, num_couplings=2")],
}
# Two steps take less time than tracing them.
WITHOUT_GRAPHS = {*REPLACED, "howto/resume.md"} - {"tutorials/classes.md", "tutorials/digits.md"}
# Programs of converters, which not everybody has.
OF_OTHERS = {"tf2onnx.convert"}
SLOW = {"gallery.md", "tutorials/classes.md", "tutorials/digits.md"}
PROGRAMS = pages.programs("inside-tensorflow.md")


def with_programs():
    """The pages that have programs; those of the lecture are run by tests/test_lecture.py."""
    found = (page for page in pages.names() if not page.startswith("lecture/"))
    return [page for page in found if "python" in dict(pages.blocks(page))]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """An empty directory but for what readers have of their own; training sets of two batches."""
    monkeypatch.chdir(tmp_path)
    photograph = PIL.Image.fromarray(sklearn.datasets.load_sample_image("flower.jpg"))
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        photograph.crop((40 * i, 40, 40 * i + 40, 80)).save(tmp_path / f"pictures/{i}.png")
    table = sklearn.datasets.load_wine(as_frame=True).data
    table.to_csv("table.csv", index=False)
    load, preset = tfnvp.data.load, tfnvp.presets.get

    def two_batches(name, split="train", *args, **kwargs):
        images = load(name, split, *args, **kwargs)
        return images.take(2) if split == "train" else images

    monkeypatch.setattr(tfnvp.data, "load", two_batches)
    monkeypatch.setattr(tfnvp.models.fitting, "default_steps", lambda rows: 30)

    def one_scale(but):
        """Models of presets have one scale, but for those that are named."""
        monkeypatch.setattr(
            tfnvp.presets,
            "get",
            lambda name: preset(name) | ({} if name in but else {"num_scales": 1}),
        )

    return one_scale


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW))
        for page in with_programs()
        if page not in OF_THEIR_OWN
    ],
)
def test_programs_of_pages_run(page, reader, request):
    if page in WITHOUT_GRAPHS:
        request.getfixturevalue("eagerly")
    loads_weights = "load_weights" in "".join(pages.programs(page).values())
    reader(but=tfnvp.presets.trained() if loads_weights else [])
    if page == "gallery.md":
        # A command of the page would train it for minutes.
        Path("runs/classes").mkdir(parents=True)
        model = tfnvp.ImageRealNVP.from_preset("digits_conditional")
        model.save("runs/classes/model.keras")
    assert pages.run(page, *REPLACED.get(page, []))


def test_every_block_says_whether_it_is_a_program():
    assert OF_THEIR_OWN | REPLACED.keys() | SLOW <= set(with_programs())
    found = {page: pages.blocks(page) for page in pages.names()}
    languages = {language for blocks in found.values() for language, _ in blocks}
    assert "python" in languages and languages <= LANGUAGES
    # A fence that is indented, or of tildes, would be passed over.
    for page, blocks in found.items():
        fences = re.findall(r"^\s*(?:```|~~~)", (DOCS / page).read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(blocks), page


def commands(page):
    """The lines of a page that are commands: they are indented, or in a block of a console."""
    text = pages.BLOCK.sub(lambda m: m["code"] if m["language"] == "console" else "", page)
    text = re.sub(r" *\\\n\s*", " ", text)
    return re.findall(r"^(?:    )?(?:\w+=\S+ )*((?:tfnvp|python -m) [^#\n]*)", text, re.MULTILINE)


def test_commands_of_pages_are_understood():
    """`tfnvp` parses what it is asked for; what else is run by its module is there."""
    understood = 0
    app = typer.main.get_command(cli.app)
    for page in pages.names():
        for line in commands((DOCS / page).read_text()):
            # Brackets are around what may be left out.
            words = [word.strip("[]") for word in shlex.split(line)]
            if words[:3] == ["python", "-m", "train"]:
                words = ["tfnvp", "train", *words[3:]]
            if words[0] == "tfnvp":
                name, *arguments = [word for word in words[1:]]
                app.commands[name].make_context(name, arguments, parent=click.Context(app))
            elif words[2] not in OF_OTHERS:
                assert importlib.util.find_spec(words[2]), (page, line)
            understood += 1
    assert understood > 50


@pytest.fixture(scope="module")
def after():
    """after(title): the names that the page has once the section of that title has run."""
    names = {}
    left = list(PROGRAMS)

    def after(title):
        while title in left:
            exec(PROGRAMS[left.pop(0)], names)
        return names

    return after


def test_variational_inference_comes_near_the_target(after):
    losses = after("Variational inference by reverse KL")["losses"]
    # -log of the integral of the target's exponential, which is 2 * 2 pi.
    least = -np.log(4 * np.pi)
    assert losses[0] > least + 0.5 and abs(np.mean(losses[-30:]) - least) < 0.2


def test_chains_through_the_flow_are_of_the_target(after):
    names = after("HMC with the flow as preconditioner")
    states = np.reshape(names["states"], (-1, 2))
    assert np.mean(names["accepted"]) > 0.6
    np.testing.assert_allclose(np.mean(states, axis=0), [0, 2], atol=0.4)
    assert abs(np.std(states[:, 0]) - 2) < 0.4


def test_a_mixture_over_labels(after):
    names = after("A mixture over labels")
    parts, x = names["of_each"], names["x"].numpy()[:5]
    assert parts.batch_shape == [3] and parts[1].batch_shape == [] and parts[:2].batch_shape == [2]
    by_hand = np.exp(parts.log_prob(x[:, None])) @ np.array([0.2, 0.3, 0.5])
    np.testing.assert_allclose(np.exp(names["mixture"].log_prob(x)), by_hand, rtol=1e-4)


def test_score_and_hessian(after):
    names = after("Score and Hessian")
    x, step = names["points"], 1e-2 * names["direction"]
    slope = (names["density"].log_prob(x + step) - names["density"].log_prob(x - step)) / 2
    expected = np.sum(names["score"](x) * step, axis=1)
    np.testing.assert_allclose(slope, expected, rtol=0.1, atol=5e-3)
    hessian = names["hessian"](x).numpy()
    np.testing.assert_allclose(hessian, np.swapaxes(hessian, 1, 2), rtol=1e-3, atol=1e-3)


def test_what_is_outside(after):
    names = after("What is outside")
    assert np.isneginf(names["far"]).all()
    assert np.all(names["learned"] > 0.1)


def test_a_served_model_answers_as_its_page_says(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
    from helpers import serving_server

    monkeypatch.chdir(tmp_path)
    digit = sklearn.datasets.load_digits().images[0] * 15
    PIL.Image.fromarray(digit.astype("uint8")).save("digit.png")
    served = serving_server.Model(DOCS.parent / "saved_models/digits/1", "digits")
    with serving_server.serve(served) as (grpc, _):
        names = pages.run("serving.md", (r"grpc://localhost:8500", grpc))
    assert names["images"].shape == (3, 8, 8, 1)
    assert np.isfinite(names["scores"]).tolist() == [True, False]


def test_the_table_of_devices_names_tests_that_are_there():
    page = (DOCS / "devices.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) == 9 and all(len(row) in (4, 5) and all(row) for row in rows)
    for cell in (cell for row in rows[1:] for cell in row[1:]):
        path, _, test = cell.strip("*`").partition("::")
        source = (DOCS.parent / "tests" / path).read_text()
        assert f"def {test}(" in source if test else source
        assert cell.startswith("*") == (f"slow\ndef {test}(" in source)


def test_unusual_pictures_by_the_program_of_their_page():
    names = pages.run("anomalies.md")
    assert set(names["scores"]) == set(names["p_values"]) == set(tfnvp.anomaly.SCORES)
    # With 200 images held out.
    assert all(p.min() >= 1 / 201 and p.max() <= 1 for p in names["p_values"].values())
    assert names["maps"].shape == (20, 8, 8)

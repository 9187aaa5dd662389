"""The command `explore`: what its page is made of, and whom it answers."""

import json
import socket
import sys

import numpy as np
import pytest
from helpers.commands import assert_one_line, run

import tfnvp
from tfnvp.cli import explore
from tfnvp.explore.images import Images

pytest.importorskip("gradio", reason="the extra `explore` is not installed")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def of_images(directory, tiny_model):
    tiny_model((8, 8, 1), levels=17).save(directory / "images.keras")
    return directory / "images.keras"


@pytest.fixture(scope="module")
def of_vectors(directory):
    tfnvp.VectorRealNVP(2, 1, (4,)).save(directory / "vectors.keras")
    return directory / "vectors.keras"


@pytest.fixture
def served(monkeypatch):
    """The configuration of the server, which does not run, and the page's application."""
    import uvicorn

    seen = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: seen.append(server.config))
    return seen


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def test_the_page_is_for_this_machine_alone(of_images, served, pictures, monkeypatch):
    made = []
    monkeypatch.setattr(explore, "Images", lambda *args: made.append(Images(*args)) or made[-1])
    port, (paths, pixels) = free_port(), pictures
    result = run("explore", of_images, paths[0].parent, "--port", port, "--no-browser")
    assert result.exit_code == 0, result.output
    assert result.output == f"http://127.0.0.1:{port}, on this machine alone; Ctrl-C ends it\n"
    assert [(config.host, config.port) for config in served] == [("127.0.0.1", port)]
    np.testing.assert_array_equal(made[0].known.images, pixels)
    assert made[0].known.source == "the 4 images given"


def test_a_browser_is_opened_unless_told_not_to(of_vectors, served, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    # The timer's time is up at once.
    monkeypatch.setattr("threading.Timer.start", lambda timer: timer.run())
    monkeypatch.setattr("threading.Timer.run", lambda timer: timer.function(*timer.args))
    port = free_port()
    assert run("explore", of_vectors, "--port", port).exit_code == 0
    assert opened == [f"http://127.0.0.1:{port}"] and len(served) == 1


def test_known_images_are_of_the_set_that_a_model_was_trained_on(tiny_model, of_vectors):
    flow = tiny_model((8, 8, 1), levels=17)
    source, images = explore._known(flow, "digits", None, None)
    assert source == "1,000 training images of digits" and images.shape == (1000, 8, 8, 1)
    # A run leaves a card beside its model.
    card = of_vectors.with_name("card.json")
    card.write_text(json.dumps({"recipe": "moons"}))
    flow = tfnvp.VectorRealNVP(2, 1, (4,))
    source, points = explore._known(flow, str(of_vectors), None, None)
    assert source == "1,000 training rows of moons" and points.shape == (1000, 2)
    for text in ('{"recipe": "folder"}', '{"recipe": "mine"}', "[]", "no JSON"):
        card.write_text(text)
        assert explore._known(flow, str(of_vectors), None, None) == ("", None)
    card.unlink()


def test_where_the_set_is_not_there_samples_stand_in(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    flow = tiny_model((32, 32, 3))
    assert explore._known(flow, "cifar10_small", None, None) == ("", None)


def test_where_tfds_is_not_installed_samples_stand_in(monkeypatch):
    model = tfnvp.ImageRealNVP.from_preset("mnist")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    assert explore._known(model, "mnist", None, None) == ("", None)


def test_a_named_set(tiny_model):
    flow = tiny_model((8, 8, 1), levels=17)
    source, images = explore._known(flow, "other.keras", None, "digits")
    assert source == "1,000 training images of digits" and images.shape == (1000, 8, 8, 1)


def test_what_cannot_be_explored_is_refused(directory, of_images, of_vectors, tmp_path):
    tfnvp.VectorRealNVP(3, 1, (4,)).save(directory / "three.keras")
    three = run("explore", directory / "three.keras", "--no-browser", "--port", free_port())
    assert_one_line(three, "of 2 dimensions", "vectors of 3")
    saved = run("explore", "saved_models/digits/1", "--no-browser", "--port", free_port())
    assert_one_line(saved, "explore needs more than a SavedModel's signatures")
    (tmp_path / "model.keras").touch()
    run_directory = run("explore", tmp_path, "--no-browser", "--port", free_port())
    assert_one_line(run_directory, f"MODEL of a run is {tmp_path / 'model.keras'}")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        taken = run("explore", of_vectors, "--no-browser", "--port", port)
        assert_one_line(taken, f"--port {port} cannot be had", "in use")


def test_without_gradio_the_extra_is_named(of_vectors, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = run("explore", of_vectors, "--no-browser", "--port", free_port())
    assert_one_line(result, "the extra `explore`", "pip install '.[explore]'", "whl[explore]'")

"""The command `tfnvp`, as a user types it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.few_couplings import FewCouplings
from PIL import Image
from typer.testing import CliRunner

import tfnvp
from tfnvp.cli import app, loading


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch):
    """A model that one command has loaded and traced is there for the next."""
    monkeypatch.setattr(loading, "load", _load)


_load = functools.cache(loading.load)


@pytest.fixture(scope="module")
def model(randomize):
    flow = FewCouplings((8, 8, 1), 1, filters=4, residual_blocks=1, levels=17)
    randomize(flow, seed=0)
    return flow


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def served(saved, tmp_path_factory):
    directory = tmp_path_factory.mktemp("served")
    result = run("export", saved, "--to", directory)
    assert (result.exit_code, result.output) == (0, f"{directory / '1'}\n")
    return directory / "1"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four image files of the model's size, and their levels."""
    directory = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8)).astype("uint8")
    paths = [directory / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths, (pixels.astype(int) * 17 // 256).astype("uint8")[..., None]


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_evaluate_prints_the_mean_and_its_standard_error(model, saved):
    """And, where samples are asked for, the tighter bound."""
    images = np.concatenate(list(tfnvp.data.load("digits", "validation", 200)))
    args = ["evaluate", saved, "--dataset", "digits", "--split", "validation", "--samples", 3]
    result = run(*args)
    expected = ""
    for samples, how in ((1, ""), (3, ", importance-weighted, 3 samples")):
        bits = model.bits_per_dim(images, samples=samples).numpy()
        error = bits.std(ddof=1) / np.sqrt(200)
        expected += f"digits validation: {bits.mean():.4f} +- {error:.4f} bits/dim, 200 images"
        expected += f"{how}\n"
    assert (result.exit_code, result.output) == (0, expected)


def test_sample_writes_the_models_samples(model, saved, tmp_path):
    result = run("sample", saved, "--to", tmp_path / "s.png", "-n", 4, "--seed", 3)
    assert result.exit_code == 0
    expected = tfnvp.plotting.image_grid(model.sample(4, seed=3))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "s.png")), expected)


def test_samples_are_written_as_the_suffix_says(model, saved, tmp_path):
    expected = model.sample(4, seed=3)
    args = ["sample", saved, "-n", 4, "--seed", 3, "--to"]
    assert run(*args, tmp_path / "s.npy").exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), expected, atol=1e-6)
    assert run(*args, tmp_path / "s.npz").exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "s.npz")["array"], expected, atol=1e-6)
    cold = run("sample", saved, "-n", 2, "--temperature", 0, "--to", tmp_path / "cold.npy")
    assert cold.exit_code == 0
    mean = np.clip(model.decode(np.zeros((2, 8, 8, 1))), 0, 1)
    np.testing.assert_allclose(np.load(tmp_path / "cold.npy"), mean, atol=1e-5)


@pytest.mark.parametrize("kind", ["saved", "served"])
def test_interpolation_has_the_images_in_its_corners(kind, pictures, tmp_path, request):
    paths, levels = pictures
    source = request.getfixturevalue(kind)
    args = ["--to", tmp_path / "grid.npy", "--images", *paths, "--steps", 3]
    assert run("interpolate", source, *args).exit_code == 0
    grid = np.load(tmp_path / "grid.npy").reshape(3, 3, 8, 8, 1)
    corners = grid[[0, 0, 2, 2], [0, 2, 0, 2]]
    np.testing.assert_allclose(corners, (levels + 0.5) / 17, atol=1e-3)
    assert np.abs(grid[1, 1] - corners).mean(axis=(1, 2, 3)).min() > 0.02


def test_interpolation_between_samples(model, saved, tmp_path):
    assert run("interpolate", saved, "--to", tmp_path / "g.npy", "--steps", 2).exit_code == 0
    np.testing.assert_allclose(np.load(tmp_path / "g.npy"), model.sample(4, seed=0), atol=1e-3)


def test_extrapolation_is_twice_as_large_and_says_its_statistics(model, saved, tmp_path):
    to = ["--to", tmp_path / "large.npy", "--force"]
    args = ["extrapolate", saved, *to, "-n", 3, "--seed", 5]
    result = run(*args, "--json")
    expected = model.sample(3, image_shape=(16, 16, 1), seed=5).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "large.npy"), expected, atol=1e-5)
    figures = json.loads(result.output)
    assert figures["16x16"]["mean"] == pytest.approx([expected.mean()], rel=1e-4)
    usual = model.sample(12, seed=5).numpy()
    assert figures["8x8"]["variance"] == pytest.approx([usual.var()], rel=1e-4)
    lines = run(*args).output.splitlines()
    assert lines[1].startswith(f"16x16: mean {expected.mean():.4f}, variance")


def test_reconstructions_stand_beside_the_images(model, saved, served, pictures, tmp_path):
    paths, levels = pictures
    to = tmp_path / "rows.npy"
    assert run("reconstruct", saved, "--to", to, "--force", *paths, "--resample").exit_code == 0
    rows = np.load(to).reshape(4, 3, 8, 8, 1)
    np.testing.assert_allclose(rows[:, 0], (levels + 0.5) / 17, atol=1e-6)
    np.testing.assert_allclose(rows[:, 1], rows[:, 0], atol=1e-3)
    drawn = tfnvp.latent.resample_scales(model, levels, keep=0, seed=0)
    np.testing.assert_allclose(rows[:, 2], drawn, atol=1e-5)
    result = run("reconstruct", served, "--to", to, "--force", "--dataset", "digits", "-n", 2)
    error, path = result.output.splitlines()
    assert float(error.removeprefix("largest error: ")) < 1e-6 and path == str(to)


@pytest.mark.parametrize("kind", ["saved", "served"])
def test_score_prints_each_image(kind, model, pictures, tmp_path, request):
    paths, levels = pictures
    result = run(
        "score", request.getfixturevalue(kind), *paths, "--json", "--to", tmp_path / "b.npy"
    )
    records = [json.loads(line) for line in result.output.splitlines()]
    assert [record["input"] for record in records] == [str(path) for path in paths]
    bits = model.bits_per_dim(levels).numpy()
    np.testing.assert_allclose([r["bits_per_dim"] for r in records], bits, rtol=1e-4)
    np.testing.assert_allclose([r["log_prob"] for r in records], model.log_prob(levels), rtol=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "b.npy"), bits, rtol=1e-4)


def test_a_saved_model_evaluates_and_samples(saved, served, tmp_path):
    args = ["--dataset", "digits", "--split", "validation", "--json"]
    ours, theirs = (
        json.loads(run("evaluate", source, *args, "--batch-size", 64).output)
        for source in (saved, served)
    )
    assert theirs["bits_per_dim"] == pytest.approx(ours["bits_per_dim"], rel=1e-4)
    assert theirs["images"] == ours["images"] == 200
    for n in (5, 2):
        assert run("sample", served, "-n", n, "--to", tmp_path / f"{n}.npy").exit_code == 0
    five, two = np.load(tmp_path / "5.npy"), np.load(tmp_path / "2.npy")
    np.testing.assert_allclose(two, five[:2], atol=1.01 / 17)
    assert len(np.unique(five.reshape(5, -1), axis=0)) == 5


@pytest.fixture(scope="module", params=["saved", "served"])
def vectors(request, randomize, tmp_path_factory):
    """A model of vectors, and what it is loaded from."""
    flow = randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,)), seed=1)
    directory = tmp_path_factory.mktemp("vectors")
    if request.param == "served":
        return flow, tfnvp.export_saved_model(flow, directory)
    flow.save(directory / "model.keras")
    return flow, directory / "model.keras"


def test_vectors_are_scored(vectors, tmp_path):
    flow, path = vectors
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x)
    for name in ("x.npy", "x.npz"):
        lines = run("score", path, tmp_path / name, "--json").output.splitlines()
        log_prob = [json.loads(line)["log_prob"] for line in lines]
        np.testing.assert_allclose(log_prob, flow.log_prob(x), rtol=1e-5)
    figures = json.loads(run("evaluate", path, tmp_path / "x.npz", "--json").output)
    assert figures["log_prob"] == pytest.approx(np.mean(log_prob), rel=1e-5)
    assert figures["vectors"] == 5
    points = next(iter(tfnvp.data.load("moons", "test", 10_000)))
    nats = flow.log_prob(points).numpy()
    bits = -nats / (2 * np.log(2))
    errors = [values.std(ddof=1) / 100 for values in (nats, bits)]
    expected = f"{nats.mean():.4f} +- {errors[0]:.4f} nats, "
    expected += f"{bits.mean():.4f} +- {errors[1]:.4f} bits/dim, 10000 vectors\n"
    result = run("evaluate", path, "--dataset", "moons", "--batch-size", 3000)
    assert (result.exit_code, result.output) == (0, f"moons test: {expected}")
    assert json.loads(run("info", path, "--json").output)["event_size"] == 2


def test_vectors_are_drawn_interpolated_and_reconstructed(vectors, tmp_path):
    flow, path = vectors
    to = tmp_path / "s.npy"
    assert run("sample", path, "-n", 4, "--temperature", 0, "--to", to, "--force").exit_code == 0
    cold = np.tile(flow.decode(np.zeros((1, 2))), (4, 1))
    np.testing.assert_allclose(np.load(to), cold, atol=1e-5)
    assert run("sample", path, "-n", 4, "--seed", 2, "--to", to, "--force").exit_code == 0
    x = np.load(to)
    np.testing.assert_allclose(x, flow.sample(4, seed=2), atol=1e-5)
    corners = [tmp_path / f"{i}.npy" for i in range(4)]
    for corner, row in zip(corners, x, strict=True):
        np.save(corner, row)
    grid = tmp_path / "grid.npz"
    args = ["--images", *corners, "--steps", 3]
    assert run("interpolate", path, "--to", grid, *args).exit_code == 0
    z = tfnvp.latent.interpolate(*flow.encode(x), steps=3)
    expected = flow.decode(np.reshape(z, (9, 2)))
    np.testing.assert_allclose(np.load(grid)["array"], expected, atol=1e-4)
    result = run("reconstruct", path, "--to", tmp_path / "rows.npy", to)
    rows = np.load(tmp_path / "rows.npy").reshape(4, 2, 2)
    np.testing.assert_array_equal(rows[:, 0], x)
    np.testing.assert_allclose(rows[:, 1], x, atol=1e-4)
    error = float(result.output.splitlines()[0].removeprefix("largest error: "))
    assert error == pytest.approx(np.abs(rows[:, 1] - x).max(), rel=0.1, abs=1e-9)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["extrapolate", "{m}", "--to", "x.npy"],
            "extrapolate is of images, this is a model of",
        ),
        (["sample", "{m}", "--to", "x.png"], "must be a .npy or .npz file for vectors, got x.png"),
        (["interpolate", "{m}", "--to", "x.png"], "must be a .npy or .npz file for vectors"),
        (["reconstruct", "{m}", "--to", "x.png", "{x}"], "must be a .npy or .npz file for vectors"),
        (["reconstruct", "{m}", "--to", "x.npy", "{x}", "--resample"], "--resample is of images"),
        (["interpolate", "{m}", "--to", "x.npy", "--images", *["{wrong}"] * 4], "vectors [N, 2]"),
        (["interpolate", "{m}", "--to", "x.npy", "--images", *["{x}"] * 4], "one vector each"),
        (["score", "{m}", "{wrong}"], "must hold vectors [N, 2], got (2, 3)"),
        (["score", "{m}", "a.png"], "read from .csv, .npy and .npz files, got a.png"),
        (["evaluate", "{m}", "--dataset", "digits"], "digits is of images, this is a model of vec"),
        (["evaluate", "{m}", "{x}", "--samples", "2"], "evaluate --samples is of images"),
        (["score", "{m}", "{x}", "--labels", "1"], "labels must be None"),
    ],
)
def test_what_is_not_for_vectors_is_one_line_and_status_2(vectors, tmp_path, args, message):
    _, path = vectors
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3)))
    names = {"m": path, "x": tmp_path / "x.npy", "wrong": tmp_path / "wrong.npy"}
    result = run(*(arg.format(**names) for arg in args))
    assert result.exit_code == 2 and message in result.output
    assert len(result.output.splitlines()) == 1


@pytest.fixture(scope="module")
def conditional(randomize, tmp_path_factory):
    """A model of images with classes, a .keras file of it, and a SavedModel."""
    sizes = {"filters": 4, "residual_blocks": 1, "levels": 17}
    options = {"num_classes": 10, "label_dropout": 0.1, "conditional_base": True}
    flow = randomize(tfnvp.ImageRealNVP((8, 8, 1), 1, **sizes, **options), seed=0)
    directory = tmp_path_factory.mktemp("conditional")
    flow.save(directory / "model.keras")
    served = tfnvp.export_saved_model(flow, directory)
    return flow, {"saved": directory / "model.keras", "served": served}


@pytest.mark.parametrize("kind", ["saved", "served"])
def test_commands_take_labels(kind, conditional, pictures, tmp_path):
    flow, sources = conditional
    source, (paths, levels) = sources[kind], pictures
    to, y = tmp_path / "x.npy", np.array([3, 7, 3, 7])
    one_level = 1.01 / 17 if kind == "served" else 1e-4

    assert run("sample", source, "-n", 4, "--to", to, "--force", "--labels", "3,7").exit_code == 0
    expected = flow.sample(4, labels=y, seed=0)
    np.testing.assert_allclose(np.load(to), expected, atol=one_level)
    for wrong, message in (("10", "labels must be 0..9"), ("three", "--labels must be integers")):
        refused = run("sample", source, "-n", 4, "--to", to, "--force", "--labels", wrong)
        assert refused.exit_code == 2 and message in refused.output
        assert len(refused.output.splitlines()) == 1

    for labels, given in ((None, []), (y, ["--labels", "3,7"])):
        lines = run("score", source, *paths, "--json", *given).output.splitlines()
        bits = [json.loads(line)["bits_per_dim"] for line in lines]
        np.testing.assert_allclose(bits, flow.bits_per_dim(levels, labels), rtol=1e-4)
        figures = json.loads(run("evaluate", source, *paths, "--json", *given).output)
        assert figures["bits_per_dim"] == pytest.approx(np.mean(bits), rel=1e-5)

    for labels, given in ((None, []), (3, ["--labels", "3"])):
        args = ["--to", to, "--force", "--images", *paths, "--steps", 3, *given]
        assert run("interpolate", source, *args).exit_code == 0
        z = tfnvp.latent.interpolate(*flow.encode(levels, labels), steps=3)
        middle = np.clip(flow.decode(np.reshape(z, (9, 8, 8, 1)), labels)[4], 0, 1)
        np.testing.assert_allclose(np.load(to)[4], middle, atol=one_level)
    refused = run("interpolate", source, "--to", to, "--force", "--labels", "3,7")
    assert refused.exit_code == 2 and "one class for all, got 3,7" in refused.output

    result = run("reconstruct", source, "--to", to, "--force", *paths, "--labels", "3,7")
    assert float(result.output.splitlines()[0].removeprefix("largest error: ")) < 1e-4


@pytest.mark.parametrize("kind", ["saved", "served"])
def test_a_conditional_model_is_evaluated_given_the_labels_of_the_set(kind, conditional):
    flow, sources = conditional
    x, y = next(iter(tfnvp.data.load("digits", "validation", 200, labels=True)))
    args = ["evaluate", sources[kind], "--dataset", "digits", "--split", "validation", "--json"]
    bits = json.loads(run(*args).output)["bits_per_dim"]
    assert bits == pytest.approx(float(np.mean(flow.bits_per_dim(x, labels=y))), rel=1e-5)
    assert bits != pytest.approx(float(np.mean(flow.bits_per_dim(x))), rel=1e-3)
    refused = run(*args, "--labels", "3")
    assert refused.exit_code == 2 and "a data set has labels of its own" in refused.output


def test_finer_scales_are_drawn_given_the_label(conditional, pictures, tmp_path):
    flow, sources = conditional
    paths, levels = pictures
    to = tmp_path / "rows.npy"
    args = [*paths, "--labels", "3", "--resample"]
    assert run("reconstruct", sources["saved"], "--to", to, "--force", *args).exit_code == 0
    drawn = tfnvp.latent.resample_scales(flow, levels, keep=0, labels=3, seed=0)
    np.testing.assert_allclose(np.load(to).reshape(4, 3, 8, 8, 1)[:, 2], drawn, atol=1e-5)
    args = ["-n", 1, "--temperature", 0, "--labels", 3]
    assert run("extrapolate", sources["saved"], "--to", to, "--force", *args).exit_code == 0
    expected = flow.sample(1, labels=3, temperature=0.0, image_shape=(16, 16, 1))
    np.testing.assert_allclose(np.load(to), expected, atol=1e-5)


def test_info_and_presets(model, saved, served):
    facts = json.loads(run("info", saved, "--json").output)
    assert facts["parameters"] == model.count_params() and facts["levels"] == 17
    assert facts["latents_by_scale"] == [[8, 8, 1]]
    facts = json.loads(run("info", served, "--json").output)
    assert facts["levels"] == 17 and facts["image_shape"] == [8, 8, 1]
    assert {"log_prob", "encode", "decode", "sample"} < set(facts["signatures"])
    assert "test 2.0271" in run("info", "digits").output
    listed = json.loads(run("presets", "--json").output)
    assert sorted(listed) == tfnvp.presets.names()
    assert {name for name, row in listed.items() if "test_bits_per_dim" in row} == set(
        tfnvp.presets.trained()
    )
    assert "digits" in run("presets").output


def test_train_says_in_one_line_what_is_wrong(tmp_path):
    result = run("train", "nosuch", "--run-dir", tmp_path / "run")
    assert result.exit_code == 2 and "unknown recipe 'nosuch'; known: " in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "command", [c.name or c.callback.__name__ for c in app.registered_commands]
)
def test_help_has_an_example(command):
    assert f"Example: tfnvp {command}" in " ".join(run(command, "--help").output.split())


def test_version():
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"tfnvp {tfnvp.__version__}\n")


def test_export_takes_the_card_and_the_signatures_asked_for(saved, tmp_path):
    (saved.with_name("card.json")).write_text('{"preset": "mine"}')
    result = run("export", saved, "--to", tmp_path, "--signature", "encode", "--image-size", "4x6")
    assert (result.exit_code, result.output) == (0, f"{tmp_path / '1'}\n")
    card = json.loads((tmp_path / "1" / "assets" / "model_card.json").read_text())
    assert card["preset"] == "mine"
    assert card["served"]["signatures"] == {"encode": {"images": "uint8 ['rows', 4, 6, 1]"}}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["export", "{saved}", "--to", "x", "--image-size", "4"], "HEIGHTxWIDTH"),
        (["export", "{saved}", "--to", "x", "--signature", "nosuch"], "known: log_prob"),
        (["evaluate", "nosuch.keras", "--dataset", "digits"], "nosuch.keras"),
        (["evaluate", "{saved}", "--dataset", "nosuch"], "digits"),
        (["evaluate", "{saved}", "--dataset", "moons"], "moons is of vectors, this is a model of"),
        (["evaluate", "{saved}", "--dataset", "photos"], "[batch, 8, 8, 1]"),
        (
            ["sample", "{saved}", "--to", "samples.jpg"],
            "samples.jpg: '.jpg'; known: .png, .npy, .npz",
        ),
        (["sample", "nosuch", "--to", "s.png"], "cifar10_small, digits, got nosuch"),
        (["sample", "/", "--to", "s.png"], "no SavedModel in /"),
        (["score", "{saved}"], "give files or --dataset"),
        (["score", "{saved}", "/nosuch.png"], "/nosuch.png"),
        (["score", "{saved}", "{saved}"], "not a PNG or JPEG file: {saved}"),
        (["extrapolate", "{served}", "--to", "x.png"], "extrapolate needs more than a SavedModel"),
        (["export", "{served}", "--to", "x"], "export needs more than a SavedModel"),
        (
            ["reconstruct", "{served}", "--to", "x.png", "--dataset", "digits", "--resample"],
            "reconstruct --resample needs more than a SavedModel",
        ),
        (["sample", "{saved}", "--to", "/nosuch/s.png"], "/nosuch"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(saved, served, args, message):
    result = run(*(arg.format(saved=saved, served=served) for arg in args))
    assert result.exit_code == 2
    assert message.format(saved=saved) in result.output
    assert len(result.output.splitlines()) == 1


def installed(*args, cwd):
    """Runs the installed command in a directory, as from a shell."""
    command = Path(sys.executable).with_name("tfnvp")
    # JAX, which TensorFlow imports where it is installed, has set this variable here.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [command, *args], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_installed_command_is_quiet(tmp_path):
    saved = tmp_path / "model.keras"
    tfnvp.ImageRealNVP((4, 4, 1), 1, filters=1, residual_blocks=1).save(saved)
    done = installed("sample", saved, "--to", tmp_path / "s.png", "-n", "1", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/s.png\n", "")


def test_the_installed_command_trains_in_an_empty_directory(tmp_path):
    args = ["train", "moons", "--epochs", "1", "--limit-steps", "2", "--no-export"]
    done = installed(*args, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (run_dir,) = (tmp_path / "runs" / "moons").iterdir()
    card = json.loads((run_dir / "card.json").read_text())
    assert card["command"] == f"tfnvp {' '.join(args)}"
    assert (run_dir / "model.keras").is_file() and (run_dir / "density.png").is_file()

"""The command `tfnvp`, as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tfnvp
from tfnvp.cli import app


@pytest.fixture(scope="module")
def model(randomize):
    flow = tfnvp.ImageRealNVP((8, 8, 1), 1, filters=4, residual_blocks=1, levels=17)
    randomize(flow, seed=0)
    return flow


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    return tfnvp.export_saved_model(model, tmp_path_factory.mktemp("served"))


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
    images = np.concatenate(list(tfnvp.data.load("digits", "validation", 200)))
    bits = model.bits_per_dim(images).numpy()
    result = run("evaluate", saved, "--dataset", "digits", "--split", "validation")
    error = bits.std(ddof=1) / np.sqrt(200)
    expected = f"digits validation: {bits.mean():.4f} +- {error:.4f} bits/dim, 200 images\n"
    assert (result.exit_code, result.output) == (0, expected)


def test_evaluate_with_samples_adds_the_tighter_bound(model, saved):
    images = np.concatenate(list(tfnvp.data.load("digits", "validation", 200)))
    bits = model.bits_per_dim(images, samples=3).numpy()
    args = ["evaluate", saved, "--dataset", "digits", "--split", "validation"]
    first, second = run(*args, "--samples", 3).output.splitlines()
    assert first + "\n" == run(*args).output
    error = bits.std(ddof=1) / np.sqrt(200)
    expected = f"digits validation: {bits.mean():.4f} +- {error:.4f} bits/dim, 200 images, "
    assert second == expected + "importance-weighted, 3 samples"


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
    args = ["extrapolate", saved, "--to", tmp_path / "large.npy", "-n", 3, "--seed", 5]
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
    assert run("reconstruct", saved, "--to", to, *paths, "--resample").exit_code == 0
    rows = np.load(to).reshape(4, 3, 8, 8, 1)
    np.testing.assert_allclose(rows[:, 0], (levels + 0.5) / 17, atol=1e-6)
    np.testing.assert_allclose(rows[:, 1], rows[:, 0], atol=1e-3)
    drawn = tfnvp.latent.resample_scales(model, levels, keep=0, seed=0)
    np.testing.assert_allclose(rows[:, 2], drawn, atol=1e-5)
    result = run("reconstruct", served, "--to", to, "--dataset", "digits", "-n", 2)
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


@pytest.fixture(scope="module")
def vectors(randomize, tmp_path_factory):
    flow = randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,)), seed=1)
    path = tmp_path_factory.mktemp("vectors") / "model.keras"
    flow.save(path)
    return flow, path


def test_models_of_vectors(vectors, tmp_path):
    flow, path = vectors
    to = tmp_path / "s.npy"
    assert run("sample", path, "-n", 3, "--seed", 2, "--to", to).exit_code == 0
    np.testing.assert_allclose(np.load(to), flow.sample(3, seed=2), atol=1e-6)
    scored = [json.loads(line) for line in run("score", path, to, "--json").output.splitlines()]
    log_prob = [record["log_prob"] for record in scored]
    np.testing.assert_allclose(log_prob, flow.log_prob(np.load(to)), rtol=1e-5)
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3)))
    refused = run("score", path, tmp_path / "wrong.npy")
    assert refused.exit_code == 2 and "must hold vectors [N, 2], got (2, 3)" in refused.output
    assert json.loads(run("info", path, "--json").output)["event_size"] == 2
    for command in ("interpolate", "extrapolate", "reconstruct"):
        refused = run(command, path, "--to", to)
        assert refused.exit_code == 2 and f"{command} is of images" in refused.output


def test_a_conditional_model_samples_its_classes_and_scores_given_labels(randomize, tmp_path):
    sizes = {"filters": 4, "residual_blocks": 1, "levels": 17}
    flow = tfnvp.ImageRealNVP((8, 8, 1), 1, **sizes, num_classes=10, label_dropout=0.1)
    randomize(flow, seed=0).save(tmp_path / "model.keras")
    args = ["sample", tmp_path / "model.keras", "-n", 4, "--to", tmp_path / "s.npy", "--labels"]
    assert run(*args, "3,7").exit_code == 0
    expected = flow.sample(4, labels=np.array([3, 7, 3, 7]), seed=0)
    np.testing.assert_allclose(np.load(tmp_path / "s.npy"), expected, atol=1e-5)
    for wrong, message in (("10", "labels must be "), ("three", "--labels must be integers")):
        refused = run(*args, wrong)
        assert refused.exit_code == 2 and message in refused.output
    x, y = next(iter(tfnvp.data.load("digits", "validation", 200, labels=True)))
    printed = run("evaluate", args[1], "--dataset", "digits", "--split", "validation", "--json")
    bits = json.loads(printed.output)["bits_per_dim"]
    assert bits == pytest.approx(float(np.mean(flow.bits_per_dim(x, labels=y))), rel=1e-5)
    assert bits != pytest.approx(float(np.mean(flow.bits_per_dim(x))), rel=1e-3)


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


def test_train_is_that_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = run("train", "nosuch", "--run-dir", tmp_path / "run")
    assert result.exit_code == 2 and "unknown recipe 'nosuch'; known: " in result.output


@pytest.mark.parametrize(
    "command", [c.name or c.callback.__name__ for c in app.registered_commands]
)
def test_help_has_an_example(command):
    if command != "train":  # which has the training program's
        assert f"Example: tfnvp {command}" in " ".join(run(command, "--help").output.split())


def test_export_writes_a_version(saved, tmp_path):
    result = run("export", saved, "--to", tmp_path / "served")
    assert result.exit_code == 0
    assert (tmp_path / "served" / "1" / "saved_model.pb").is_file()


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
        (["evaluate", "{saved}", "--dataset", "photos"], "[batch, 8, 8, 1]"),
        (
            ["sample", "{saved}", "--to", "samples.jpg"],
            "samples.jpg: '.jpg'; known: .png, .npy, .npz",
        ),
        (["sample", "nosuch", "--to", "s.png"], "cifar10_small, digits, got nosuch"),
        (["sample", "/", "--to", "s.png"], "no SavedModel in /"),
        (["score", "{saved}"], "give image files or --dataset"),
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


def test_the_installed_command_is_quiet(saved, tmp_path):
    command = Path(sys.executable).with_name("tfnvp")
    # As from a shell: JAX, which TensorFlow imports where it is installed, has set this one here.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [command, "sample", saved, "--to", tmp_path / "s.png", "-n", "1"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/s.png\n", "")

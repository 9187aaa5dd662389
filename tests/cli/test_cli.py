"""The command `tfnvp`, as a user types it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from helpers.commands import run
from helpers.few_couplings import FewCouplings
from PIL import Image
from typer.testing import CliRunner

import tfnvp
from tfnvp.cli import app
from tfnvp.training import command


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


def test_info_and_presets(model, saved, served):
    facts = json.loads(run("info", saved, "--json").output)
    assert facts["parameters"] == model.count_params() and facts["levels"] == 17
    assert facts["latents_by_scale"] == [[8, 8, 1]]
    facts = json.loads(run("info", served, "--json").output)
    assert facts["levels"] == 17 and facts["image_shape"] == [8, 8, 1]
    assert {"log_prob", "encode", "decode", "sample"} < set(facts["signatures"])
    assert "test 2.0285" in run("info", "digits").output
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


@pytest.mark.parametrize("program", [[app, "train"], [command.app]])
def test_training_names_the_extra_that_is_missing(program, tmp_path, monkeypatch):
    """Both programs say so in one line, `tfnvp train` and `python -m train`."""
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    application, *args = program
    options = ["mnist", "--run-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(application, [*args, *options])
    assert result.exit_code == 2 and "the extra `data`: pip install" in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "command", [c.name or c.callback.__name__ for c in app.registered_commands]
)
def test_help_has_an_example(command):
    assert f"Example: tfnvp {command}" in " ".join(run(command, "--help").output.split())


@pytest.mark.parametrize("program", [app, command.app])
def test_help_has_each_option_and_all_that_is_said_of_it(program):
    """A narrow terminal cuts off nothing, and no word is taken for markup."""
    group = typer.main.get_command(program)
    for name, one in getattr(group, "commands", {None: group}).items():
        args = [*([name] if name else []), "--help"]
        shown = CliRunner().invoke(program, args, env={"COLUMNS": "60"}).output
        shown = "".join(shown.split())
        for parameter in one.params:
            options = parameter.opts + parameter.secondary_opts
            named = options if parameter.param_type_name == "option" else [parameter.metavar]
            assert parameter.help, (name, named)
            for text in (*named, parameter.help):
                assert "".join(text.split()) in shown, (name, text)


@pytest.mark.parametrize(
    ("command", "default"),
    [("export", "4000000"), ("serve", "MODEL's own"), ("score", "p(x)"), ("reconstruct", "8")],
)
def test_help_tells_defaults_that_no_signature_has(command, default):
    shown = " ".join(run(command, "--help").output.split())
    assert re.search(rf"\[default: \({re.escape(default)}\)[];]", shown)


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
        (["evaluate", "{saved}", "--dataset", "photos"], "photos has images (32, 32, 3)"),
        (
            ["sample", "{saved}", "--to", "samples.jpg"],
            "samples.jpg: '.jpg'; known: .png, .npy, .npz",
        ),
        (["sample", "nosuch", "--to", "s.png"], "digits, mnist, mnist_conditional, got nosuch"),
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


@pytest.mark.slow
def test_the_installed_command_is_quiet(tmp_path):
    saved = tmp_path / "model.keras"
    tfnvp.ImageRealNVP((4, 4, 1), 1, filters=1, residual_blocks=1).save(saved)
    done = installed("sample", saved, "--to", tmp_path / "s.png", "-n", "1", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path}/s.png\n", "")


@pytest.mark.slow
def test_the_installed_command_trains_in_an_empty_directory(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 2))
    np.savetxt(tmp_path / "x.csv", rows, delimiter=",", header="a,b", comments="")
    args = ["train", "table", "--data", "x.csv", "--limit-steps", "2", "--no-export"]
    done = installed(*args, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (run_dir,) = (tmp_path / "runs" / "table").iterdir()
    card = json.loads((run_dir / "card.json").read_text())
    assert card["command"] == f"tfnvp {' '.join(args)}"
    assert (run_dir / "model.keras").is_file() and (run_dir / "curves.png").is_file()

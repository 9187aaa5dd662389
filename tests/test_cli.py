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
        (["sample", "{saved}", "--to", "samples.jpg"], ".png"),
        (["sample", "{saved}", "--to", "/nosuch/s.png"], "/nosuch"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(saved, args, message):
    result = run(*(arg.format(saved=saved) for arg in args))
    assert result.exit_code == 2
    assert message in result.output
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

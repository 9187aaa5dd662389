"""The command that trains: what it says, and what it refuses."""

import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import tfnvp
import tfnvp.training.run
from tfnvp.training.command import app
from tfnvp.training.run_callbacks import Log


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nosuch"], "known: celeb_a, cifar10, cifar10_conditional, cifar10_plus, cifar10_small"),
        (["digits", "--run-dir", "{full}"], "is not empty"),
        (["digits", "--run-dir", "{new}", "--resume"], "holds no unfinished run"),
        (["folder", "--run-dir", "{new}"], "--data DIR"),
        (["folder", "--run-dir", "{new}", "--data", "/nosuch"], "/nosuch"),
        (["folder", "--run-dir", "{new}", "--data", "{full}"], "{full}"),
        (["digits", "--run-dir", "{new}", "--data", "{full}"], "of the recipe folder or table"),
        (["table", "--run-dir", "{new}"], "--data FILE.csv"),
        (["table", "--run-dir", "{new}", "--data", "{file}"], "{file} must have a header and rows"),
        (["table", "--run-dir", "{new}", "--data", "/nosuch.csv"], "/nosuch.csv"),
        (["digits", "--run-dir", "{new}", "--learning-rate", "0"], "--learning-rate"),
        (
            ["digits", "--run-dir", "{new}", "--strategy", "two"],
            "--strategy 'two'; known: mirrored, multi_worker",
        ),
        (["digits", "--run-dir", "{new}", "--strategy", "multi_worker"], "TF_CONFIG"),
        (["digits", "--strategy", "multi_worker"], "needs --run-dir"),
        (["digits", "--run-dir", "/proc/nosuch"], "/proc/nosuch"),
        (["digits", "--run-dir", "{new}", "--export-to", "{file}"], "{file} is a file"),
        (["digits", "--run-dir", "{new}", "--export-to", "{file}/x"], "{file} is a file"),
        (["digits", "--run-dir", "{new}", "--export-to", "/proc/nosuch"], "/proc"),
        (["cifar10_small", "--run-dir", "{new}"], "TFDS_DATA_DIR"),
        (["lsun_tower", "--run-dir", "{new}"], "tfds.load('lsun/tower:3.1.0')"),
        (["folder", "--run-dir", "{new}", "--data", "{images}", "--image-size", "7"], "(7, 7, 3)"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(
    args, message, tmp_path, folder, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no_data"))
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    paths = {"full": full, "new": tmp_path / "new", "images": folder}
    paths["file"] = full / "notes.txt"
    result = CliRunner().invoke(app, [arg.format(**paths) for arg in args])
    assert result.exit_code == 2
    assert message.format(**paths) in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
    assert [path.name for path in full.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["/venv/bin/tfnvp", "train", "digits", "--seed", "1"], "tfnvp train digits --seed 1"),
        (["/checkout/train/__main__.py", "--run-dir", "a b"], "python -m train --run-dir 'a b'"),
    ],
)
def test_the_command_line_is_recorded_as_it_was_typed(arguments, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", arguments)
    assert tfnvp.training.run._circumstances()["command"] == command


class Stepped:
    """A model that has taken some steps, as far as a callback looks at it."""

    def __init__(self, steps):
        self.optimizer = self
        self.iterations = np.array(steps)


def test_output_that_goes_to_a_file_has_a_line_every_half_minute(monkeypatch, capsys):
    """A step takes a second, and 12 images; the first one is traced, which takes 50 more."""
    log = Log(steps=10_000, batch_size=12)
    for step in range(1000, 1092):
        log.set_model(Stepped(step + 1))
        monkeypatch.setattr(time, "monotonic", lambda step=step: 50.0 + step)
        log.on_train_batch_end(step, {"loss": 2 + step / 1e4})
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "step 1,031 of 10,000: loss 2.1030, 12 images/s, 2:29:29 left",
        "step 1,061 of 10,000: loss 2.1060, 12 images/s, 2:28:59 left",
        "step 1,091 of 10,000: loss 2.1090, 12 images/s, 2:28:29 left",
    ]

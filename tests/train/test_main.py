"""`python -m train`, as a user of the checkout types it."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

from tfnvp.training.command import show_warnings_of

ROOT = Path(__file__).parents[2]


def test_it_is_quiet_and_says_in_one_line_what_is_wrong():
    # JAX, which TensorFlow imports where it is installed, has set this variable here.
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "train", "nosuch"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train: unknown recipe 'nosuch'; known: celeb_a, ")
    assert len(done.stderr.splitlines()) == 1


def test_warnings_are_lines_of_the_program(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with warnings.catch_warnings():
        show_warnings_of("tfnvp")
    shown = warnings.formatwarning(UserWarning("mind the gap"), UserWarning, "somewhere.py", 3)
    assert shown == "tfnvp: mind the gap\n"

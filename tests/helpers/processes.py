"""Training runs in processes of their own, by `runner.py`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]


def start(run_dir, *args, environment=None, **options):
    """A process that trains in a directory."""
    options["args"] = [*args, "--run-dir", str(run_dir)]
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "helpers" / "runner.py", json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(run_dir, *args, **options):
    """Its exit status and what it said of itself on standard error."""
    process = start(run_dir, *args, **options)
    _, errors = process.communicate(timeout=120)
    said = [line for line in errors.splitlines() if line.startswith("train: ")]
    return process.returncode, [line for line in said if "shuffle=True" not in line], errors


def state(path):
    with np.load(path) as file:
        rows, *variables = (file[name] for name in file.files)
    return json.loads(str(rows)), variables

"""Processes of their own without the seconds that TensorFlow takes to be imported.

Each is a fork of a server that has imported tfnvp, and in which no operation has run.
"""

import functools
import json
import multiprocessing
import os
import threading
from collections.abc import Callable

import numpy as np

from helpers import runner

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tfnvp.training.command"])


class Program:
    """A call of a function in a process of its own.

    Args:
        function: one that a module defines, or a `functools.partial` of it.
        environment: further variables of its environment.
    """

    def __init__(self, function: Callable, environment: dict[str, str] | None = None):
        ours, theirs = zip(*(FORKS.Pipe(duplex=False) for _ in range(2)), strict=True)
        self._process = FORKS.Process(
            target=_run, args=(function, environment or {}, *theirs), daemon=True
        )
        self._process.start()
        for pipe in theirs:
            pipe.close()
        self._written = ["", ""]
        self._readers = [
            threading.Thread(target=self._read, args=(i, pipe), daemon=True)
            for i, pipe in enumerate(ours)
        ]
        # They read from the start: a full pipe would hold the process up.
        for reader in self._readers:
            reader.start()

    def end(self, timeout: float = 600) -> tuple[int, str, str]:
        """Waits for its end: the exit status, as of `subprocess`, and both outputs."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"it has not ended after {timeout} seconds: {self._written[1]}")
        for reader in self._readers:
            reader.join()
        return self._process.exitcode, *self._written

    def _read(self, i, pipe):
        with open(pipe.fileno(), closefd=False, errors="replace") as lines:
            for line in lines:
                self._written[i] += line
        pipe.close()


def _run(function, environment, out, errors):
    os.environ.update(environment)
    for stream, pipe in ((1, out), (2, errors)):
        os.dup2(pipe.fileno(), stream)
        pipe.close()
    function()


def start(run_dir, *args, environment=None, **options):
    """A process that trains in a directory, by `runner.py`."""
    args = [*args, "--run-dir", str(run_dir)]
    return Program(functools.partial(runner.main, args, **options), environment)


def run(run_dir, *args, **options):
    """Its exit status, what it said of itself on standard error, and all that stands there."""
    code, _, errors = start(run_dir, *args, **options).end()
    said = [line for line in errors.splitlines() if line.startswith("train: ")]
    return code, [line for line in said if "shuffle=True" not in line], errors


def state(path):
    with np.load(path) as file:
        rows, *variables = (file[name] for name in file.files)
    return json.loads(str(rows)), variables

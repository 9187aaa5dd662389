"""A training run in a process of its own, that may be made to die: `python runner.py OPTIONS`.

OPTIONS is JSON: `args`, those of `python -m train`; `state`, a file for the last state of the
training, which is not evaluated then; `float`, whether images are float, to which no noise is
added; `die`, a dictionary of one entry: what happens, and at which step or save.
"""

import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import tfnvp.training.command
import tfnvp.training.fit
import tfnvp.training.run
from tfnvp.training import checkpoints, recipes

OPTIONS = json.loads(sys.argv[1])
DIE = OPTIONS.get("die", {})
RUN_DIR = Path(OPTIONS["args"][OPTIONS["args"].index("--run-dir") + 1])
TINY = {"filters": 4, "residual_blocks": 1, "num_scales": 1}
SAVES = []
REAL = {"get": recipes.get, "savez": np.savez}


def tiny(name, **options):
    """A recipe of a model that is traced in seconds and has all that a state can have."""
    chosen = REAL["get"](name, **options)

    def load(*args, **options):
        images = chosen.load(*args, **options)
        if OPTIONS.get("float") and not options.get("indices"):
            return images.map(lambda x: tf.cast(x, tf.float32) / 17)
        return images

    overrides = chosen.overrides | TINY
    return dataclasses.replace(chosen, overrides=overrides, warmup_steps=2, load=load)


def forget_that_it_is_root():
    """From now on permissions bind this thread, whoever runs it."""
    # Linux: all capabilities are taken from it.
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


class Ends(tfnvp.training.fit.StopWhereItDiverges):
    """Ends the process after a step."""

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the step."""
        step = checkpoints.steps_taken(self.model)
        if step == DIE.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == DIE.get("terminate"):
            os.kill(os.getpid(), signal.SIGTERM)
        if step == DIE.get("disk full"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        if step == DIE.get("read-only"):
            forget_that_it_is_root()
            for directory in ("checkpoints", "."):
                (RUN_DIR / directory).chmod(0o555)
        if step == DIE.get("nan"):
            logs = {**logs, "loss": float("nan")}
        super().on_train_batch_end(batch, logs)


def savez(file, **arrays):
    """Writes half of the arrays and dies, or all."""
    SAVES.append(file)
    if len(SAVES) == DIE.get("kill while saving"):
        REAL["savez"](file, **dict(list(arrays.items())[: len(arrays) // 2]))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    REAL["savez"](file, **arrays)


def finish(training, *_):
    """Keeps the state instead of evaluating it."""
    variables = [*training.model.variables, *training.model.optimizer.variables]
    REAL["savez"](OPTIONS["state"], json.dumps(training.rows), *map(np.asarray, variables))
    return {}


if DIE.get("read-only") == 0:
    forget_that_it_is_root()
recipes.get = tiny
recipes.Recipe.pictures = lambda self: {}
tfnvp.training.fit.StopWhereItDiverges = Ends
np.savez = savez
if "state" in OPTIONS:
    tfnvp.training.run._finish = finish
tfnvp.training.command.app(OPTIONS["args"])

"""A training run in a process of its own, that may be made to die: `python runner.py OPTIONS`.

OPTIONS is JSON: `args`, those of `python -m train`; `state`, a file for the last state of the
training, which is not evaluated then; `float`, whether images are float, to which no noise is
added; `die`, a dictionary of one entry: what happens, and at which step or save.
"""

import dataclasses
import json
import os
import resource
import signal
import sys

import numpy as np
import tensorflow as tf

import train.__main__
import train.run
from train import checkpoint, recipe

OPTIONS = json.loads(sys.argv[1])
DIE = OPTIONS.get("die", {})
TINY = {"filters": 4, "residual_blocks": 1, "num_scales": 1}
REAL = {"get": recipe.get, "savez": np.savez}


def tiny(name):
    """A recipe of a model that is traced in seconds and has all that a state can have."""
    chosen = REAL["get"](name)

    def load(*args, **options):
        images = chosen.load(*args, **options)
        if OPTIONS.get("float") and not options.get("indices"):
            return images.map(lambda x: tf.cast(x, tf.float32) / 17)
        return images

    overrides = chosen.overrides | TINY
    return dataclasses.replace(chosen, overrides=overrides, warmup_steps=2, load=load)


class Ends(train.run.StopWhereItDiverges):
    """Ends the process after a step."""

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the step."""
        step = checkpoint.steps_taken(self.model)
        if step == DIE.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == DIE.get("terminate"):
            os.kill(os.getpid(), signal.SIGTERM)
        if step == DIE.get("disk full"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        if step == DIE.get("nan"):
            logs = {**logs, "loss": float("nan")}
        super().on_train_batch_end(batch, logs)


class Numpy:
    """Ends the process while a state is written."""

    load = staticmethod(np.load)
    saves = 0

    @classmethod
    def savez(cls, file, **arrays):
        """Writes half of the arrays and dies, or all."""
        cls.saves += 1
        if cls.saves == DIE.get("kill while saving"):
            REAL["savez"](file, **dict(list(arrays.items())[: len(arrays) // 2]))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        REAL["savez"](file, **arrays)


def finish(recipe, settings, model, rows, *_):
    """Keeps the state instead of evaluating it."""
    variables = [*model.variables, *model.optimizer.variables]
    np.savez(OPTIONS["state"], json.dumps(rows), *map(np.asarray, variables))
    return {}


recipe.get = tiny
recipe.Recipe.pictures = lambda self: {}
train.run.StopWhereItDiverges = Ends
checkpoint.np = Numpy
if "state" in OPTIONS:
    train.run._finish = finish
train.__main__.app(OPTIONS["args"])

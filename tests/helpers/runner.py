"""A training run that may be made to die, for a process of its own."""

import ctypes
import json
import os
import resource
import signal
from pathlib import Path

import numpy as np
import tensorflow as tf

import tfnvp.training.command
import tfnvp.training.fit
import tfnvp.training.run
from helpers.few_couplings import FewCouplingsRecipe
from tfnvp.training import checkpoints, recipes

REAL = {"get": recipes.get, "savez": np.savez}


def main(args, state=None, float=False, die=None, devices=1):
    """Trains in a process that is given to it.

    Args:
        args: those of `python -m train`.
        state: a file for the last state of the training, which is not evaluated then.
        float: whether images are float, to which no noise is added.
        die: a dictionary of one entry: what happens, and at which step or save.
        devices: how many logical CPUs there are.
    """
    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        parts = [tf.config.LogicalDeviceConfiguration()] * devices
        tf.config.set_logical_device_configuration(cpu, parts)
    die = die or {}
    run_dir = Path(args[args.index("--run-dir") + 1])
    if die.get("read-only") == 0:
        forget_that_it_is_root()
    recipes.get = lambda name, **options: tiny(REAL["get"](name, **options), float)
    recipes.Recipe.pictures = lambda self: {}
    tfnvp.training.fit.StopWhereItDiverges = lambda: Ends(die, run_dir)
    np.savez = Saving(die)
    if state is not None:
        tfnvp.training.run._finish = lambda training, *_: keep(training, state)
    tfnvp.training.command.app(args)


def tiny(chosen, of_floats):
    """A recipe of a model that is traced in seconds and has all that a state can have."""

    def load(*args, **options):
        images = chosen.load(*args, **options)
        if of_floats and not options.get("indices"):
            return images.map(lambda x: tf.cast(x, tf.float32) / 17)
        return images

    # Weight decay has no state, and takes as long to trace as all else of an optimizer's step.
    return FewCouplingsRecipe.of(chosen, load=load, warmup_steps=2, weight_decay=0.0)


def forget_that_it_is_root():
    """From now on permissions bind this thread, whoever runs it."""
    # Linux: all capabilities are taken from it.
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


class Ends(tfnvp.training.fit.StopWhereItDiverges):
    """Ends the process after a step."""

    def __init__(self, die, run_dir):
        super().__init__()
        self.die, self.run_dir = die, run_dir

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the step."""
        step = checkpoints.steps_taken(self.model)
        if step == self.die.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self.die.get("terminate"):
            os.kill(os.getpid(), signal.SIGTERM)
        if step == self.die.get("interrupt"):
            os.kill(os.getpid(), signal.SIGINT)
        if step == self.die.get("disk full"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        if step == self.die.get("read-only"):
            forget_that_it_is_root()
            for directory in ("checkpoints", "."):
                (self.run_dir / directory).chmod(0o555)
        if step == self.die.get("nan"):
            logs = {**logs, "loss": float("nan")}
        super().on_train_batch_end(batch, logs)


class Saving:
    """Writes arrays as `numpy.savez`; at the save that is to kill, half of them."""

    def __init__(self, die):
        self.deadly, self.count = die.get("kill while saving"), 0

    def __call__(self, file, **arrays):
        """Writes, or dies."""
        self.count += 1
        if self.count == self.deadly:
            REAL["savez"](file, **dict(list(arrays.items())[: len(arrays) // 2]))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        REAL["savez"](file, **arrays)


def keep(training, path):
    """Keeps the state instead of evaluating it."""
    variables = [*training.model.variables, *training.model.optimizer.variables]
    REAL["savez"](path, json.dumps(training.rows), *map(np.asarray, variables))
    return {}

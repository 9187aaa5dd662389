"""Keras callbacks of a training: they keep states and the best weights, and end it in time."""

import csv
import datetime
import math
import signal
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp import atomic_file
from tfnvp.training import Terminated
from tfnvp.training.checkpoints import Checkpoints, steps_taken

Logs = dict[str, Any] | None


class Record(keras.callbacks.Callback):
    """Keeps the model that did best in validation, and what each epoch reported.

    They are `model.keras` and `history.csv` in a directory, both whole at every moment. Where an
    `Average` is given it is the average of the weights that is kept. The list `rows` has what the
    epochs of an earlier part of the same training reported; it grows.
    """

    def __init__(
        self,
        directory: Path,
        rows: list[dict[str, float]],
        average: keras.callbacks.SwapEMAWeights | None = None,
    ) -> None:
        super().__init__()
        self.directory, self.rows, self.average = directory, rows, average

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Saves the model if its validation is the best so far, and adds a row."""
        best = np.nanmin([math.inf, *(row["val_bits_per_dim"] for row in self.rows)])
        if logs["val_bits_per_dim"] < best:
            if self.average:
                self.average.on_test_begin()
            self.model.save(self.directory / "model.keras")
            if self.average:
                self.average.on_test_end()
        self.rows.append({"epoch": epoch, **{name: float(logs[name]) for name in sorted(logs)}})
        path = self.directory / "history.csv"
        with atomic_file.writing(path) as written, written.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)


class Average(keras.callbacks.SwapEMAWeights):
    """Has validation see the average of the weights that an optimizer with `use_ema` keeps.

    Keras would leave the average in the model at the end of `fit`. Training goes on from its own
    weights, as it would without that end: where it is resumed within an epoch, `fit` ends there.
    """

    _own = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Notes the weights."""
        self._own = self.model.get_weights()

    def on_train_end(self, logs: Logs = None) -> None:
        """Brings the weights back."""
        if self._own is not None:
            self.model.set_weights(self._own)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Checkpoint(keras.callbacks.Callback):
    """Saves the training's state before it, every so many steps, after each epoch, at a signal.

    SIGTERM and Ctrl-C end the step in progress first; a second Ctrl-C does not wait for it.

    It comes last of the callbacks, so that its state is one in which the others have done their
    part of an epoch. `rows` is the list that a `Record` keeps; from one state to the next it is
    `every` steps.
    """

    def __init__(
        self, checkpoints: Checkpoints, rows: list[dict], every: int, steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.checkpoints, self.rows = checkpoints, rows
        self.every, self.steps_per_epoch = every, steps_per_epoch
        self._saved = self._metrics = self._terminated = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Saves a state, listens to signals, and notes the metrics of an epoch half done."""
        self._terminated = None
        self._before = {number: signal.signal(number, self._terminate) for number in _SIGNALS}
        # It saves whether or not the state is there: several workers can only save all together.
        self._save()
        self._metrics = [keras.ops.convert_to_numpy(v) for v in self.model.metrics_variables]

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Gives the metrics back that Keras has just reset."""
        if self._metrics is not None and steps_taken(self.model) % self.steps_per_epoch:
            for variable, value in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(value)
        self._metrics = None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Saves, where it is due."""
        steps = steps_taken(self.model)
        # The last step of an epoch is saved with the epoch.
        if steps % self.steps_per_epoch == 0:
            return
        terminated = self._terminated_anywhere()
        if terminated or steps - self._saved >= self.every:
            self._save()
        if terminated:
            self._leave()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Saves."""
        self._save()
        if self._terminated_anywhere():
            self._leave()

    def on_train_end(self, logs: Logs = None) -> None:
        """Lets signals end the process again."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _save(self) -> None:
        self.checkpoints.save(self.rows)
        self._saved = steps_taken(self.model)

    def _leave(self) -> None:
        self.on_train_end()
        raise Terminated(self._saved, self._terminated or signal.SIGTERM)

    def _terminate(self, number: int, *_: Any) -> None:
        if self._terminated == number == signal.SIGINT:
            raise KeyboardInterrupt
        self._terminated = signal.Signals(number)

    def _terminated_anywhere(self) -> bool:
        """Whether a signal came, to any of several workers: all ask at the same step."""
        strategy = self.model.distribute_strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self._terminated is not None
        return self._sum(strategy, tf.constant(float(self._terminated is not None))) > 0

    @staticmethod
    @tf.function
    def _sum(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
        values = strategy.run(tf.identity, [value])
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)


class Log(keras.callbacks.Callback):
    """Prints a line every half minute: for output that goes to a file, where a bar would not.

    A line has the step, the mean loss of the epoch so far, images (or rows, as `unit` says) a
    second since the line before, and the time that is left at that speed.

    `steps` is how many the training takes in all.
    """

    _SECONDS = 30.0

    def __init__(self, steps: int, batch_size: int, unit: str = "images") -> None:
        super().__init__()
        self.steps, self.batch_size, self.unit = steps, batch_size, unit
        self._last = None  # the time and the step of the line before

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Prints a line, where it is due."""
        now, step = time.monotonic(), steps_taken(self.model)
        if self._last is None:  # TensorFlow has traced the step, which says nothing of the speed.
            self._last = now, step
        seconds, steps = now - self._last[0], step - self._last[1]
        if not steps or seconds < self._SECONDS:
            return
        loss = float(keras.ops.convert_to_numpy(logs["loss"]))
        speed = f"{steps * self.batch_size / seconds:,.0f} {self.unit}/s"
        left = datetime.timedelta(seconds=round((self.steps - step) * seconds / steps))
        of = f"step {step:,} of {self.steps:,}"
        print(f"{of}: loss {loss:.4f}, {speed}, {left} left", flush=True)
        self._last = now, step


class Diverged(Exception):
    """The loss is no number, or beyond all bounds, between the steps `before` and `after`."""

    def __init__(self, loss: float, before: int, after: int) -> None:
        super().__init__(f"training diverged: loss {loss:.4g} bits/dim in step {after}")
        self.before, self.after = before, after


class StopWhereItDiverges(keras.callbacks.Callback):
    """Raises `Diverged` where the loss is no number, or far above that of the first steps."""

    _BOUND = 1000.0  # bits/dim
    _first = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Notes where training begins."""
        self._steps = steps_taken(self.model)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Looks at the loss."""
        loss = float(keras.ops.convert_to_numpy(logs["loss"]))
        before, self._steps = self._steps, steps_taken(self.model)
        self._first = loss if self._first is None else self._first
        if not math.isfinite(loss) or loss > self._first + self._BOUND:
            raise Diverged(loss, before, self._steps)

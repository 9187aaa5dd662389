"""What happens while a model trains: states and the best weights are kept, and it ends in time."""

import csv
import io
import math
import os
import signal

import keras
import tensorflow as tf

from tfnvp.training import Terminated
from tfnvp.training.checkpoints import save_model, steps_taken


class BestModel(keras.callbacks.Callback):
    """Keeps the model that did best in validation in one file, whole at every moment.

    Args:
        path: of the `.keras` file.
        best: the figure to beat, bits/dim: of an earlier part of the same training.
    """

    def __init__(self, path, best=float("inf")):
        super().__init__()
        self.path = path
        self.best = best

    def on_epoch_end(self, epoch, logs=None):
        """Saves the model if its validation is the best so far."""
        if logs["val_bits_per_dim"] < self.best:
            self.best = logs["val_bits_per_dim"]
            save_model(self.model, self.path)


class History(keras.callbacks.Callback):
    """Keeps what each epoch reported, in a list and in a CSV file that is whole at every moment.

    Args:
        path: of the file.
        rows: a list of dictionaries, of an earlier part of the same training; it grows.
    """

    def __init__(self, path, rows):
        super().__init__()
        self.path = path
        self.rows = rows

    def on_epoch_end(self, epoch, logs=None):
        """Adds a row."""
        self.rows.append({"epoch": epoch, **{name: float(logs[name]) for name in sorted(logs)}})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0])
        writer.writeheader()
        writer.writerows(self.rows)
        written = self.path.with_name(f".writing-{self.path.name}")
        written.write_text(text.getvalue())
        os.replace(written, self.path)


class Checkpoint(keras.callbacks.Callback):
    """Saves the training's state before it, every so many steps, after each epoch, at SIGTERM.

    To come last of the callbacks, whose doings of an epoch are then in the past of its state.

    Args:
        checkpoints: `tfnvp.training.checkpoints.Checkpoints`.
        rows: the list that a `History` keeps.
        every: steps from one state to the next.
        steps_per_epoch: those of a whole epoch.
    """

    def __init__(self, checkpoints, rows, every, steps_per_epoch):
        super().__init__()
        self.checkpoints = checkpoints
        self.rows = rows
        self.every = every
        self.steps_per_epoch = steps_per_epoch
        self._saved = self._metrics = self._terminated = None

    def on_train_begin(self, logs=None):
        """Saves where it begins, listens to SIGTERM, takes up metrics of an epoch half done."""
        self._terminated = False
        self._before = signal.signal(signal.SIGTERM, self._terminate)
        # Whether it is there or not: of several workers, only all together can.
        self._save()
        self._metrics = [keras.ops.convert_to_numpy(v) for v in self.model.metrics_variables]

    def on_epoch_begin(self, epoch, logs=None):
        """Gives the metrics back that Keras has just reset."""
        if self._metrics is not None and steps_taken(self.model) % self.steps_per_epoch:
            for variable, value in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(value)
        self._metrics = None

    def on_train_batch_end(self, batch, logs=None):
        """Saves, where it is due."""
        steps = steps_taken(self.model)
        # The last one of an epoch is saved with the epoch.
        if steps % self.steps_per_epoch == 0:
            return
        terminated = self._terminated_anywhere()
        if terminated or steps - self._saved >= self.every:
            self._save()
        if terminated:
            self._leave()

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        self._save()
        if self._terminated_anywhere():
            self._leave()

    def on_train_end(self, logs=None):
        """SIGTERM ends the process again."""
        signal.signal(signal.SIGTERM, self._before)

    def _save(self):
        self.checkpoints.save(self.rows)
        self._saved = steps_taken(self.model)

    def _terminate(self, *_):
        self._terminated = True

    def _terminated_anywhere(self):
        """Whether SIGTERM came, to any of several workers: all ask at the same step."""
        strategy = self.model.distribute_strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self._terminated
        return self._sum(strategy, tf.constant(float(self._terminated))) > 0

    @staticmethod
    @tf.function
    def _sum(strategy, value):
        values = strategy.run(tf.identity, [value])
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def _leave(self):
        signal.signal(signal.SIGTERM, self._before)
        raise Terminated(f"ended by SIGTERM after step {self._saved}: go on with --resume")


class Diverged(Exception):
    """The loss is no number any more, or beyond all bounds.

    Attributes:
        before, after: the steps of the optimizer between which it was seen.
    """

    def __init__(self, loss, before, after):
        super().__init__(f"training diverged: loss {loss:.4g} bits/dim in step {after}")
        self.before = before
        self.after = after


class StopWhereItDiverges(keras.callbacks.Callback):
    """Ends a training whose loss is no number any more, or beyond all bounds.

    Args:
        bound: how much the loss of an epoch may be above that of the first steps, bits/dim.

    Raises:
        Diverged: which says where.
    """

    def __init__(self, bound=1000.0):
        super().__init__()
        self.bound = bound
        self._first = None

    def on_train_begin(self, logs=None):
        """Notes where training begins."""
        self._steps = steps_taken(self.model)

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss."""
        loss = float(keras.ops.convert_to_numpy(logs["loss"]))
        before, self._steps = self._steps, steps_taken(self.model)
        self._first = loss if self._first is None else self._first
        if not math.isfinite(loss) or loss > self._first + self.bound:
            raise Diverged(loss, before, self._steps)


class StopAfter(keras.callbacks.Callback):
    """Ends training after a number of optimizer steps.

    Args:
        steps: optimizer steps in all, those of an earlier part of the training included.
    """

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        """Asks Keras to stop."""
        if steps_taken(self.model) >= self.steps:
            self.model.stop_training = True

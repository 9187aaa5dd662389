"""The steps of a training, from its beginning or from the last state that it left."""

import math
import sys

import keras
import numpy as np
import tensorflow as tf

from tfnvp.callbacks import Watch
from tfnvp.training import WorkerGone
from tfnvp.training.callbacks import (
    BestModel,
    Checkpoint,
    Diverged,
    History,
    StopAfter,
    StopWhereItDiverges,
)
from tfnvp.training.checkpoints import Checkpoints, save_model, steps_taken


class Training:
    """A model in training.

    Args:
        recipe: a `tfnvp.training.recipe.Recipe`.
        settings: `tfnvp.training.run.Settings`.
        strategy: a `tf.distribute.Strategy`.
        directory: a `Path`; all files go there.

    Attributes:
        model: a compiled `FlowModel`.
        rows: a dictionary for each epoch that is done, with what it reported.

    Raises:
        ValueError: for settings or data that cannot be used; nothing has been written then.
    """

    def __init__(self, recipe, settings, strategy, directory):
        self.recipe = recipe
        self.settings = settings
        self.directory = directory
        self.steps_per_epoch = len(self._batches(range(1)))
        self._validation = recipe.load("validation", settings.batch_size)
        if settings.limit_steps is not None:
            self._validation = self._validation.take(settings.limit_steps)
        policy = "mixed_bfloat16" if settings.mixed_precision else "float32"
        with strategy.scope():
            self.model = recipe.model(remat=settings.remat, dtype=policy)
            self.model.compile(
                optimizer=self._optimizer(),
                # A limit is counted between executions, and an epoch is a whole number of them.
                steps_per_execution=1
                if settings.limit_steps
                else math.gcd(recipe.steps_per_execution, self.steps_per_epoch),
            )
            self.model.optimizer.build(self.model.trainable_variables)
        self._checkpoints = Checkpoints(directory / "checkpoints", self.model)
        self.rows = self._resumed() if settings.resume else []

    def fit(self, pictures):
        """Trains to the end.

        Args:
            pictures: those that `tfnvp.callbacks.Watch` draws of the model as it learns.

        Raises:
            ValueError: if the training diverges.
            tfnvp.training.Terminated: at SIGTERM, when the state is saved.
            tfnvp.training.WorkerGone: if another worker ends.
        """
        limit, done = self.settings.limit_steps, steps_taken(self.model)
        if limit is not None and done >= limit:
            return
        callbacks = self._callbacks(pictures)
        first, last = len(self.rows), self.settings.epochs
        if step := done - first * self.steps_per_epoch:
            half = range(first, first + 1)
            data = self._batches(half, flip=self.recipe.flip).skip(step)
            self._fit(data, half, self.steps_per_epoch - step, callbacks)
            first += 1
            if self.model.stop_training:
                return
        rest = range(first, last)
        if rest:
            data = self._batches(rest, flip=self.recipe.flip)
            self._fit(data, rest, self.steps_per_epoch, callbacks)

    def _batches(self, epochs, **options):
        options |= {"seed": self.settings.seed, "epochs": epochs}
        return self.recipe.load("train", self.settings.batch_size, **options)

    def _optimizer(self):
        steps = self.settings.epochs * self.steps_per_epoch
        if self.settings.limit_steps is not None:
            steps = min(steps, self.settings.limit_steps)
        return self.recipe.optimizer(steps, self.settings.learning_rate)

    def _resumed(self):
        """The rows of the run's newest state, to which the model is brought."""
        # Not those of `directory`: each worker goes on with the chief's.
        states = Checkpoints(self.settings.run_dir / "checkpoints", self.model)
        if not states.paths():
            return []  # it was ended before its first step
        rows = states.restore()
        if rows is None:
            raise ValueError(f"--resume: {self.settings.run_dir} holds no state that is whole")
        return rows

    def _callbacks(self, pictures):
        settings, logs = self.settings, self.directory / "logs"
        best = min((row["val_bits_per_dim"] for row in self.rows), default=float("inf"))
        every = max(1, settings.epochs // 10)
        return [
            StopWhereItDiverges(),
            BestModel(self.directory / "model.keras", best),
            History(self.directory / "history.csv", self.rows),
            keras.callbacks.TensorBoard(str(logs), write_graph=False),
            Watch(pictures, self.directory / "watched", logs / "train", every=every),
            *([StopAfter(settings.limit_steps)] if settings.limit_steps else []),
            Checkpoint(
                self._checkpoints, self.rows, settings.checkpoint_every, self.steps_per_epoch
            ),
        ]

    def _fit(self, data, epochs, steps, callbacks):
        try:
            self.model.fit(
                data,
                validation_data=self._validation,
                initial_epoch=epochs.start,
                epochs=epochs.stop,
                steps_per_epoch=steps,
                callbacks=callbacks,
                verbose=self._verbosity(),
                shuffle=False,  # the data set is shuffled already
            )
        except Diverged as error:
            raise ValueError(self._diverged(error)) from error
        except tf.errors.OpError as error:
            if self.settings.strategy != "multi_worker":
                raise
            reason = str(error).splitlines()[0]
            raise WorkerGone(
                f"another worker is gone: start all of them again with --resume ({reason})"
            ) from error

    def _verbosity(self):
        if self.directory != self.settings.run_dir:
            return 0  # not the chief's
        return 1 if sys.stdout.isatty() else 2

    def _diverged(self, error):
        """Saves the last good weights; what there is to say."""
        epoch, step = divmod(error.before, self.steps_per_epoch)
        epoch = range(epoch, epoch + 1)
        batches = self._batches(epoch, indices=True).skip(step).take(error.after - error.before)
        indices = np.concatenate(list(batches)).tolist()
        shown = ", ".join(map(str, indices[:256])) + (", ..." if len(indices) > 256 else "")
        self._back_to_finite_weights(error.before)
        path = self.directory / "last_finite.keras"
        save_model(self.model, path)
        return (
            f"{error}; its batch had the rows {shown} of the training split; the weights before "
            f"are in {path}; try a lower --learning-rate than {self.settings.learning_rate:g}"
        )

    def _back_to_finite_weights(self, step):
        """Brings the model to a step, or one before, by the training from the newest state on."""
        self._checkpoints.restore()
        saved = steps_taken(self.model)
        epoch, done = divmod(saved, self.steps_per_epoch)
        data = self._batches(range(epoch, epoch + 1), flip=self.recipe.flip).skip(done)
        # Weights may be so one step before the loss, but no state is ever saved of such.
        for steps in range(step - saved, 0, -self.model.steps_per_execution):
            self.model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False)
            if all(np.isfinite(weight).all() for weight in self.model.get_weights()):
                return
            self._checkpoints.restore()

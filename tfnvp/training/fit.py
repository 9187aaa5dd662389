"""The steps of a training, from its beginning or from the last state that it left."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.callbacks import FreshMoments, Watch
from tfnvp.training import WorkerGone
from tfnvp.training.checkpoints import Checkpoints, steps_taken
from tfnvp.training.recipes import Recipe
from tfnvp.training.run_callbacks import (
    Average,
    Checkpoint,
    Diverged,
    Log,
    Record,
    StopWhereItDiverges,
)

if TYPE_CHECKING:
    from tfnvp.training.run import Settings

_NOTHING, _BAR, _LINES = 0, 1, 2  # Keras' numbers for what `fit` prints; a line is of an epoch.


class Training:
    """A model in training, all of whose files go into a directory.

    Attributes:
        model: a compiled `FlowModel`.
        rows: a dictionary for each epoch that is done, with what it reported.

    Raises:
        ValueError: for settings or data that cannot be used; nothing has been written then.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: "Settings",
        strategy: tf.distribute.Strategy,
        directory: Path,
    ) -> None:
        self.recipe, self.settings, self.directory = recipe, settings, directory
        self.steps_per_epoch = len(self._batches(range(1)))
        self._limit = settings.limit_steps or math.inf
        steps = self._steps = min(settings.epochs * self.steps_per_epoch, self._limit)
        # A limit is counted between executions, and an epoch is a whole number of them.
        whole = 1 if settings.limit_steps else self.steps_per_epoch
        # A data set of which -1 batches are taken is whole.
        self._taken = settings.limit_steps or -1
        self._validation = recipe.load("validation", settings.batch_size).take(self._taken)
        policy = "mixed_bfloat16" if settings.mixed_precision else "float32"
        with strategy.scope():
            self.model = recipe.model(remat=settings.remat, dtype=policy)
            self.model.compile(
                optimizer=recipe.optimizer(steps, settings.learning_rate),
                steps_per_execution=math.gcd(recipe.steps_per_execution, whole),
                jit_compile="auto" if settings.jit is None else settings.jit,
            )
            self.model.optimizer.build(self.model.trainable_variables)
        self._checkpoints = Checkpoints(directory / "checkpoints", self.model)
        self.rows = self._resumed() if settings.resume else []

    def fit(self, pictures: dict[str, Callable]) -> None:
        """Trains to the end, as `tfnvp.callbacks.Watch` draws its pictures.

        Raises:
            ValueError: if the training diverges.
            tfnvp.training.Terminated: at SIGTERM, when the state is saved.
            tfnvp.training.WorkerGone: if another worker ends.
        """
        done = steps_taken(self.model)
        if done >= self._limit:
            return
        callbacks = self._callbacks(pictures)
        first, last = len(self.rows), self.settings.epochs
        if step := done - first * self.steps_per_epoch:
            self._fit(range(first, first + 1), callbacks, skip=step)
            first += 1
            if self.model.stop_training:
                return
        if first < last:
            self._fit(range(first, last), callbacks)

    def _batches(self, epochs: range, **options: Any) -> tf.data.Dataset:
        options |= {"seed": self.settings.seed, "epochs": epochs}
        return self.recipe.load("train", self.settings.batch_size, **options)

    def _resumed(self) -> list[dict[str, float]]:
        """Brings the model to the run's newest state, whose rows it returns."""
        # Each worker goes on with the states of the chief, which are not in its own `directory`.
        states = Checkpoints(self.settings.run_dir / "checkpoints", self.model)
        if not states.paths():
            return []  # the run was ended before its first step
        rows = states.restore()
        if rows is None:
            raise ValueError(f"--resume: {self.settings.run_dir} holds no state that is whole")
        return rows

    def _callbacks(self, pictures: dict[str, Callable]) -> list[keras.callbacks.Callback]:
        settings, logs = self.settings, self.directory / "logs"
        every, steps = max(1, settings.epochs // 10), settings.checkpoint_every
        log = Log(self._steps, settings.batch_size, self.recipe.unit)
        average = Average() if self.recipe.averaged else None
        return [
            *([log] if self._verbosity() == _LINES else []),
            *([average] if average else []),
            # A run that is resumed has the data of the first epoch too, to go on bit for bit.
            FreshMoments(self._batches(range(1), flip=self.recipe.flip).take(self._taken)),
            StopWhereItDiverges(),
            Record(self.directory, self.rows, average),
            keras.callbacks.TensorBoard(str(logs), write_graph=False),
            Watch(pictures, self.directory / "watched", logs / "train", every=every),
            keras.callbacks.LambdaCallback(on_train_batch_end=self._stop_at_limit),
            Checkpoint(self._checkpoints, self.rows, steps, self.steps_per_epoch),
        ]

    def _stop_at_limit(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if steps_taken(self.model) >= self._limit:
            self.model.stop_training = True

    def _fit(self, epochs: range, callbacks: list[keras.callbacks.Callback], skip: int = 0) -> None:
        """Trains for some epochs; the first has done its first `skip` steps before."""
        try:
            self.model.fit(
                self._batches(epochs, flip=self.recipe.flip).skip(skip),
                validation_data=self._validation,
                initial_epoch=epochs.start,
                epochs=epochs.stop,
                steps_per_epoch=self.steps_per_epoch - skip,
                callbacks=callbacks,
                verbose=self._verbosity(),
                shuffle=False,  # the data set is shuffled already
            )
        except Diverged as error:
            raise ValueError(self._diverged(error)) from error
        except tf.errors.OpError as error:
            if self.settings.strategy != "multi_worker":
                raise
            gone = "another worker is gone: start all of them again with --resume"
            raise WorkerGone(f"{gone} ({str(error).splitlines()[0]})") from error

    def _verbosity(self) -> int:
        """How much Keras prints: the chief alone reports, with a bar where somebody looks on."""
        if self.directory != self.settings.run_dir:
            return _NOTHING
        return _BAR if sys.stdout.isatty() else _LINES

    def _diverged(self, error: Diverged) -> str:
        """Saves the last good weights, and says in a line what happened and where they are."""
        epoch, step = divmod(error.before, self.steps_per_epoch)
        epoch = range(epoch, epoch + 1)
        batches = self._batches(epoch, indices=True).skip(step).take(error.after - error.before)
        indices = np.concatenate(list(batches)).tolist()
        shown = ", ".join(map(str, indices[:256])) + (", ..." if len(indices) > 256 else "")
        self._back_to_finite_weights(error.before)
        path = self.directory / "last_finite.keras"
        self.model.save(path)
        return (
            f"{error}; its batch had the rows {shown} of the training split; the weights before "
            f"are in {path}; try a lower --learning-rate than {self.settings.learning_rate:g}"
        )

    def _back_to_finite_weights(self, step: int) -> None:
        """Brings the model to a step, or one before, by the training from the newest state on."""
        self._checkpoints.restore()
        saved = steps_taken(self.model)
        epoch, done = divmod(saved, self.steps_per_epoch)
        data = self._batches(range(epoch, epoch + 1), flip=self.recipe.flip).skip(done)
        # Weights can turn NaN one step before the loss shows it, but no saved state holds such.
        for steps in range(step - saved, 0, -self.model.steps_per_execution):
            # The moments stay those of these steps, as they were when the loss was finite, and so
            # do the weights, for which Keras would put their average at the end.
            callbacks = [FreshMoments(None), *([Average()] if self.recipe.averaged else [])]
            options = {"verbose": 0, "shuffle": False, "callbacks": callbacks}
            self.model.fit(data, steps_per_epoch=steps, **options)
            if all(np.isfinite(weight).all() for weight in self.model.get_weights()):
                return
            self._checkpoints.restore()

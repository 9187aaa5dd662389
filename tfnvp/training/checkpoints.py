"""The state of a training, in files from which it goes on as if nothing had happened."""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from tfnvp import atomic_file
from tfnvp.models import FlowModel


class Checkpoints:
    """The last states of a training, one `.npz` file each, named by the optimizer's steps.

    A state is every variable of the model (weights, running statistics, the seeds of noise), of the
    optimizer and of the metrics, and the history of the epochs. The data's order follows from the
    steps, see `tfnvp.data.load`.

    The model is a compiled `FlowModel` whose optimizer is built. The directory is made at the first
    `save`; of the states `keep` stay, and older ones are removed when a new one is whole.
    """

    def __init__(self, directory: Path, model: FlowModel, keep: int = 2) -> None:
        self.directory, self.model, self.keep = directory, model, keep
        # They are listed once, because a model takes its time to list them.
        self._variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]

    def save(self, history: list[dict[str, float]]) -> None:
        """Writes the state, if all of it is finite; a file is there whole or not at all.

        Raises:
            OSError: if it cannot be written; the files before it stay.
        """
        state = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(self._variables)}
        if not all(np.isfinite(value).all() for value in state.values()):
            return
        path = self.directory / f"{steps_taken(self.model):09d}.npz"
        self.directory.mkdir(parents=True, exist_ok=True)
        with atomic_file.writing(path) as written, written.open("wb") as file:
            np.savez(file, history=json.dumps(history), **state)
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def restore(self) -> list[dict[str, float]] | None:
        """Brings the model to the newest state that is whole.

        Damaged files are named on standard error and passed over.

        Returns:
            The history of that state; None if no file is whole.
        """
        for path in reversed(self.paths()):
            try:
                # Reading a member of the archive checks its checksum.
                with np.load(path) as file:
                    history = json.loads(str(file["history"]))
                    state = [file[str(i)] for i in range(len(self._variables))]
            except Exception as error:  # a file may be torn, altered or on a bad disk: many types
                print(f"train: passing over {path}, which is damaged: {error}", file=sys.stderr)
                continue
            for variable, value in zip(self._variables, state, strict=True):
                variable.assign(value)
            return history
        return None

    def paths(self) -> list[Path]:
        """The files, the newest last."""
        return sorted(self.directory.glob("[0-9]*.npz"))


def steps_taken(model: FlowModel) -> int:
    """Counts the steps that the optimizer of a model has taken."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))

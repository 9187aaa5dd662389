"""The training program: `tfnvp train RECIPE`, from a recipe to a run directory and a SavedModel."""

import signal


class Terminated(Exception):
    """SIGTERM or Ctrl-C came: the state of the training is saved.

    Args:
        step: the last one that was taken.
        number: of the signal.
    """

    def __init__(self, step: int, number: signal.Signals) -> None:
        super().__init__(f"ended by {number.name} after step {step}: go on with --resume")
        self.status = 128 + number


class WorkerGone(Exception):
    """Another worker of the training has ended before its time."""

"""The training program: `tfnvp train RECIPE`, from a recipe to a run directory and a SavedModel."""


class Terminated(Exception):
    """SIGTERM came: the state of the training is saved."""


class WorkerGone(Exception):
    """Another worker of the training has ended before its time."""

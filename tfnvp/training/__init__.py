"""The training program: `python -m train RECIPE`."""


class Terminated(Exception):
    """SIGTERM came: the state of the training is saved."""


class WorkerGone(Exception):
    """Another worker of the training has ended before its time."""

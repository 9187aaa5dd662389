"""The one error that a client raises for all that goes wrong after a call was sent."""

from collections.abc import Mapping

import numpy as np


class ServingError(RuntimeError):
    """A call that was not answered, or not by what the signature promises.

    Args:
        code: gRPC's name of the kind of error.
        message: what went wrong, by the server's words where it has any.
        again: whether the same call may be answered later.
        wait: for how many seconds the server wants to be left alone before that.
        rows: what is wrong with single rows, by their numbers.
        answers: the answers to the other rows.

    Attributes:
        code: gRPC's name of the kind of error, such as "INVALID_ARGUMENT".
        rows: what is wrong with each row that the server could not answer, by its number; empty
            where the call failed as a whole.
        answers: where rows failed, the array of answers, of which those of faulty rows are NaN, or
            zeros if they are data; None where the call failed as a whole.
    """

    def __init__(
        self,
        code: str,
        message: str,
        again: bool = False,
        wait: float = 0.0,
        rows: Mapping[int, str] | None = None,
        answers: np.ndarray | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.again, self.wait = again, wait
        self.rows, self.answers = dict(rows or {}), answers


# TF Serving's batching says so to all whose rows it put together, for the shape or the dtype that
# one of them sent: it looks at neither before.
_OF_NEIGHBOURS = ("from different tasks have different shapes", "Tensor concat operation failed")


def is_of_a_neighbour(message: str) -> bool:
    """Whether a server's message may be of another caller's request, and the same call succeed."""
    return any(words in message for words in _OF_NEIGHBOURS)


def foreign(message: str) -> ServingError:
    """The error for an answer that no server of a tfnvp export gives."""
    return ServingError("INTERNAL", f"the answer is none of a tfnvp export: {message}")

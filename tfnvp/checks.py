"""Checks of what users hand in, with errors that say what would do."""

import contextlib
import re

import tensorflow as tf

_ASSERTED = re.compile(r"tfnvp<(.*?)>\]((?: \[[^\]]*\])*)", re.DOTALL)
_SHAPED = re.compile(
    r"Shape of tensor \S+ (\[.*?\]) is not compatible with expected shape (\[.*?\])"
)


def assert_all(condition, message, *data):
    """Asserts, inside a graph, a condition on values; `plain_errors` makes it a ValueError.

    Returns the assertion, for operations that would fail first, and less clearly, to wait for.
    """
    return tf.debugging.Assert(tf.reduce_all(condition), [f"tfnvp<{message}>", *data])


@contextlib.contextmanager
def plain_errors():
    """Turns a failed `assert_all` or `ensure_shape` into a ValueError of one line."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if asserted := _ASSERTED.search(str(error)):
            message, data = asserted.groups()
            raise ValueError(message + data.replace("[", "").replace("]", "")) from None
        if shaped := _SHAPED.search(str(error)):
            got, expected = shaped.groups()
            raise ValueError(f"data must have the shape {expected}, got {got}") from None
        raise


def check_positive_int(name, value):
    """ValueError unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {name}={value!r}")

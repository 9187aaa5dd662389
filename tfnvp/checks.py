"""Checks of what users hand in, with errors that say what would do."""

import contextlib
import numbers
import re

import tensorflow as tf

_ASSERTED = re.compile(r"tfnvp<(.*?)>\]((?: \[[^\]]*\])*)", re.DOTALL)
_SHAPED = re.compile(
    r"Shape of tensor \S+ (\[.*?\]) is not compatible with expected shape (\[.*?\])"
)


def assert_all(condition, message, *data):
    """Asserts a condition on values; inside a graph, `plain_errors` makes it a ValueError.

    Args:
        condition: a boolean tensor, all of which must be true.
        message: what is wrong otherwise.
        *data: scalar tensors to show after the message.

    Returns:
        The assertion, for operations that would fail first, and less clearly, to wait for; None in
        eager code.
    """
    condition = tf.reduce_all(condition)
    if tf.executing_eagerly():
        if not condition:
            raise ValueError(" ".join([message, *(str(value.numpy()) for value in data)]))
        return None
    return tf.debugging.Assert(condition, [f"tfnvp<{message}>", *data])


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


def check_positive_int(name, value, optional=False):
    """Raises a ValueError unless `value` is a positive integer (or None, where optional)."""
    if value is None and optional:
        return
    # True is an integer to Python, but never what the caller meant.
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        wanted = "a positive integer or None" if optional else "a positive integer"
        raise ValueError(f"{name} must be {wanted}, got {name}={value!r}")


def check_choice(name, value, known):
    """Raises a ValueError that lists the known ones unless `value` is one of them."""
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")

"""Checks of the users' input, with errors that say what would do."""

import contextlib
import math
import numbers
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import tensorflow as tf

#: The most bins of a spline: those of the least width take up a fifth of it then.
MOST_BINS = 200

_ASSERTED = re.compile(r"tfnvp<(.*?)>\]((?: \[[^\]]*\])*)", re.DOTALL)
_SHAPED = re.compile(r"of tensor \S+ (\[.*?\]) is not compatible with expected shape (\[.*?\])")


def assert_all(condition: tf.Tensor, message: str, *data: tf.Tensor) -> tf.Operation | None:
    """Asserts all of a condition; inside a graph, `plain_errors` makes it a ValueError.

    The message says what is wrong otherwise, and the scalar tensors of `data` are shown after it.

    Returns:
        The assertion; operations that would fail less clearly can wait for it. None in eager code.
    """
    condition = tf.reduce_all(condition)
    if tf.executing_eagerly():
        if not condition:
            raise ValueError(" ".join([message, *(str(value.numpy()) for value in data)]))
        return None
    return tf.debugging.Assert(condition, [f"tfnvp<{message}>", *data])


def first_where(wrong: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Gives the first of values for which `wrong` holds, or 0, in operations that XLA compiles."""
    wrong = tf.concat([tf.reshape(wrong, [-1]), [True]], 0)
    # XLA would take the bounds of a slice for constants, and compile anew for other values.
    place = tf.argmax(tf.cast(wrong, tf.int32))
    return tf.gather(tf.concat([tf.reshape(values, [-1]), [0]], 0), place)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns a failed `assert_all` or `ensure_shape` into a ValueError of one line."""
    try:
        yield
    # TensorFlow reports an error of Python code that it calls as UnknownError.
    except (tf.errors.InvalidArgumentError, tf.errors.UnknownError) as error:
        if asserted := _ASSERTED.search(str(error)):
            message, data = asserted.groups()
            raise ValueError(message + data.replace("[", "").replace("]", "")) from None
        if shaped := _SHAPED.search(str(error)):
            got, expected = shaped.groups()
            raise ValueError(f"data must have the shape {expected}, got {got}") from None
        raise


def one_line(error: Exception) -> str:
    """The message of an error on one line, or else its kind."""
    return " ".join(str(error).split()) or type(error).__name__


def check_positive_int(name: str, value: object, optional: bool = False) -> None:
    """Raises a ValueError unless `value` is a positive integer (or None, where optional)."""
    if value is None and optional:
        return
    # Python takes True for an integer, but no caller means that.
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        wanted = "a positive integer or None" if optional else "a positive integer"
        raise ValueError(f"{name} must be {wanted}, got {name}={value!r}")


def checked_spline_bins(value: object) -> int:
    """Gives a number of bins, or 0 for no splines, or raises a ValueError."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not (value == 0 or 2 <= value <= MOST_BINS):
        raise ValueError(
            f"spline_bins must be an integer from 2 to {MOST_BINS}, or 0 for affine couplings, got "
            f"spline_bins={value!r}"
        )
    return int(value)


def check_positive_number(name: str, value: object) -> None:
    """Raises a ValueError unless `value` is a number above 0 that float32 holds with ease."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 < value < 1e30:
        raise ValueError(f"{name} must be a number above 0 and below 1e30, got {name}={value!r}")


def is_number(text: str) -> bool:
    """Tells whether a text is a number as Python writes it."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_share(name: str, value: object) -> None:
    """Raises a ValueError unless `value` is a number in [0, 1)."""
    if not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {name}={value!r}")


def check_draw(n: object, temperature: object) -> None:
    """Raises a ValueError unless n samples can be drawn at a temperature."""
    # TensorFlow counts in 32 bits, and would draw a larger number modulo 2^32.
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= tf.int32.max:
        raise ValueError(f"n must be an integer of 0 to {tf.int32.max}, got n={n!r}")
    if not isinstance(temperature, numbers.Real) or not 0 <= temperature < math.inf:
        raise ValueError(
            f"temperature must be a finite number of 0 or more, got temperature={temperature!r}"
        )


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Raises a ValueError that lists the known values unless `value` is one of them."""
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")


def check_rows(name: str, x: Any, event_shape: tf.TensorShape) -> None:
    """Raises a ValueError unless x is a batch of events, as far as its shape is known.

    Args:
        name: of x.
        x: a tensor or an array, or its `tf.TensorSpec`.
        event_shape: that of a row.
    """
    wanted = f"{name} must have the shape [batch, {', '.join(map(str, event_shape))}]"
    if isinstance(x, Mapping):
        fitting = [key for key in x if _is_batch(getattr(x[key], "shape", ()), event_shape)]
        key = [*fitting, *x][0] if x else "x"
        raise ValueError(
            f"{wanted}, got a dict of {', '.join(map(repr, x))}: take one, x[{key!r}], or of a "
            f"data set .map(lambda d: d[{key!r}])"
        )
    if isinstance(x, tuple):
        raise ValueError(f"{wanted}, got a tuple of {len(x)}")
    shape = tf.TensorShape(getattr(x, "shape", None))
    if _is_batch(shape, event_shape):
        return
    single = shape.rank == event_shape.rank and shape.is_compatible_with(event_shape)
    hint = ", a single row: batch it, x[None] or data_set.batch(64)" if single else ""
    raise ValueError(f"{wanted}, got {shape}{hint}")


def _is_batch(shape: tf.TensorShape, event_shape: tf.TensorShape) -> bool:
    shape = tf.TensorShape(shape)
    return shape.rank is None or (shape.rank > 0 and shape[1:].is_compatible_with(event_shape))

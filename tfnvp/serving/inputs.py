"""Inputs of a served function, checked in the graph itself: whoever calls it may check nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

_END = -2  # This marks where a shape ends; no size is negative.


def require(condition: tf.Tensor, message: str, value: tf.Tensor, *data: tf.Tensor) -> tf.Tensor:
    """Passes a value on once all of a condition holds; else the run of the graph fails.

    It fails with an InvalidArgument, whose message has the numbers or vectors of `data` at its end.
    What comes after the condition is to depend on the value that is passed on.
    """
    shown = [tf.as_string(tensor) for tensor in data]
    asserted = tf.debugging.Assert(tf.reduce_all(condition), [message, *shown], summarize=8)
    with tf.control_dependencies([asserted]):
        return tf.identity(value)


def up_to_pixels(name: str, most: int, size: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Passes a value on, as `require` does, unless images of a size have too many pixels.

    The size is int32 [2], and may be broken: negative, or as large as that.
    """
    height, width = tf.unstack(tf.cast(size, tf.int64))
    fits = (height >= 0) & (width >= 0) & (height * width <= most)
    return require(fits, f"{name} must be images of up to {most} pixels, got", value, size)


def rows(name: str, shape: Sequence[int | None], dtype: tf.DType) -> tf.TensorSpec:
    """Gives the spec of an input with any number of rows of a shape."""
    return tf.TensorSpec([None, *shape], dtype, name=name)


def checked(inputs: Mapping[str, tf.Tensor], specs: Mapping[str, tf.TensorSpec]) -> dict:
    """Gives the inputs in the order of their specs, each of its spec's rank and sizes."""
    return {key: _of_the_shape(inputs[key], spec) for key, spec in specs.items()}


def number_of_rows(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Gives the number of rows, int32 [], which must be the same for all inputs."""
    (first, x), *others = inputs.items()
    count = _rows_of(x)
    for name, other in others:
        others_count = _rows_of(other)
        message = f"{name} must have as many rows as {first}, got"
        count = require(tf.equal(others_count, count), message, count, others_count)
    return count


def _of_the_shape(x: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    takes = ", ".join("any" if size is None else str(size) for size in spec.shape[1:])
    takes = f"{spec.dtype.name} [rows{', ' if takes else ''}{takes}]"
    shape = tf.shape(x)
    # TensorFlow believes that an input has the rank it is told below, and prunes any check of
    # `tf.rank(x)`. The end mark shows the rank among the sizes.
    expected = np.array([-1 if size is None else size for size in spec.shape] + [_END])
    sizes = tf.concat([shape, tf.fill([len(expected)], _END)], axis=0)[: len(expected)]
    fits = tf.where(expected == -1, sizes >= 0, sizes == expected)
    x = require(fits, f"{spec.name} must be {takes}, got shape", x, shape)
    return tf.ensure_shape(x, spec.shape)


def _rows_of(x: tf.Tensor) -> tf.Tensor:
    # A scalar may come in too, since nothing has checked the rank: it counts as one row.
    return tf.concat([tf.shape(x), [1]], axis=0)[0]

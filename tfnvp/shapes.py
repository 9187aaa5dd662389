"""Shapes with sizes that are known only at run time, and a way around work along few channels."""

import tensorflow as tf


def sizes(x: tf.Tensor) -> list[int | tf.Tensor]:
    """Lists x's sizes: a Python int where the size is known, else a scalar int32 tensor."""
    if x.shape.is_fully_defined():
        return x.shape.as_list()
    # One operation for all: a graph takes an item of a tensor by four.
    dynamic = tf.unstack(tf.shape(x), x.shape.rank)
    return [d if size is None else size for d, size in zip(dynamic, x.shape, strict=True)]


def over_event(values: tf.Tensor, x: tf.Tensor, event_ndims: int | None = None) -> tf.Tensor:
    """Spreads [C], or [H, W, 1], over an event [H, W, C] of x [..., H, W, C].

    TensorFlow adds and multiplies by whole events several times as fast as by few channels.

    Args:
        values: a tensor that broadcasts to an event.
        x: a tensor.
        event_ndims: the number of last axes that are an event's; None for all but the first.
    """
    event = x.shape[1 if event_ndims is None else -event_ndims :]
    return tf.broadcast_to(values, event if event.is_fully_defined() else sizes(x)[-len(event) :])


def known_shape(x: tf.Tensor, shape: list[int | None]) -> tf.Tensor:
    """Gives x with the sizes of a shape known; what is not known before is checked when it runs.

    `tf.ensure_shape`, which checks, has no forward-mode derivative inside a function.
    """
    known = tf.TensorShape(shape).merge_with(x.shape) == x.shape
    return x if known and x.shape.rank is not None else tf.ensure_shape(x, shape)


def at_least_one_row(x: tf.Tensor | None) -> tf.Tensor | None:
    """Gives the rows of x, or one of zeros in place of none; scalars and None as they are.

    TensorFlow's oneDNN convolution, of no rows, has the wrong channels.
    """
    if x is None or x.shape.rank == 0:
        return x
    missing = 1 - tf.minimum(tf.shape(x)[0], 1)
    return tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)])

"""Shapes of which some sizes are known only at run time, and what is slow along few channels."""

import tensorflow as tf


def sizes(x):
    """x's shape as a list: a Python int where the size is known, else a scalar int32 tensor."""
    if x.shape.is_fully_defined():
        return x.shape.as_list()
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]


def over_event(values, x, event_ndims=None):
    """[C], or [H, W, 1], as an event [H, W, C] of x [..., H, W, C].

    TensorFlow adds and multiplies by whole events several times as fast as by few channels.

    Args:
        values: what broadcasts to an event.
        x: a tensor.
        event_ndims: how many of its last axes are an event's; None for all but the first.
    """
    return tf.broadcast_to(values, sizes(x)[1 if event_ndims is None else -event_ndims :])

"""Shapes of which some sizes are known only at run time."""

import tensorflow as tf


def sizes(x):
    """x's shape as a list: a Python int where the size is known, else a scalar int32 tensor."""
    if x.shape.is_fully_defined():
        return x.shape.as_list()
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]

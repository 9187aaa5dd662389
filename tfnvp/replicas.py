"""What code that runs on several replicas at once, under a distribution strategy, needs to know."""

import contextlib
import threading

import tensorflow as tf


def several():
    """The replica context where this is one of several replicas, or None."""
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def sum_over(value):
    """The sum over all replicas of a tensor, or of each of a list."""
    context = several()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def summed_on_the_first(gradients):
    """The sums of gradients over all replicas on the first of them, zeros on all others.

    Keras clips the gradients of each replica before it adds them up. Given these, it clips the sum.
    """
    is_first = tf.equal(several().replica_id_in_sync_group, 0)
    return [tf.where(is_first, gradient, 0) for gradient in sum_over(gradients)]


# TensorFlow's convolutions and batch normalizations do not stand a batch of no rows, which the last
# one of an epoch can leave a replica with: a row of zeros then stands in for it.


@contextlib.contextmanager
def rows_counting(counting):
    """Within this context the rows of this replica's batch count in statistics, or do not.

    Args:
        counting: a scalar, 1 or 0: whether they are data, or stand in for a batch of no rows; None
            where they always are data.
    """
    before = current_rows_counting()
    _local.counting = counting
    try:
        yield
    finally:
        _local.counting = before


def current_rows_counting():
    """What the innermost `rows_counting` has been given."""
    return getattr(_local, "counting", None)


def rows_count(dtype):
    """1, or 0 where the rows of this replica's batch do not count in statistics."""
    counting = current_rows_counting()
    return tf.ones([], dtype) if counting is None else tf.cast(counting, dtype)


_local = threading.local()  # replicas are traced in threads of their own

"""Bits per dimension, the figure by which densities of images are compared."""

import math

import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.types import TensorLike


def bits_per_dim(log_prob: TensorLike, event_size: int | tf.Tensor, levels: int = 1) -> TensorLike:
    """Converts log-densities in nats to bits per dimension.

        bits/dim = -log_prob / (event_size log 2) + log2(levels).

    For images dequantised to [0, 1) it bounds the bits that each value of the discrete image costs
    under the model. Source: Theis et al. (arXiv 1511.01844), section 3.1.

    Args:
        log_prob: a tensor or array of log-densities, nats.
        event_size: dimensions of an event (height * width * channels).
        levels: values that one dimension took before dequantisation, spread over [0, 1); 1 for
            data that was never discrete.

    Returns:
        A tensor or array of log_prob's shape and dtype.

    Example:
        >>> import tfnvp
        >>> tfnvp.metrics.bits_per_dim(0.0, event_size=3072, levels=256)
        8.0
    """
    return -log_prob / (event_size * math.log(2)) + math.log2(levels)


def global_mean(values: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Gives this replica's part of the mean of `values` [B] over the rows of all replicas.

    The parts of all replicas add up to the mean, also where batches are uneven or a replica has no
    rows; without a strategy the part is the mean.

    Args:
        values: [B].
        weights: of the rows, [B], 0 or more; None for equal ones.
    """
    if weights is None:
        count = tf.cast(tf.size(values), values.dtype)
    else:
        values, count = weights * values, tf.reduce_sum(weights)
    return tf.math.divide_no_nan(tf.reduce_sum(values), replicas.sum_over(count))

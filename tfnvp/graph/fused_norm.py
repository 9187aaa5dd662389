"""TensorFlow's fused batch normalization, by the batch of one replica or of all."""

from collections.abc import Callable

import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.shapes import over_event


def fused(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    epsilon: float,
) -> tf.Tensor:
    """Normalises x by given moments: (x - mean) / sqrt(variance + epsilon) * scale + offset.

    Args:
        x: [N, H, W, C], float32 or of half the size.
        scale, offset, mean, variance: [C], float32.

    Returns:
        A tensor of x's shape and dtype.
    """

    # TensorFlow's gradient of it has wrong derivatives inside a function, and so has forward-mode
    # differentiation, which takes these.
    @tf.custom_gradient
    def normalised(
        x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor
    ) -> tuple:
        y = tf.compat.v1.nn.fused_batch_norm(
            x, scale, offset, mean, variance, epsilon=epsilon, is_training=False
        )[0]

        def gradient(upstream: tf.Tensor) -> tuple:
            inverse_std = tf.math.rsqrt(variance + epsilon)
            factor = over_event(tf.cast(scale * inverse_std, x.dtype), x)
            to_offset = tf.reduce_sum(tf.cast(upstream, scale.dtype), axis=[0, 1, 2])
            product = tf.reduce_sum(tf.cast(upstream * x, scale.dtype), axis=[0, 1, 2])
            to_scale = (product - mean * to_offset) * inverse_std
            return upstream * factor, to_scale, to_offset, None, None

        return y, gradient

    return normalised(x, scale, offset, mean, variance)


def fused_training(
    x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises x by its own moments; arguments as those of `fused`.

    Returns:
        A tensor of x's shape and dtype, and the batch's mean [C] and variance [C].
    """
    y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, epsilon=epsilon, is_training=True
    )
    # The kernel divides by the batch's variance and returns N / (N - 1) times it.
    return y, mean, variance * (1 - 1 / _count(x, variance.dtype))


def kernel_moments(x: tf.Tensor, dtype: tf.DType) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes count, mean [C] and variance [C] of x [N, H, W, C] by the kernel."""
    ones = tf.ones([x.shape[-1]], dtype)
    _, mean, variance = fused_training(x, ones, ones, epsilon=1.0)
    rows, count = replicas.row_weights(dtype), _count(x, dtype)
    return count if rows is None else rows * count, mean, variance


def fused_by_moments(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
    moments: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
    meets: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises x by moments over the batches of all replicas, or over rows that have weights.

    Args:
        x, scale, offset, epsilon: as those of `fused`.
        moments: maps x to count, mean [C] and variance [C]; its gradient is known here.
        meets: whether these are of the batches of all replicas.

    Returns:
        A tensor of x's shape and dtype, and the moments.
    """
    context, rows = replicas.replica_context() if meets else None, replicas.row_weights(scale.dtype)
    if rows is None:
        rows = tf.ones([], scale.dtype)
    of_each = rows.shape.rank == 1

    @tf.custom_gradient
    def normalised(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tuple:
        count, mean, variance = moments(x)
        y = fused(x, scale, offset, mean, variance, epsilon)

        # The kernel's gradient is for given moments; we add what comes through these: with n
        # normalised x and w a row's weight, dL/dx = scale / std (dL/dy - w (m1 + n m2)), where m1
        # is the sum of dL/dy, and m2 that of n * dL/dy, over the weight of all.
        def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> tuple:
            given = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=upstream,
                x=x,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=tf.zeros([0]),
                epsilon=epsilon,
                is_training=False,
            )
            to_scale, to_offset = given.scale_backprop, given.offset_backprop
            sums = tf.stack([to_offset, to_scale])
            if context is not None:
                sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
            mean_of_dy, mean_of_n_dy = tf.unstack(tf.math.divide_no_nan(sums, count))
            inverse_std = tf.math.rsqrt(variance + epsilon)
            factor = scale * inverse_std if of_each else rows * scale * inverse_std
            slope = factor * mean_of_n_dy * inverse_std
            level = factor * mean_of_dy - slope * mean
            through = tf.cast(slope, x.dtype) * x + tf.cast(level, x.dtype)
            if of_each:
                through *= tf.cast(rows, x.dtype)[:, tf.newaxis, tf.newaxis, tf.newaxis]
            return given.x_backprop - through, to_scale, to_offset

        return (y, count, mean, variance), gradient

    return normalised(x, scale, offset)


def _count(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(tf.size(x), dtype) / x.shape[-1]

"""Batch normalization inside conditioners, in one fused operation."""

import keras
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.layers.running_moments import RunningMoments, over_replicas
from tfnvp.shapes import over_event


@keras.saving.register_keras_serializable(package="tfnvp")
class FusedBatchNormalization(keras.layers.Layer):
    """Batch normalization of feature maps by TensorFlow's fused kernel.

    Keras' own layer spells the arithmetic out and turns bfloat16 into float32 for it, which costs
    about twice the time on a CPU. Training normalises by the batch; inference by averages over the
    last batches that, as `RunningMoments` keeps them, have no start value to forget. In float64,
    which the kernel does not have, and without `affine`, as for the few channels of a network's
    input, at which it is slow, the arithmetic is spelt out here too.

    Args:
        momentum: of the averages used in inference.
        epsilon: added to the variance.
        affine: whether the normalised features are scaled and shifted by learned factors.
        synchronized: whether the batches of all replicas are normalised as one.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [N, H, W, C]. level: None, or what x stands without, [C]: the layer is that of x + level.
        training: as in Keras.

    Returns:
        A tensor of x's shape, in the compute dtype.
    """

    def __init__(self, momentum=0.9, epsilon=1e-4, affine=True, synchronized=True, **kwargs):
        # Levels are not cast: means of the features are in full precision too.
        super().__init__(autocast=False, **kwargs)
        self.epsilon = epsilon
        self.affine = affine
        self.moments = RunningMoments(
            momentum, synchronized, dtype=self.variable_dtype, name="moments"
        )

    def build(self, input_shape):
        channels = (input_shape[-1],)
        options = {"trainable": self.affine, "autocast": False}
        self.scale = self.add_weight(channels, "ones", name="scale", **options)
        self.offset = self.add_weight(channels, "zeros", name="offset", **options)
        self.moments.build(input_shape)

    def call(self, x, level=None, training=None):
        fused = self.variable_dtype == "float32" and self.affine
        x = tf.cast(x, self.compute_dtype if fused else self.variable_dtype)
        scale, offset = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self.offset)
        if not training:
            scale, offset = self.as_affine(level)
            if fused:
                zeros, ones = tf.zeros_like(scale), tf.ones_like(scale)
                return _fused(x, scale, offset, zeros, ones, epsilon=0.0, training=False)[0]
            y = x * over_event(scale, x) + over_event(offset, x)
            return tf.cast(y, self.compute_dtype)
        if not fused:
            mean, variance = self.moments.of_batch(x)
            scale *= tf.math.rsqrt(variance + self.epsilon)
            y = (x - over_event(mean, x)) * over_event(scale, x) + over_event(offset, x)
            y = tf.cast(y, self.compute_dtype)
        elif self.moments.meets_replicas():
            y, mean, variance = _fused_over_replicas(x, scale, offset, self.epsilon)
        else:
            y, mean, variance, _ = _fused_training(x, scale, offset, self.epsilon)
        # Normalised by its own moments, x is the same whatever the level.
        self.moments.update(mean if level is None else mean + level, variance)
        return y

    def as_affine(self, level=None):
        """Scale [C] and offset [C] that the layer is in inference."""
        mean, variance = self.moments.mean, self.moments.variance
        mean = mean if level is None else mean - level
        scale = tf.convert_to_tensor(self.scale) * tf.math.rsqrt(variance + self.epsilon)
        return scale, tf.convert_to_tensor(self.offset) - mean * scale

    def get_config(self):
        config = super().get_config()
        config.pop("autocast", None)
        return {
            **config,
            "momentum": self.moments.momentum,
            "epsilon": self.epsilon,
            "affine": self.affine,
            "synchronized": self.moments.synchronized,
        }


def _fused(x, scale, offset, mean, variance, epsilon, training):
    return tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, mean, variance, epsilon=epsilon, is_training=training
    )


def _fused_training(x, scale, offset, epsilon):
    """x normalised by the batch, the batch's moments [C], and of how many values they are."""
    y, mean, variance = _fused(x, scale, offset, None, None, epsilon, training=True)
    count = tf.cast(tf.size(x), variance.dtype) / x.shape[-1]
    # The kernel divides by the batch's variance and returns N / (N - 1) times it.
    return y, mean, variance * (1 - 1 / count), count


def _fused_over_replicas(x, scale, offset, epsilon):
    """x normalised by the batches of all replicas, and their moments [C]."""
    context, rows_count = replicas.several(), replicas.rows_count(scale.dtype)

    @tf.custom_gradient
    def normalised(x, scale, offset):
        _, mean, variance, count = _fused_training(x, scale, offset, epsilon)
        count, mean, variance = over_replicas(count, mean, variance)
        y = _fused(x, scale, offset, mean, variance, epsilon, training=False)[0]

        # The kernel's gradient for given moments, and what comes through these: with n normalised
        # x, dL/dx = scale / std (dL/dy - mean of dL/dy - n * mean of (n * dL/dy)).
        def gradient(upstream, *_):
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
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack([to_offset, to_scale]))
            mean_of_dy, mean_of_n_dy = tf.unstack(sums / count)
            inverse_std = tf.math.rsqrt(variance + epsilon)
            factor = rows_count * scale * inverse_std
            slope = factor * mean_of_n_dy * inverse_std
            level = factor * mean_of_dy - slope * mean
            through = tf.cast(slope, x.dtype) * x + tf.cast(level, x.dtype)
            return given.x_backprop - through, to_scale, to_offset

        return (y, mean, variance), gradient

    return normalised(x, scale, offset)

"""Batch normalization inside conditioners, in one fused operation."""

import keras
import tensorflow as tf

from tfnvp import replicas
from tfnvp.layers.running_moments import RunningMoments


@keras.saving.register_keras_serializable(package="tfnvp")
class FusedBatchNormalization(keras.layers.Layer):
    """Batch normalization of feature maps by TensorFlow's fused kernel.

    Keras' own layer spells the arithmetic out and turns bfloat16 into float32 for it, which costs
    about twice the time on a CPU. Training normalises by the batch; inference by averages over the
    last batches that, as `RunningMoments` keeps them, have no start value to forget. In float64,
    which the kernel does not have, and under several replicas, whose batches are normalised as one,
    the arithmetic is spelt out here too.

    Args:
        momentum: of the averages used in inference.
        epsilon: added to the variance.
        affine: whether the normalised features are scaled and shifted by learned factors.
        synchronized: whether the batches of all replicas are normalised as one.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [N, H, W, C]. training: as in Keras.

    Returns:
        A tensor of x's shape, in the compute dtype.
    """

    def __init__(self, momentum=0.9, epsilon=1e-4, affine=True, synchronized=True, **kwargs):
        super().__init__(**kwargs)
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

    def call(self, x, training=None):
        scale, offset = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self.offset)
        fused = self.variable_dtype == "float32"
        if not training:
            mean, variance = self.moments(x, training=False)
            if fused:
                return _fused(x, scale, offset, mean, variance, self.epsilon, training=False)[0]
        elif fused and not (self.moments.synchronized and replicas.several()):
            x, mean, variance = _fused(x, scale, offset, None, None, self.epsilon, training=True)
            # The kernel divides by the batch's variance and returns N / (N - 1) times it.
            count = tf.cast(tf.size(x), variance.dtype) / x.shape[-1]
            self.moments.update(mean, variance * (1 - 1 / count))
            return x
        else:
            mean, variance = self.moments.of_batch(tf.cast(x, self.variable_dtype))
            self.moments.update(mean, variance)
        scale = scale * tf.math.rsqrt(variance + self.epsilon)
        offset = offset - mean * scale
        return x * tf.cast(scale, x.dtype) + tf.cast(offset, x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.moments.momentum,
            "epsilon": self.epsilon,
            "affine": self.affine,
            "synchronized": self.moments.synchronized,
        }


def _fused(x, scale, offset, mean, variance, epsilon, training):
    return tf.compat.v1.nn.fused_batch_norm(
        x, scale, offset, mean, variance, epsilon=epsilon, is_training=training
    )

"""Batch normalization inside conditioners, in one fused operation."""

from typing import Any

import keras
import tensorflow as tf

from tfnvp.configured_layer import UncastLayer
from tfnvp.graph.fused_norm import fused, fused_by_moments, fused_training, kernel_moments
from tfnvp.graph.replicas import hide_from_constant_folding, row_weights
from tfnvp.layers.running_moments import RunningMoments, over_replicas
from tfnvp.layers.weight_norm_conv2d import WeightNormConv2D
from tfnvp.shapes import over_event


@keras.saving.register_keras_serializable(package="tfnvp")
class FusedBatchNormalization(UncastLayer):
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
        x: [N, H, W, C]. training: as in Keras.

    Returns:
        A tensor of x's shape, in the compute dtype.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-4,
        affine: bool = True,
        synchronized: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.affine = affine
        self.synchronized = synchronized
        self.moments = RunningMoments(
            momentum, synchronized, dtype=self.variable_dtype, name="moments"
        )

    def build(self, input_shape: tuple) -> None:
        channels = (input_shape[-1],)
        options = {"trainable": self.affine, "autocast": False}
        self.scale = self.add_weight(channels, "ones", name="scale", **options)
        self.offset = self.add_weight(channels, "zeros", name="offset", **options)
        self.moments.build(input_shape)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        has_kernel = self.variable_dtype == "float32" and self.affine
        normalise = self._by_the_kernel if has_kernel else self._spelt_out
        x = tf.cast(x, self.compute_dtype if has_kernel else self.variable_dtype)
        scale, offset = tf.convert_to_tensor(self.scale), tf.convert_to_tensor(self.offset)
        return tf.cast(normalise(x, scale, offset, training), self.compute_dtype)

    def after(self, conv: WeightNormConv2D, x: tf.Tensor, training: bool) -> tf.Tensor:
        """Convolves x without a bias and normalises: two linear maps, and in inference one."""
        if training:
            return self(conv(x), training=True)
        scale = tf.convert_to_tensor(self.scale) * tf.math.rsqrt(
            self.moments.variance + self.epsilon
        )
        offset = tf.convert_to_tensor(self.offset) - self.moments.mean * scale
        y = conv.convolve(tf.cast(x, self.compute_dtype), conv.kernel() * scale)
        return tf.nn.bias_add(y, tf.cast(offset, y.dtype))

    def _by_the_kernel(
        self, x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, training: bool | None
    ) -> tf.Tensor:
        if not training:
            # TensorFlow would fuse it into the convolution before, at 3 ms more for each such call.
            x = hide_from_constant_folding(x)
            return fused(x, scale, offset, self.moments.mean, self.moments.variance, self.epsilon)
        meets, weights = self.moments.meets_replicas(), row_weights(scale.dtype)
        if weights is not None and weights.shape.rank == 1:
            moments_of = self._weighted_moments
        elif meets:
            moments_of = _moments_over_replicas
        else:
            y, mean, variance = fused_training(x, scale, offset, self.epsilon)
            self.moments.update(tf.ones([]) if weights is None else weights, mean, variance)
            return y
        y, *moments = fused_by_moments(x, scale, offset, self.epsilon, moments_of, meets)
        self.moments.update(*moments)
        return y

    def _weighted_moments(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return self.moments.of_batch(tf.cast(x, self.variable_dtype))

    def _spelt_out(
        self, x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, training: bool | None
    ) -> tf.Tensor:
        mean, variance = self.moments(x, training=training)
        scale *= tf.math.rsqrt(variance + self.epsilon)
        return (x - over_event(mean, x)) * over_event(scale, x) + over_event(offset, x)


def _moments_over_replicas(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    return over_replicas(*kernel_moments(x, tf.float32))

"""Convolution with weight normalization."""

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfnvp.checks import check_positive_int
from tfnvp.configured_layer import ConfiguredLayer
from tfnvp.graph.held_kernels import holds_kernel


@keras.saving.register_keras_serializable(package="tfnvp")
class WeightNormConv2D(ConfiguredLayer):
    """A convolution whose kernel is a direction times a length for each output channel.

        kernel = scale * v / ||v||,    the norm over height, width and input channels,

    with stride 1 and the image's size kept. Source: Salimans and Kingma (arXiv 1602.07868),
    equation 2; used throughout Real NVP's conditioners (arXiv 1605.08803, section 4.1).

    Args:
        filters: output channels.
        kernel_size: height and width of the kernel.
        use_bias: whether a bias is added.
        use_scale: whether the length is learned; if not it is one, which loses nothing where batch
            normalization follows.
        scale_initializer: of the length; "zeros" makes a layer that gives its bias at the start.
        scale_regularizer: a Keras regularizer of the length (the paper: L2 of 5e-5).
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [N, H, W, C].

    Returns:
        [N, H, W, filters], in the compute dtype.

    Raises:
        ValueError: if filters or kernel_size is not a positive integer.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        use_bias: bool = True,
        use_scale: bool = True,
        scale_initializer: str | keras.initializers.Initializer = "ones",
        scale_regularizer: str | keras.regularizers.Regularizer | None = None,
        **kwargs: Any,
    ) -> None:
        check_positive_int("filters", filters)
        check_positive_int("kernel_size", kernel_size)
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.scale_initializer = keras.initializers.get(scale_initializer)
        self.scale_regularizer = keras.regularizers.get(scale_regularizer)

    def build(self, input_shape: tuple) -> None:
        self.kernel_shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        # The direction is a matrix with a column for each output channel, for optimizers that treat
        # matrices apart, as Keras' Muon does. It is not cast: a norm taken in bfloat16 would be off
        # by percents.
        self.direction = self.add_weight(
            (math.prod(self.kernel_shape[:-1]), self.filters),
            "he_normal",
            name="direction",
            autocast=False,
        )
        self.scale = self.bias = None
        if self.use_scale:
            self.scale = self.add_weight(
                (self.filters,),
                self.scale_initializer,
                regularizer=self.scale_regularizer,
                name="scale",
                autocast=False,
            )
        if self.use_bias:
            self.bias = self.add_weight((self.filters,), "zeros", name="bias")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = self.convolve(x, self.kernel())
        return tf.nn.bias_add(x, tf.convert_to_tensor(self.bias)) if self.use_bias else x

    def convolve(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves x, [N, H, W, C], with a kernel, in x's dtype."""
        return tf.nn.conv2d(x, tf.cast(kernel, x.dtype), strides=1, padding="SAME")

    def kernel(self) -> tf.Tensor:
        """The kernel [height, width, C, filters], in the variable dtype."""
        if holds_kernel(self):
            return tf.reshape(tf.convert_to_tensor(self.direction), self.kernel_shape)
        length = [tf.convert_to_tensor(self.scale)] if self.use_scale else []
        kernel = _with_lengths(tf.convert_to_tensor(self.direction), *length)
        return tf.reshape(kernel, self.kernel_shape)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.filters)


@tf.custom_gradient
def _with_lengths(
    v: tf.Tensor, *scale: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
    """Scales the columns of v, [K, filters], to the lengths `scale`, or to one where none is given.

    The gradient is equation 3 of the paper. It is written out because TensorFlow's own takes twice
    the operations for each of a model's kernels, which is about 1% of a small model's step.
    """
    inverse = tf.math.rsqrt(tf.reduce_sum(tf.square(v), axis=0))
    factor = inverse * scale[0] if scale else inverse

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
        to_scale = tf.reduce_sum(v * upstream, axis=0) * inverse
        to_v = factor * upstream - (factor * to_scale * inverse) * v
        return to_v, *(to_scale for _ in scale)

    return v * factor, gradient

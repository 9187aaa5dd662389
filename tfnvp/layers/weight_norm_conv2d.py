"""Convolution with weight normalization."""

import math

import keras
import tensorflow as tf

from tfnvp.checks import check_positive_int


@keras.saving.register_keras_serializable(package="tfnvp")
class WeightNormConv2D(keras.layers.Layer):
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
        filters,
        kernel_size=3,
        use_bias=True,
        use_scale=True,
        scale_initializer="ones",
        scale_regularizer=None,
        **kwargs,
    ):
        for name, value in (("filters", filters), ("kernel_size", kernel_size)):
            check_positive_int(name, value)
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.scale_initializer = keras.initializers.get(scale_initializer)
        self.scale_regularizer = keras.regularizers.get(scale_regularizer)

    def build(self, input_shape):
        self.kernel_shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        # A matrix with a column for each output channel, for optimizers that treat matrices apart,
        # as Keras' Muon does. Out of autocast: a norm taken in bfloat16 would be off by percents.
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

    def call(self, x):
        x = self.convolve(x, self.kernel())
        return tf.nn.bias_add(x, tf.convert_to_tensor(self.bias)) if self.use_bias else x

    def kernel(self):
        """The columns of the kernel, [height * width * C, filters], in the variable dtype."""
        scale = [tf.convert_to_tensor(self.scale)] if self.use_scale else []
        return _weight_norm(tf.convert_to_tensor(self.direction), *scale)

    def convolve(self, x, kernel):
        """x convolved with a kernel such as `kernel` gives."""
        kernel = tf.reshape(tf.cast(kernel, x.dtype), self.kernel_shape)
        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME")

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
            "use_scale": self.use_scale,
            "scale_initializer": keras.initializers.serialize(self.scale_initializer),
            "scale_regularizer": keras.regularizers.serialize(self.scale_regularizer),
        }


@tf.custom_gradient
def _weight_norm(direction, *scale):
    """The columns of a matrix, of length one or, if given, of the lengths `scale`."""
    inverse_length = tf.math.rsqrt(tf.reduce_sum(tf.square(direction), axis=0))
    factor = inverse_length * scale[0] if scale else inverse_length

    # In a third of the operations that autodiff makes of it.
    def gradient(upstream):
        to_scale = tf.reduce_sum(direction * upstream, axis=0) * inverse_length
        along = factor * to_scale * inverse_length
        return factor * upstream - along * direction, *(to_scale for _ in scale)

    return direction * factor, gradient

"""The end of a conditioner: log-scales within bounds."""

from typing import Any

import keras
import tensorflow as tf

from tfnvp.configured_layer import ConfiguredLayer
from tfnvp.graph.concatenation import concatenate
from tfnvp.shapes import over_event


def outputs_per_channel(spline_bins: int) -> int:
    """Counts the outputs for each channel: log-scale, shift, and the parameters of a spline."""
    return 2 + (3 * spline_bins - 1 if spline_bins else 0)


def bounded(layer: "BoundedLogScale", outputs: tf.Tensor, channels: int) -> tf.Tensor:
    """Bounds the log-scales among outputs of so many channels; splines' parameters stay."""
    if outputs.shape[-1] == 2 * channels:
        return layer(outputs)
    affine, curves = tf.split(outputs, [2 * channels, -1], axis=-1)
    return concatenate(layer(affine), curves)


@keras.saving.register_keras_serializable(package="tfnvp")
class BoundedLogScale(ConfiguredLayer):
    """Bounds log-scales by scale * tanh, with a learned scale a channel; shifts stay as they are.

    Source: Real NVP (arXiv 1605.08803), section 4.1.

    Args:
        regularizer: a Keras regularizer of the scale.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., 2C], log-scales and then shifts.

    Returns:
        A tensor of x's shape, its first C channels within (-scale, scale).

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> tfnvp.layers.BoundedLogScale()(tf.constant([[9.0, 9.0]])).numpy().round(3).tolist()
        [[1.0, 9.0]]
    """

    def __init__(
        self, regularizer: keras.regularizers.Regularizer | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.regularizer = keras.regularizers.get(regularizer)

    def build(self, input_shape: tuple) -> None:
        self.scale = self.add_weight(
            (input_shape[-1] // 2,), "ones", regularizer=self.regularizer, name="scale"
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        scale = tf.convert_to_tensor(self.scale)
        zeros, ones = tf.zeros_like(scale), tf.ones_like(scale)
        # We work on all channels: taking log-scales and shifts apart, and joining them, is slower.
        of_tanh = tf.reshape(tf.stack([scale, zeros]), [-1])
        of_x = tf.reshape(tf.stack([zeros, ones]), [-1])
        return over_event(of_tanh, x) * tf.tanh(x) + over_event(of_x, x) * x

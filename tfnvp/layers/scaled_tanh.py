"""A bounded log-scale."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfnvp")
class ScaledTanh(keras.layers.Layer):
    """scale * tanh(x), with a learned scale for each channel: the log-scale of a coupling.

    Source: Real NVP (arXiv 1605.08803), section 4.1.

    Args:
        regularizer: a Keras regularizer of the scale.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., C].

    Returns:
        A tensor of x's shape, within (-scale, scale).
    """

    def __init__(self, regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.regularizer = keras.regularizers.get(regularizer)

    def build(self, input_shape):
        self.scale = self.add_weight(
            (input_shape[-1],), "ones", regularizer=self.regularizer, name="scale"
        )

    def call(self, x):
        return self.scale * tf.tanh(x)

    def get_config(self):
        return {
            **super().get_config(),
            "regularizer": keras.regularizers.serialize(self.regularizer),
        }

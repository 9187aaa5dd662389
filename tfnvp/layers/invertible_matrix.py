"""A square matrix that stays invertible while it is trained."""

import keras
import tensorflow as tf

from tfnvp.configured_layer import UncastLayer


@keras.saving.register_keras_serializable(package="tfnvp")
class InvertibleMatrix(UncastLayer):
    """A matrix W = L U of learned triangular factors, the identity at the start.

    L has ones on its diagonal and U exponentials, so that log |det W| is a sum of weights, and W
    can be inverted whatever they are. Source: Glow (Kingma and Dhariwal 2018, arXiv 1807.03039),
    section 3.2, equation 10, without the permutation.

    Args:
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., C], not cast to the policy's compute dtype.

    Returns:
        L [C, C], U [C, C] and log |det W|, in the layer's variable dtype.
    """

    def build(self, x_shape: tuple) -> None:
        size = x_shape[-1]
        self.lower = self.add_weight((size, size), "zeros", name="lower", autocast=False)
        self.upper = self.add_weight((size, size), "zeros", name="upper", autocast=False)
        self.log_scale = self.add_weight((size,), "zeros", name="log_scale", autocast=False)

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        lower, upper = tf.convert_to_tensor(self.lower), tf.convert_to_tensor(self.upper)
        log_scale = tf.convert_to_tensor(self.log_scale)
        lower = tf.linalg.set_diag(tf.linalg.band_part(lower, -1, 0), tf.ones_like(log_scale))
        upper = tf.linalg.set_diag(tf.linalg.band_part(upper, 0, -1), tf.exp(log_scale))
        return lower, upper, tf.reduce_sum(log_scale)

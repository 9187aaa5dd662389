"""A square matrix that stays invertible while it is trained."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.configured_layer import UncastLayer


@keras.saving.register_keras_serializable(package="tfnvp")
class InvertibleMatrix(UncastLayer):
    """A matrix W = P L U of learned triangular factors and a fixed permutation.

    L has ones on its diagonal and U exponentials, so that log |det W| is a sum of weights, and W
    can be inverted whatever they are. Both are the identity at the start. The permutation is a
    weight, so that whoever loads weights has the one that they were trained with. Source: Glow
    (Kingma and Dhariwal 2018, arXiv 1807.03039), section 3.2, equation 10.

    Args:
        seed: of a random permutation P, an integer; None for none.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., C], not cast to the policy's compute dtype.

    Returns:
        L [C, C], U [C, C] and log |det W|, in the layer's variable dtype, and the order of P, int32
        [C]: row i of W is row order[i] of L U; None without a seed.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, x_shape: tuple) -> None:
        size = x_shape[-1]
        self.order = None
        if self.seed is not None:
            # NumPy promises to keep the streams of RandomState, not those of newer generators.
            order = np.random.RandomState(self.seed % 2**32).permutation(size)
            self.order = self.add_weight(
                (size,),
                lambda shape, dtype: tf.constant(order, dtype),
                dtype="int32",
                trainable=False,
                autocast=False,
                name="order",
            )
        self.lower = self.add_weight((size, size), "zeros", name="lower", autocast=False)
        self.upper = self.add_weight((size, size), "zeros", name="upper", autocast=False)
        self.log_scale = self.add_weight((size,), "zeros", name="log_scale", autocast=False)

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor | None]:
        lower, upper = tf.convert_to_tensor(self.lower), tf.convert_to_tensor(self.upper)
        log_scale = tf.convert_to_tensor(self.log_scale)
        lower = tf.linalg.set_diag(tf.linalg.band_part(lower, -1, 0), tf.ones_like(log_scale))
        upper = tf.linalg.set_diag(tf.linalg.band_part(upper, 0, -1), tf.exp(log_scale))
        order = None if self.order is None else tf.convert_to_tensor(self.order)
        return lower, upper, tf.reduce_sum(log_scale), order

"""The parameters of a spline for each dimension."""

from typing import Any

import keras
import tensorflow as tf

from tfnvp.checks import MOST_BINS, check_positive_int
from tfnvp.configured_layer import UncastLayer


@keras.saving.register_keras_serializable(package="tfnvp")
class SplineWeights(UncastLayer):
    """Free parameters of a monotone spline for each dimension of vectors, at first the identity.

    Args:
        bins: the number of bins of each spline, 2 to 200.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., D], not cast to the policy's compute dtype.

    Returns:
        [D, 3 * bins - 1], in the layer's variable dtype.
    """

    def __init__(self, bins: int = 16, **kwargs: Any) -> None:
        check_positive_int("bins", bins)
        if not 2 <= bins <= MOST_BINS:
            raise ValueError(f"bins must be from 2 to {MOST_BINS}, got bins={bins}")
        super().__init__(**kwargs)
        self.bins = bins

    def build(self, x_shape: tuple) -> None:
        shape = (x_shape[-1], 3 * self.bins - 1)
        self.parameters = self.add_weight(shape, "zeros", name="parameters", autocast=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(self.parameters)

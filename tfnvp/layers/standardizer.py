"""Mean and scale of a data set, by which it is standardised."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tfnvp.columns import Columns
from tfnvp.configured_layer import UncastLayer
from tfnvp.types import TensorLike


@keras.saving.register_keras_serializable(package="tfnvp")
class Standardizer(UncastLayer):
    """Mean and standard deviation of each dimension of the data: 0 and 1 until `adapt`.

    `tfnvp.bijectors.Standardization` applies them. They are neither trained nor touched by
    training. This is not Keras' Normalization: that uses copies of its statistics, which compiled
    functions keep as constants.

    Args:
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., D], not cast to the policy's compute dtype.

    Returns:
        mean [D] and scale [D], in the layer's variable dtype.
    """

    def build(self, x_shape: tuple) -> None:
        options = {"trainable": False, "autocast": False}
        self.mean = self.add_weight((x_shape[-1],), "zeros", name="mean", **options)
        self.scale = self.add_weight((x_shape[-1],), "ones", name="scale", **options)

    def call(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.scale)

    def adapt(self, batches: Iterable[TensorLike | tuple[TensorLike, TensorLike | None]]) -> None:
        """Takes the mean and the standard deviation of the data, in place of any before.

        Args:
            batches: an iterable of arrays [B, D], or of pairs of one and the weights of its rows,
                [B], 0 or more, or None.

        Raises:
            ValueError: for no rows, and for NaN or infinity, naming the first by row and column;
                the statistics stay as they were.
        """
        columns = Columns(batches, self.variable_dtype)
        if not self.built:
            self.build((None, len(columns.mean)))
            self.built = True
        self.take(columns.mean, columns.variance)

    def take(self, mean: np.ndarray, variance: np.ndarray) -> None:
        """Takes a mean [D] and a variance [D]; where that is 0 the scale is 1."""
        self.mean.assign(mean)
        self.scale.assign(np.sqrt(np.where(variance > 0, variance, 1.0)))

"""Rows kept from training, and how far others are from the nearest of them."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.configured_layer import UncastLayer

# Rows that differ by less than this count as one: a row of the training is not its own neighbour.
_SAME = 1e-3
# Squares of greater numbers would overflow float32.
_FARTHEST = 1e15


@keras.saving.register_keras_serializable(package="tfnvp")
class NearestRow(UncastLayer):
    """Root mean square difference of vectors from the nearest of the rows that it keeps.

    A vector that is one of these is compared with the others. Rows are neither trained nor touched
    by training.

    Args:
        count: the most rows that it keeps, 1 or more.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [B, D], not cast to the policy's compute dtype.

    Returns:
        [B], 0 or more, in x's dtype; 0 where there is no row to compare with.

    Example:
        >>> import numpy as np, tensorflow as tf, tfnvp
        >>> nearest = tfnvp.layers.NearestRow(3)
        >>> nearest.build((None, 2))
        >>> nearest.take(np.array([[0.0, 0.0], [3.0, 1.0]]))
        >>> nearest(tf.constant([[1.0, 1.0], [5.0, 3.0]])).numpy().tolist()
        [1.0, 2.0]
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def build(self, x_shape: tuple) -> None:
        options = {"trainable": False, "autocast": False}
        self.rows = self.add_weight((self.count, x_shape[-1]), "zeros", name="rows", **options)
        self.kept = self.add_weight((), "zeros", dtype="int32", name="kept", **options)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        x = tf.clip_by_value(x, -_FARTHEST, _FARTHEST)
        rows, kept = tf.convert_to_tensor(self.rows), tf.convert_to_tensor(self.kept)
        rows = tf.cast(rows, x.dtype)
        # Less the square of x, which ranks nothing, these are squared distances by one product.
        squares = tf.reduce_sum(tf.square(rows), axis=-1)
        squares = tf.where(tf.range(self.count) < kept, squares, np.inf)
        key = squares - 2 * tf.linalg.matmul(x, rows, transpose_b=True)
        _, near = tf.math.top_k(-key, min(2, self.count))
        # The product rounds off what tells near rows apart, so two differences are taken.
        off = x[:, tf.newaxis] - tf.gather(rows, near)
        distance = tf.sqrt(tf.reduce_mean(tf.square(off), axis=-1))
        other = (near < kept) & (distance > _SAME)
        distance = tf.reduce_min(tf.where(other, distance, np.inf), axis=-1)
        return tf.where(tf.math.is_finite(distance), distance, 0.0)

    def take(self, rows: np.ndarray) -> None:
        """Takes up to `count` rows [N, D] that differ, in place of any before."""
        self.rows.assign(np.pad(rows, [(0, self.count - len(rows)), (0, 0)]))
        self.kept.assign(len(rows))

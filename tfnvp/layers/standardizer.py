"""Mean and scale of a data set, by which it is standardised."""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tfnvp.configured_layer import UncastLayer
from tfnvp.types import TensorLike


@keras.saving.register_keras_serializable(package="tfnvp")
class Standardizer(UncastLayer):
    """Mean and standard deviation of each dimension of the data: 0 and 1 until `adapt`.

    `tfnvp.bijectors.Standardization` applies them. They are neither trained nor touched by
    training. This is not Keras' Normalization: that uses copies of its statistics, which compiled
    functions keep as constants, and lets a constant dimension pass.

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
            ValueError: for no rows, NaN or infinity, or a dimension that does not vary, over which
                there is no density; the statistics stay as they were.
        """
        total, mean, squares, low, high = 0.0, 0.0, 0.0, np.inf, -np.inf
        for batch in batches:
            x, weights = batch if isinstance(batch, tuple) else (batch, None)
            # We sum up the values that the flow sees, in float64.
            with np.errstate(over="ignore"):
                x = np.asarray(x).astype(self.variable_dtype).astype("float64")
            weights = np.ones(len(x)) if weights is None else np.asarray(weights, "float64")
            x, weights = x[weights > 0], weights[weights > 0]
            if not np.isfinite(x).all():
                raise ValueError("data to adapt to must be finite, got NaN or infinity")
            if not len(x):
                continue
            # By Chan, Golub and LeVeque (1983) means far from zero do not drown the variance.
            before, weight = total, weights.sum()
            total += weight
            average = weights @ x / weight
            off = average - mean
            mean += off * weight / total
            squares += weights @ (x - average) ** 2 + off**2 * before * weight / total
            low, high = np.minimum(low, x.min(axis=0)), np.maximum(high, x.max(axis=0))
        if not total:
            raise ValueError("data to adapt to must have rows, got none of a weight above 0")
        if constant := np.flatnonzero(low == high).tolist():
            raise ValueError(
                "every dimension of the data must vary, or there is no density: leave out what is "
                f"constant, got a single value in dimension {', '.join(map(str, constant))}"
            )
        if not self.built:
            self.build(x.shape)
            self.built = True
        self.mean.assign(mean)
        self.scale.assign(np.sqrt(squares / total))

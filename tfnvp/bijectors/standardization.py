"""Data to mean 0 and variance 1, dimension by dimension."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.layers.standardizer import Standardizer


class Standardization(FlowBijector):
    """Shifts and scales vectors by the mean m and standard deviation s of a data set.

    Data to latents is

        inverse(x) = (x - m) / s,    log |det| = -sum of log s.

    The identity until `standardizer.adapt` has seen data; nothing in it is trained.

    Args:
        standardizer: the `tfnvp.layers.Standardizer` that holds m and s; None makes one.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Example:
        >>> import numpy as np, tfnvp
        >>> standardization = tfnvp.bijectors.Standardization()
        >>> standardization.standardizer.adapt([np.array([[0.0, 5.0], [2.0, 9.0]])])
        >>> standardization.inverse([2.0, 5.0]).numpy().tolist()
        [1.0, -1.0]
    """

    def __init__(
        self,
        standardizer: Standardizer | None = None,
        validate_args: bool = False,
        name: str = "standardization",
    ) -> None:
        # The layer is created before arguments are captured, so that `copy()` reuses it.
        standardizer = Standardizer() if standardizer is None else standardizer
        super().__init__(1, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, scale = (tf.cast(value, x.dtype) for value in self.standardizer(x))
        return (x - mean) / scale, -tf.reduce_sum(tf.math.log(scale))

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean, scale = (tf.cast(value, z.dtype) for value in self.standardizer(z))
        return z * scale + mean, tf.reduce_sum(tf.math.log(scale))

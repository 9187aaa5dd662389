"""A coupling of monotone rational-quadratic splines, tried in place of affine ones."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tfnvp.bijectors import rational_quadratic
from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.masks import Partition
from tfnvp.shapes import sizes


class SplineCoupling(FlowBijector):
    """Maps one half of vectors by monotone splines that the other half chooses.

    The conditioner returns 3 * bins - 1 parameters for each dimension that changes.
    """

    def __init__(
        self,
        mask: Partition,
        conditioner: keras.Layer | Callable[..., tf.Tensor],
        bins: int = 8,
        bound: float = 4.0,
        validate_args: bool = False,
        name: str = "spline_coupling",
    ) -> None:
        super().__init__(mask.event_ndims, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stays, changes, merge = self.mask.split(x)
        bins = self._bins(stays, changes)
        own = _own(bins, changes, bins.x)
        changed, log_slopes = rational_quadratic.evaluate(changes, own, self.bound)
        return merge(changed), tf.reduce_sum(log_slopes, axis=-1)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stays, changes, merge = self.mask.split(z)
        bins = self._bins(stays, changes)
        own = _own(bins, changes, bins.y)
        changed, log_slopes = rational_quadratic.solve(changes, own, self.bound)
        return merge(changed), -tf.reduce_sum(log_slopes, axis=-1)

    def _bins(self, stays: tf.Tensor, changes: tf.Tensor) -> rational_quadratic.Bins:
        outputs = self.conditioner(tf.reshape(stays, [-1, stays.shape[-1]]))
        shape = [*sizes(changes), 3 * self.bins - 1]
        outputs = tf.cast(tf.reshape(outputs, shape), changes.dtype)
        return rational_quadratic.bins(outputs, self.bound)


def _own(
    bins: rational_quadratic.Bins, x: tf.Tensor, left_ends: tf.Tensor
) -> rational_quadratic.Bins:
    """Picks the bin that each value is in from bins [..., D, K]."""
    at = tf.one_hot(rational_quadratic.position(x, left_ends), bins.x.shape[-1], dtype=x.dtype)
    return rational_quadratic.Bins(*(tf.reduce_sum(part * at, axis=-1) for part in bins))

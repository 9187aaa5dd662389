"""A learned monotone curve for each dimension."""

import tensorflow as tf

from tfnvp.bijectors import rational_quadratic
from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.layers.spline_weights import SplineWeights


class ElementwiseSpline(FlowBijector):
    """Maps each dimension of vectors by a monotone spline of its own, which is learned.

    Data to latents, each value within (-bound, bound) goes through a rational-quadratic spline, and
    values beyond stay. Next to the data it straightens each column's marginal distribution, which
    couplings would have to do one half by the other. Source: Neural Spline Flows (arXiv
    1906.04032), section 3.1.

    Args:
        weights: the `tfnvp.layers.SplineWeights` that holds the parameters; None makes one.
        bound: where the linear tails begin.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> spline = tfnvp.bijectors.ElementwiseSpline()
        >>> spline.inverse(tf.constant([0.5, 10.0])).numpy().tolist()
        [0.5, 10.0]
    """

    def __init__(
        self,
        weights: SplineWeights | None = None,
        bound: float = 4.0,
        validate_args: bool = False,
        name: str = "elementwise_spline",
    ) -> None:
        # The layer is created before arguments are captured, so that `copy()` reuses it.
        weights = SplineWeights() if weights is None else weights
        super().__init__(1, dict(locals()))

    def inverse_and_log_slopes(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps vectors [..., D] to latents, and gives the log of each curve's slope, [..., D]."""
        bins = self._bins(x)
        own = _own(bins, rational_quadratic.position(x, bins.x))
        return rational_quadratic.evaluate(x, own, self.bound)

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        z, log_slopes = self.inverse_and_log_slopes(x)
        return z, tf.reduce_sum(log_slopes, axis=-1)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        bins = self._bins(z)
        own = _own(bins, rational_quadratic.position(z, bins.y))
        x, log_slope = rational_quadratic.solve(z, own, self.bound)
        return x, -tf.reduce_sum(log_slope, axis=-1)

    def _bins(self, x: tf.Tensor) -> rational_quadratic.Bins:
        return rational_quadratic.bins(tf.cast(self.weights(x), x.dtype), self.bound)


def _own(bins: rational_quadratic.Bins, index: tf.Tensor) -> rational_quadratic.Bins:
    """Gathers the bin [..., D] that each value is in from bins [D, K], by indices [..., D]."""
    size, count = bins.x.shape
    # All six figures are gathered at once, so that the gradient adds them up in one pass, too.
    table = tf.reshape(tf.stack(bins, axis=-1), [size * count, 6])
    return rational_quadratic.Bins(
        *tf.unstack(tf.gather(table, index + count * tf.range(size)), axis=-1)
    )

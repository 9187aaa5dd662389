"""A learned monotone curve for each dimension."""

import tensorflow as tf

from tfnvp.bijectors import rational_quadratic
from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.checks import check_positive_number
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
        check_positive_number("bound", bound)
        weights = SplineWeights() if weights is None else weights
        super().__init__(1, dict(locals()))

    def inverse_and_log_slopes(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps vectors [..., D] to latents, and gives the log of each curve's slope, [..., D]."""
        bins = self._bins(x)
        return rational_quadratic.evaluate(x, _own(x, bins, bins.x), self.bound)

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        z, log_slopes = self.inverse_and_log_slopes(x)
        return z, tf.reduce_sum(log_slopes, axis=-1)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        bins = self._bins(z)
        x, log_slope = rational_quadratic.solve(z, _own(z, bins, bins.y), self.bound)
        return x, -tf.reduce_sum(log_slope, axis=-1)

    def _bins(self, x: tf.Tensor) -> rational_quadratic.Bins:
        parameters = tf.transpose(tf.cast(self.weights(x), x.dtype))
        return rational_quadratic.bins(parameters, self.bound)


def _own(x: tf.Tensor, bins: rational_quadratic.Bins, ends: tf.Tensor) -> rational_quadratic.Bins:
    """Picks the bin [..., D] that each value is in from bins [K, D], by their first ends."""
    count, size = ends.shape
    # We sum over the first axis: TensorFlow is slower at sums over a short last one.
    ends = tf.reshape(ends[1:], [count - 1, *[1] * (x.shape.rank - 1), size])
    index = tf.reduce_sum(tf.cast(x >= ends, tf.int32), axis=0)
    # All six figures are gathered at once, so that the gradient adds them up in one pass, too.
    table = tf.reshape(tf.stack(bins, axis=-1), [count * size, 6])
    return rational_quadratic.Bins(
        *tf.unstack(tf.gather(table, index * size + tf.range(size)), axis=-1)
    )

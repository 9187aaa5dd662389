"""The spline coupling layer: a monotone curve for each value, after scale and shift."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tfnvp.bijectors import rational_quadratic
from tfnvp.bijectors.coupling import Coupling
from tfnvp.checks import MOST_BINS, check_positive_number
from tfnvp.masks import Partition
from tfnvp.shapes import sizes
from tfnvp.types import TensorLike


class SplineCoupling(Coupling):
    """Scales, shifts and bends one part of an event by functions of the part that stays.

    Data to latents, each value x of what changes goes through an affine map and then a monotone
    rational-quadratic spline f of its own, the identity beyond (-bound, bound):

        inverse(x) = b * x + (1 - b) * f(x * exp(s) + t),
        log |det| = sum over the changed positions of s + log f'(x * exp(s) + t),

    where s, t and the bins of f come from the conditioner, which sees b * x. Where all of these
    are zero f is the identity, and the coupling the affine one of Real NVP. An affine map of a
    normal value has one mode; curves give a pixel that is either ink or ground its two. Source:
    Neural Spline Flows (arXiv 1906.04032), section 3; Real NVP (arXiv 1605.08803), equations 7
    to 9.

    Args:
        mask: as in `AffineCoupling`.
        conditioner: as in `AffineCoupling`, but that it returns a tensor with, on its last axis,
            1 + 3K values for each of the C channels that change, K from 2 to 200: the C
            log-scales, the C shifts, and then 3K - 1 groups of C, of K logits of widths, K of
            heights, and K - 1 slopes between bins. The size of the output says what K is.
        bound: where the linear tails of slope one begin, above 0.
        context: as in `AffineCoupling`.
        validate_args: whether to check at run time that the conditioner's outputs are finite.
        name: of the bijector.

    Raises:
        TypeError: if mask is no partition, or conditioner no callable.
        ValueError: if bound is no number above 0, and at the first call, if the conditioner's
            output has the wrong last axis.

    Example:
        >>> import keras, tensorflow as tf, tfnvp
        >>> coupling = tfnvp.bijectors.SplineCoupling(
        ...     tfnvp.masks.ChannelHalves(0, event_ndims=1), keras.layers.Dense(2 * (1 + 3 * 8)))
        >>> coupling.forward(tf.ones([3, 4])).shape.as_list()
        [3, 4]
    """

    def __init__(
        self,
        mask: Partition,
        conditioner: keras.Layer | Callable[..., tf.Tensor],
        bound: float = 4.0,
        context: TensorLike | None = None,
        validate_args: bool = False,
        name: str = "spline_coupling",
    ) -> None:
        check_positive_number("bound", bound)
        super().__init__(mask, conditioner, context, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, changes, merge = self._split(x)
        outputs = self._checked(self.conditioner(*inputs), changes)
        x = self.mask.pick(changes)
        log_scale, shift, curve = self._taken_apart(outputs, x)
        u = x * tf.exp(log_scale) + shift
        bins = rational_quadratic.own_bins(curve, u, self.bound)
        z, log_slope = rational_quadratic.evaluate(u, bins, self.bound)
        return merge(self.mask.put(changes, z)), self._sum(log_scale + log_slope)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, changes, merge = self._split(z)
        outputs = self._checked(self.conditioner(*inputs), changes)
        z = self.mask.pick(changes)
        log_scale, shift, curve = self._taken_apart(outputs, z)
        bins = rational_quadratic.own_bins(curve, z, self.bound, of_y=True)
        u, log_slope = rational_quadratic.solve(z, bins, self.bound)
        x = (u - shift) * tf.exp(-log_scale)
        return merge(self.mask.put(changes, x)), -self._sum(log_scale + log_slope)

    def _taken_apart(
        self, outputs: tf.Tensor, changes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Gives log-scales and shifts, of the shape of what changes, and splines [3K - 1, ...]."""
        channels = changes.shape[-1]
        parts = tf.split(self.mask.pick(outputs), [channels, channels, -1], axis=-1)
        log_scale, shift, curve = parts
        count = curve.shape[-1] // channels
        curve = tf.reshape(curve, [*sizes(changes)[:-1], count, channels])
        # Parameters come first: TensorFlow is slow at sums over a short axis further inside.
        rank = curve.shape.rank
        return log_scale, shift, tf.transpose(curve, [rank - 2, *range(rank - 2), rank - 1])

    def _check_size(self, outputs: tf.Tensor, channels: int) -> None:
        bins, left = divmod(outputs.shape[-1] - channels, 3 * channels)
        if left or not 2 <= bins <= MOST_BINS:
            raise ValueError(
                f"conditioner must return log-scales, shifts and splines of 2 to {MOST_BINS} bins, "
                f"{channels} * (1 + 3 K) values on its last axis, for {self.mask}; got shape "
                f"{outputs.shape}"
            )

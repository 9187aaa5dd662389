"""The affine coupling layer of Real NVP."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tfnvp.bijectors.coupling import Coupling
from tfnvp.masks import Partition
from tfnvp.types import TensorLike


class AffineCoupling(Coupling):
    """Scales and shifts one part of an event by functions of the part that stays.

    With b the mask of the part that stays, and s, t from the conditioner, data to latents is

        inverse(x) = b * x + (1 - b) * (x * exp(s(b * x)) + t(b * x)),
        log |det| = sum over the changed positions of s,

    and `forward` undoes it: z -> b * z + (1 - b) * (z - t(b * z)) * exp(-s(b * z)). Source: Real
    NVP (arXiv 1605.08803), equations 7 to 9.

    Args:
        mask: `Checkerboard(parity)` for events [H, W, C]; `ChannelHalves(parity)` for events
            [H, W, C], or [D] with `event_ndims=1`.
        conditioner: a Keras layer (or any callable). It gets a batch of what stays: of a
            checkerboard [N, H, W, C] with zeros in place of what changes, of channel halves
            [N, H, W, C // 2] or [N, D // 2]. It returns a tensor with, on its last axis, the
            log-scales s and then the shifts t of what changes. Bound s (a tanh does) or training
            may diverge. With a context it is called with two arguments, what stays and the context
            [N, K].
        context: None, or a float tensor [..., K] that the conditioner sees too: the map is then a
            batch of maps, whose batch shape `...` broadcasts with that of the events.
        validate_args: whether to check at run time that s and t are finite.
        name: of the bijector.

    Raises:
        TypeError: if mask is no partition, or conditioner no callable.
        ValueError: at the first call, if the conditioner's output has the wrong last axis.

    Example:
        >>> import keras, tensorflow as tf, tfnvp
        >>> coupling = tfnvp.bijectors.AffineCoupling(
        ...     tfnvp.masks.ChannelHalves(0, event_ndims=1), keras.layers.Dense(4))
        >>> coupling.forward(tf.ones([3, 4])).shape.as_list()
        [3, 4]
    """

    def __init__(
        self,
        mask: Partition,
        conditioner: keras.Layer | Callable[..., tf.Tensor],
        context: TensorLike | None = None,
        validate_args: bool = False,
        name: str = "affine_coupling",
    ) -> None:
        super().__init__(mask, conditioner, context, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, changes, merge = self._split(x)
        log_scale, shift = self._log_scale_and_shift(changes, self.conditioner(*inputs))
        return merge(changes * tf.exp(log_scale) + shift), self._sum(log_scale)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs, changes, merge = self._split(z)
        log_scale, shift = self._log_scale_and_shift(changes, self.conditioner(*inputs))
        return merge((changes - shift) * tf.exp(-log_scale)), -self._sum(log_scale)

    def _log_scale_and_shift(
        self, changes: tf.Tensor, outputs: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes the conditioner's outputs apart; both are zero where a pixel stays."""
        log_scale, shift = tf.split(self._checked(outputs, changes), 2, axis=-1)
        indicator = self._changing(changes)
        if indicator is None:
            return log_scale, shift
        return indicator * log_scale, indicator * shift

    def _check_size(self, outputs: tf.Tensor, channels: int) -> None:
        if outputs.shape[-1] != 2 * channels:
            raise ValueError(
                f"conditioner must return log-scales and shifts, {2 * channels} values on "
                f"its last axis, for {self.mask}; got shape {outputs.shape}"
            )

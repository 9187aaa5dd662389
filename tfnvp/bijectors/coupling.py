"""What all couplings share: a partition, a conditioner, and how the two meet."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.masks import ChannelHalves, Checkerboard
from tfnvp.shapes import sizes


class Coupling(FlowBijector):
    """A bijector of one part of an event, given the part that stays.

    A subclass writes `_inverse_and_log_det` and `_forward_and_log_det` with `_split` and
    `_condition`. Source: Real NVP (arXiv 1605.08803), section 3.2.

    Args:
        mask: `Checkerboard(parity)` for events [H, W, C]; `ChannelHalves(parity)` for events
            [H, W, C], or [D] with `event_ndims=1`.
        conditioner: a Keras layer (or any callable). It gets a batch of what stays: of a
            checkerboard [N, H, W, C] with zeros in place of what changes, of channel halves
            [N, H, W, C // 2] or [N, D // 2]. On its last axis, it returns the parameters of what
            changes, one after the other, each for all channels.
        parameters, validate_args, name: as in `FlowBijector`.

    Raises:
        TypeError: if mask is no partition, or conditioner no callable.
        ValueError: at the first call, if the conditioner's output has the wrong last axis.
    """

    def __init__(self, mask, conditioner, parameters, validate_args, name):
        if not isinstance(mask, (Checkerboard, ChannelHalves)):
            raise TypeError(
                f"mask must be a tfnvp.masks.Checkerboard or ChannelHalves, got mask={mask!r}"
            )
        if not callable(conditioner):
            raise TypeError(
                f"conditioner must be a Keras layer or a callable, got conditioner={conditioner!r}"
            )
        with tf.name_scope(name) as name:
            self._mask = mask
            self._conditioner = conditioner
            super().__init__(mask.event_ndims, parameters, validate_args=validate_args, name=name)

    @property
    def mask(self):
        """The partition: which part stays."""
        return self._mask

    @property
    def conditioner(self):
        """The network that maps what stays to the parameters of what changes."""
        return self._conditioner

    def _split(self, x):
        """What the conditioner sees, what changes, and how to join them again."""
        if isinstance(self.mask, ChannelHalves):
            stays, changes = self.mask.split(x)
            return stays, changes, lambda changed: self.mask.merge(stays, changed)
        # All parameters are zero where a checkerboard's pixels stay, which is the identity, so that
        # the whole image can be changed.
        return x * self.mask.stays(x), x, lambda changed: changed

    def _condition(self, stays, changes, parameters):
        """[..., parameters, C]: for each position of `changes`, [..., C], its parameters."""
        batch_ndims = stays.shape.rank - self.mask.event_ndims
        batch, event = sizes(stays)[:batch_ndims], sizes(stays)[batch_ndims:]
        outputs = tf.convert_to_tensor(self.conditioner(tf.reshape(stays, [-1, *event])))
        channels = changes.shape[-1]
        if outputs.shape[-1] != parameters * channels:
            raise ValueError(
                f"conditioner must return {parameters} parameters of what changes, "
                f"{parameters * channels} values on its last axis, for {self.mask}; got shape "
                f"{outputs.shape}"
            )
        outputs = tf.reshape(outputs, [*batch, *event[:-1], parameters * channels])
        outputs = tf.cast(outputs, changes.dtype)
        if isinstance(self.mask, Checkerboard):
            outputs *= 1 - self.mask.stays(changes)
        if self.validate_args:
            outputs = tf.debugging.check_numerics(
                outputs, f"{self.name}: parameters from the conditioner are not finite"
            )
        return tf.reshape(outputs, [*batch, *event[:-1], parameters, channels])

    def _sum(self, log_dets):
        """Log-dets of positions [..., C], summed over the event."""
        return tf.reduce_sum(log_dets, axis=list(range(-self.mask.event_ndims, 0)))

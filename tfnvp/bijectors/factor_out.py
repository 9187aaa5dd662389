"""The multiscale structure: half of the variables leave, the rest flows on."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.bijectors.squeeze import channels_to_space, space_to_channels


class FactorOut(FlowBijector):
    """Leaves half of an image's variables as they are, and sends the other half on at half size.

    Of each 2 x 2 block of pixels the sub-pixels (0,1) and (1,0) are factored out, and (0,0) and
    (1,1) become one pixel of an image [H/2, W/2, 2 C], which `bijector` maps. Both halves return to
    their places, so that the event keeps its shape. Data to latents is

        inverse(x) = join(bijector.inverse(kept(x)), out(x)),    log |det| = bijector's.

    The halves are not those of a channel coupling after `Squeeze` (the rows of a block), so that
    each variable has been changed, given the others, before it leaves. Source: Real NVP (arXiv
    1605.08803), section 3.6, equations 14 to 16.

    Args:
        bijector: any `tfb.Bijector` on events [H/2, W/2, 2 C] that keeps their shape.
        validate_args: nothing to check here; as TFP has it.
        name: of the bijector.

    Raises:
        ValueError: when called, if H or W is odd.

    Example:
        >>> import tensorflow as tf, tensorflow_probability as tfp, tfnvp
        >>> halved = tfnvp.bijectors.FactorOut(tfp.bijectors.Scale(2.0))
        >>> halved.forward(tf.ones([2, 2, 1]))[..., 0].numpy().tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """

    def __init__(self, bijector, validate_args=False, name="factor_out"):
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self._bijector = bijector
            super().__init__(3, parameters, validate_args=validate_args, name=name)

    @property
    def bijector(self):
        """The bijector of the half that flows on."""
        return self._bijector

    # The bijector's value is held until its log-det is there: TFP's cache, where a network's second
    # evaluation is saved, forgets what nobody holds.
    def _inverse_and_log_det(self, x):
        kept, out = halve(x)
        value = self.bijector.inverse(kept)
        log_det = self.bijector.inverse_log_det_jacobian(kept, event_ndims=3)
        return join(value, out), log_det

    def _forward_and_log_det(self, z):
        kept, out = halve(z)
        value = self.bijector.forward(kept)
        log_det = self.bijector.forward_log_det_jacobian(kept, event_ndims=3)
        return join(value, out), log_det


def halve(x):
    """[..., H, W, C] as what flows on and what leaves, each [..., H/2, W/2, 2 C]."""
    corner, right, below, across = tf.split(space_to_channels(x), 4, axis=-1)
    return tf.concat([corner, across], axis=-1), tf.concat([right, below], axis=-1)


def join(kept, out):
    """The reverse of `halve`."""
    corner, across = tf.split(kept, 2, axis=-1)
    return channels_to_space(tf.concat([corner, out, across], axis=-1))

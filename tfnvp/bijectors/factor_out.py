"""The multiscale structure: half of the variables leave, the rest flows on."""

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.bijectors.one_pass import forward_and_log_det, inverse_and_log_det
from tfnvp.bijectors.squeeze import channels_to_space, space_to_channels

tfb = tfp.bijectors


class FactorOut(FlowBijector):
    """Leaves half of an image's variables as they are, and sends the other half on at half size.

    In each 2 x 2 block of pixels the sub-pixels (0,1) and (1,0) are factored out, and (0,0) and
    (1,1) become one pixel of an image [H/2, W/2, 2 C], which `bijector` maps. Both halves return to
    their places, so that the event keeps its shape. Data to latents is

        inverse(x) = join(bijector.inverse(kept(x)), out(x)),    log |det| = bijector's.

    The halves are not those of a channel coupling after `Squeeze` (the rows of a block), so that
    each variable has been changed, given the others, before it leaves. Source: Real NVP (arXiv
    1605.08803), section 3.6, equations 14 to 16.

    Args:
        bijector: any `tfb.Bijector` on events [H/2, W/2, 2 C] that keeps their shape.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Raises:
        ValueError: when called, if H or W is odd.

    Example:
        >>> import tensorflow as tf, tensorflow_probability as tfp, tfnvp
        >>> halved = tfnvp.bijectors.FactorOut(tfp.bijectors.Scale(2.0))
        >>> halved.forward(tf.ones([2, 2, 1]))[..., 0].numpy().tolist()
        [[2.0, 1.0], [1.0, 2.0]]
    """

    def __init__(
        self, bijector: tfb.Bijector, validate_args: bool = False, name: str = "factor_out"
    ) -> None:
        super().__init__(3, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        kept, out = halve(x)
        value, log_det = inverse_and_log_det(self.bijector, kept, event_ndims=3)
        return join(value, out), log_det

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        kept, out = halve(z)
        value, log_det = forward_and_log_det(self.bijector, kept, event_ndims=3)
        return join(value, out), log_det

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType) -> dict[str, Any]:
        return {
            "bijector": tfp.util.BatchedComponentProperties(
                event_ndims=lambda self, x_event_ndims: x_event_ndims
            )
        }


def halve(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Divides [..., H, W, C] into what flows on and what leaves, each [..., H/2, W/2, 2 C]."""
    corner, right, below, across = tf.split(space_to_channels(x), 4, axis=-1)
    return tf.concat([corner, across], axis=-1), tf.concat([right, below], axis=-1)


def join(kept: tf.Tensor, out: tf.Tensor) -> tf.Tensor:
    """Undoes `halve`."""
    corner, across = tf.split(kept, 2, axis=-1)
    return channels_to_space(tf.concat([corner, out, across], axis=-1))

"""The affine coupling layer of Real NVP."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.graph.internals import in_training
from tfnvp.masks import Partition
from tfnvp.shapes import at_least_one_row, over_event, sizes
from tfnvp.types import TensorLike

tfb = tfp.bijectors


class AffineCoupling(FlowBijector):
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
        context = None if context is None else tf.convert_to_tensor(context)
        if not isinstance(mask, Partition):
            raise TypeError(
                f"mask must be a tfnvp.masks.Checkerboard or ChannelHalves, got mask={mask!r}"
            )
        if not callable(conditioner):
            raise TypeError(
                f"conditioner must be a Keras layer or a callable, got conditioner={conditioner!r}"
            )
        super().__init__(mask.event_ndims, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stays, changes, merge = self.mask.split(self._broadcast(x))
        outputs = self.conditioner(*self._inputs(stays))
        log_scale, shift = self._log_scale_and_shift(outputs, changes)
        return merge(changes * tf.exp(log_scale) + shift), self._sum(log_scale)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        stays, changes, merge = self.mask.split(self._broadcast(z))
        outputs = self.conditioner(*self._inputs(stays))
        log_scale, shift = self._log_scale_and_shift(outputs, changes)
        return merge((changes - shift) * tf.exp(-log_scale)), -self._sum(log_scale)

    def _inputs(self, stays: tf.Tensor) -> list[tf.Tensor]:
        """Flattens the batch axes of what stays, and of the context, for the conditioner."""
        batch, event = self._batch_and_event(stays)
        inputs = [tf.reshape(stays, [-1, *event])]
        if self.context is not None:
            size = self.context.shape[-1]
            inputs.append(tf.reshape(tf.broadcast_to(self.context, [*batch, size]), [-1, size]))
        return [at_least_one_row(x) for x in inputs] if self._may_lack_rows(stays) else inputs

    def _may_lack_rows(self, x: tf.Tensor) -> bool:
        """Tells whether the batch may be empty: then a row of zeros is computed and dropped.

        TensorFlow's convolutions refuse a batch of no rows; dense networks take it. In training
        the zeros would count in statistics.
        """
        rows = x.shape[: -self.mask.event_ndims].num_elements()
        return not rows and self.mask.event_ndims == 3 and not in_training()

    def _log_scale_and_shift(
        self, outputs: tf.Tensor, changes: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes the conditioner's output apart; both are zero where a pixel stays."""
        outputs = tf.convert_to_tensor(outputs)
        channels = changes.shape[-1]
        if outputs.shape[-1] != 2 * channels:
            raise ValueError(
                f"conditioner must return log-scales and shifts, {2 * channels} values on "
                f"its last axis, for {self.mask}; got shape {outputs.shape}"
            )
        batch, event = self._batch_and_event(changes)
        if self._may_lack_rows(changes):
            outputs = outputs[: tf.reduce_prod(batch)]
        outputs = tf.cast(tf.reshape(outputs, [*batch, *event[:-1], 2 * channels]), changes.dtype)
        if self.validate_args:
            outputs = tf.debugging.check_numerics(
                outputs, f"{self.name}: log-scales or shifts from the conditioner are not finite"
            )
        log_scale, shift = tf.split(outputs, 2, axis=-1)
        indicator = self.mask.changing(changes)
        if indicator is None:
            return log_scale, shift
        indicator = over_event(indicator, changes, self.mask.event_ndims)
        return indicator * log_scale, indicator * shift

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType) -> dict[str, Any]:
        return {"context": tfp.util.ParameterProperties(event_ndims=1)}

    def _batch_and_event(self, x: tf.Tensor) -> tuple[list, list]:
        batch_ndims = x.shape.rank - self.mask.event_ndims
        shape = sizes(x)
        return shape[:batch_ndims], shape[batch_ndims:]

    def _sum(self, log_scale: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(log_scale, axis=list(range(-self.mask.event_ndims, 0)))

    def _broadcast(self, x: tf.Tensor) -> tf.Tensor:
        """Gives events the batch shape that x and the context have together."""
        if self.context is None:
            return x
        n = self.mask.event_ndims
        batch = tf.broadcast_dynamic_shape(tf.shape(x)[:-n], tf.shape(self.context)[:-1])
        static = tf.broadcast_static_shape(x.shape[:-n], self.context.shape[:-1]) + x.shape[-n:]
        x = tf.broadcast_to(x, tf.concat([batch, tf.shape(x)[-n:]], 0))
        # `tf.ensure_shape` has no forward-mode derivative inside a function.
        x.set_shape(static)
        return x


def with_context(bijector: tfb.Bijector, context: tf.Tensor | None) -> tfb.Bijector:
    """Gives every coupling in a bijector a context; the layers are shared, not copied.

    Args:
        bijector: an `AffineCoupling`, or a bijector of others, such as `FactorOut` and `tfb.Chain`.
        context: a float tensor [..., K], or None.

    Returns:
        A bijector: `bijector` itself if no coupling is in it.
    """
    if isinstance(bijector, AffineCoupling):
        return bijector.copy(context=context)
    # TFP and tfnvp give these names to the constructor's argument.
    inner = {
        name: tf.nest.map_structure(lambda b: with_context(b, context), bijector.parameters[name])
        for name in ("bijector", "bijectors")
        if bijector.parameters.get(name) is not None
    }
    return bijector.copy(**inner) if inner else bijector

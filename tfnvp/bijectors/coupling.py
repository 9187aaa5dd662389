"""The base of coupling layers: one part of an event changes by functions of the other."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.graph.internals import in_training
from tfnvp.masks import Merge, Partition
from tfnvp.shapes import at_least_one_row, over_event, sizes

tfb = tfp.bijectors


class Coupling(FlowBijector):
    """Changes one part of an event, value by value, by functions of the part that stays.

    The Jacobian is triangular, so that its log-det is the sum of the log-slopes of these functions,
    and each is undone by itself, without an inverse of the network. A subclass says which functions
    they are. Source: Real NVP (arXiv 1605.08803), sections 3.2 and 3.3.

    Args:
        mask, conditioner, context: as in `AffineCoupling`.
        parameters: the constructor's arguments, `dict(locals())`, see `FlowBijector`.

    Raises:
        TypeError: if mask is no partition, or conditioner no callable.
    """

    def __init__(
        self,
        mask: Partition,
        conditioner: Callable[..., tf.Tensor],
        context: Any,
        parameters: dict[str, Any],
    ) -> None:
        if not isinstance(mask, Partition):
            raise TypeError(
                f"mask must be a tfnvp.masks.Checkerboard or ChannelHalves, got mask={mask!r}"
            )
        if not callable(conditioner):
            raise TypeError(
                f"conditioner must be a Keras layer or a callable, got conditioner={conditioner!r}"
            )
        context = None if context is None else tf.convert_to_tensor(context)
        super().__init__(mask.event_ndims, {**parameters, "context": context})

    def _split(self, x: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor, Merge]:
        """Gives what the conditioner is given, what changes, and how to join the parts again."""
        stays, changes, merge = self.mask.split(self._broadcast(x))
        return self._inputs(stays), changes, merge

    def _checked(self, outputs: tf.Tensor, changes: tf.Tensor) -> tf.Tensor:
        """Gives what the conditioner says of what changes, in the shape and dtype of that."""
        outputs = tf.convert_to_tensor(outputs)
        self._check_size(outputs, changes.shape[-1])
        batch, event = self._batch_and_event(changes)
        if self._may_lack_rows(changes):
            outputs = outputs[: tf.reduce_prod(batch)]
        shape = [*batch, *event[:-1], outputs.shape[-1]]
        outputs = tf.cast(tf.reshape(outputs, shape), changes.dtype)
        if self.validate_args:
            outputs = tf.debugging.check_numerics(
                outputs, f"{self.name}: outputs of the conditioner are not finite"
            )
        return outputs

    def _check_size(self, outputs: tf.Tensor, channels: int) -> None:
        """Raises a ValueError where the outputs do not fit so many channels that change."""
        raise NotImplementedError(f"{type(self).__name__} must define _check_size")

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

    def _changing(self, changes: tf.Tensor) -> tf.Tensor | None:
        """Gives ones where a checkerboard lets a pixel change, else zeros; None for everywhere."""
        indicator = self.mask.changing(changes)
        if indicator is None:
            return None
        return over_event(indicator, changes, self.mask.event_ndims)

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType) -> dict[str, Any]:
        return {"context": tfp.util.ParameterProperties(event_ndims=1)}

    def _batch_and_event(self, x: tf.Tensor) -> tuple[list, list]:
        batch_ndims = x.shape.rank - self.mask.event_ndims
        shape = sizes(x)
        return shape[:batch_ndims], shape[batch_ndims:]

    def _sum(self, log_slopes: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(log_slopes, axis=list(range(-self.mask.event_ndims, 0)))

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
        bijector: a `Coupling`, or a bijector of others, such as `FactorOut` and `tfb.Chain`.
        context: a float tensor [..., K], or None.

    Returns:
        A bijector: `bijector` itself if no coupling is in it.
    """
    if isinstance(bijector, Coupling):
        return bijector.copy(context=context)
    # TFP and tfnvp give these names to the constructor's argument.
    inner = {
        name: tf.nest.map_structure(lambda b: with_context(b, context), bijector.parameters[name])
        for name in ("bijector", "bijectors")
        if bijector.parameters.get(name) is not None
    }
    return bijector.copy(**inner) if inner else bijector

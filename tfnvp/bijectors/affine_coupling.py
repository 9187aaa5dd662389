"""The affine coupling layer of Real NVP."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.graph.replicas import SharedFunction, no_constant
from tfnvp.masks import ChannelHalves, Checkerboard
from tfnvp.shapes import over_event, sizes


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
        self, mask, conditioner, context=None, validate_args=False, name="affine_coupling"
    ):
        context = None if context is None else tf.convert_to_tensor(context)
        parameters = dict(locals())
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
            self._context = context
            super().__init__(mask.event_ndims, parameters, validate_args=validate_args, name=name)

    @property
    def mask(self):
        """The partition: which part stays."""
        return self._mask

    @property
    def conditioner(self):
        """The network that maps what stays to log-scales and shifts."""
        return self._conditioner

    @property
    def context(self):
        """What the conditioner sees beside what stays, or None."""
        return self._context

    def _inverse_and_log_det(self, x):
        stays, changes, merge = self._split(self._broadcast(x))
        changed, log_det = _inverse(
            changes, self._condition(stays, changes), self._where(changes), self.mask.event_ndims
        )
        return merge(changed), log_det

    def _forward_and_log_det(self, z):
        stays, changes, merge = self._split(self._broadcast(z))
        changed, log_det = _forward(
            changes, self._condition(stays, changes), self._where(changes), self.mask.event_ndims
        )
        return merge(changed), log_det

    def _broadcast(self, x):
        """Events of the batch shape that x and the context have together."""
        if self.context is None:
            return x
        n = self.mask.event_ndims
        batch = tf.broadcast_dynamic_shape(tf.shape(x)[:-n], tf.shape(self.context)[:-1])
        static = tf.broadcast_static_shape(x.shape[:-n], self.context.shape[:-1]) + x.shape[-n:]
        return tf.ensure_shape(tf.broadcast_to(x, tf.concat([batch, tf.shape(x)[-n:]], 0)), static)

    def _split(self, x):
        """What the conditioner sees, what is scaled and shifted, and how to join them again."""
        if isinstance(self.mask, ChannelHalves):
            stays, changes = self.mask.split(x)
            return stays, changes, lambda changed: self.mask.merge(stays, changed)
        # Log-scale and shift are zero where a checkerboard's pixels stay, so that the whole image
        # can be scaled and shifted.
        return x * over_event(self.mask.stays(x), x, 3), x, lambda changed: changed

    def _condition(self, stays, changes):
        """Log-scales and then shifts on the last axis, else of the shape of `changes`."""
        batch_ndims = stays.shape.rank - self.mask.event_ndims
        batch, event = sizes(stays)[:batch_ndims], sizes(stays)[batch_ndims:]
        flat = batch_ndims == 1  # as conditioners take it
        inputs = [stays if flat else tf.reshape(stays, [-1, *event])]
        if self.context is not None:
            size = self.context.shape[-1]
            context = tf.broadcast_to(self.context, [*batch, size])
            inputs.append(context if flat else tf.reshape(context, [-1, size]))
        outputs = tf.convert_to_tensor(self.conditioner(*inputs))
        if outputs.shape[-1] != 2 * changes.shape[-1]:
            raise ValueError(
                f"conditioner must return log-scales and shifts, {2 * changes.shape[-1]} values on "
                f"its last axis, for {self.mask}; got shape {outputs.shape}"
            )
        if not flat:
            outputs = tf.reshape(outputs, [*batch, *event[:-1], outputs.shape[-1]])
        outputs = tf.cast(outputs, changes.dtype)
        if self.validate_args:
            outputs = tf.debugging.check_numerics(
                outputs, f"{self.name}: log-scales or shifts from the conditioner are not finite"
            )
        return outputs

    def _where(self, changes):
        """Ones where pixels of an event change, [H, W, C], zeros elsewhere; None: everywhere."""
        if isinstance(self.mask, ChannelHalves):
            return None
        return no_constant(over_event(1 - self.mask.stays(changes), changes, 3))


@SharedFunction
def _inverse(changes, outputs, where, event_ndims):
    """What is scaled and shifted, and the log-det."""
    event = list(range(-event_ndims, 0))

    @tf.custom_gradient
    def scaled_and_shifted(changes, outputs):
        log_scale, shift = _parts(outputs, where)
        scale = tf.exp(log_scale)
        scaled = changes * scale

        # In half of the operations that autodiff makes of it.
        def gradient(upstream, to_log_det):
            to_log_scale = upstream * scaled + tf.reshape(
                to_log_det, tf.concat([tf.shape(to_log_det), [1] * event_ndims], axis=0)
            )
            parts = [to_log_scale, upstream]
            parts = parts if where is None else [where * part for part in parts]
            return upstream * scale, tf.concat(parts, axis=-1)

        return (scaled + shift, tf.reduce_sum(log_scale, axis=event)), gradient

    return scaled_and_shifted(changes, outputs)


@SharedFunction
def _forward(changes, outputs, where, event_ndims):
    """The reverse, and its log-det."""
    log_scale, shift = _parts(outputs, where)
    log_det = -tf.reduce_sum(log_scale, axis=list(range(-event_ndims, 0)))
    return (changes - shift) * tf.exp(-log_scale), log_det


def _parts(outputs, where):
    """Log-scales and shifts, zero where nothing changes."""
    # `tf.split` takes twice as long for few channels.
    size = outputs.shape[-1] // 2
    parts = outputs[..., :size], outputs[..., size:]
    return parts if where is None else [part * where for part in parts]


def with_context(bijector, context):
    """The same map with a context for every coupling in it; its layers are shared, not copied.

    Args:
        bijector: an `AffineCoupling`, or a bijector of others, such as `FactorOut` and `tfb.Chain`.
        context: a float tensor [..., K], or None.

    Returns:
        A bijector: `bijector` itself if no coupling is in it.
    """
    if isinstance(bijector, AffineCoupling):
        return bijector.copy(context=context)
    # As TFP and tfnvp name the constructor's argument.
    inner = {
        name: tf.nest.map_structure(lambda b: with_context(b, context), bijector.parameters[name])
        for name in ("bijector", "bijectors")
        if bijector.parameters.get(name) is not None
    }
    return bijector.copy(**inner) if inner else bijector

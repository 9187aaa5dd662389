"""Value and log-det of any TFP bijector together, each network run once."""

from collections.abc import Iterator

import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors.flow_bijector import FlowBijector, held_layers
from tfnvp.graph.internals import Chain, Invert, answer_afresh
from tfnvp.shapes import sizes
from tfnvp.types import TensorLike

tfb = tfp.bijectors


def forward_and_log_det(
    bijector: tfb.Bijector, z: TensorLike, event_ndims: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps latents to data, with the log-det of the map.

    A `FlowBijector` does it in one pass, `tfb.Chain` and `tfb.Invert` part by part, and any other
    bijector by its two TFP calls. The result is of the current weights and connected to z.

    Args:
        bijector: any `tfb.Bijector` that is injective.
        z: [..., *event], or what else the bijector takes (`tfb.JointMap`, `tfb.Split`).
        event_ndims: the rank of the events, over which the log-det is summed; None for the least
            that the bijector has.

    Returns:
        x [..., *event] and log |det dx/dz|, which broadcasts to [...].

    Example:
        >>> import tensorflow_probability as tfp, tfnvp
        >>> x, log_det = tfnvp.bijectors.forward_and_log_det(tfp.bijectors.Exp(), [1.0, 2.0], 1)
        >>> float(log_det)
        3.0
    """
    return inverse_and_log_det(tfb.Invert(bijector), z, event_ndims)


def inverse_and_log_det(
    bijector: tfb.Bijector, x: TensorLike, event_ndims: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps data to latents, with the log-det of the map: `forward_and_log_det`, reversed.

    Args:
        bijector: any `tfb.Bijector` that is injective.
        x: [..., *event], or what else the bijector takes.
        event_ndims: as in `forward_and_log_det`.

    Returns:
        z [..., *event] and log |det dz/dx|, which broadcasts to [...].

    Example:
        >>> import tensorflow_probability as tfp, tfnvp
        >>> z, log_det = tfnvp.bijectors.inverse_and_log_det(tfp.bijectors.Scale(2.0), [1.0, 4.0])
        >>> z.numpy().tolist()
        [0.5, 2.0]
    """
    if not _in_line(bijector):
        x = tf.nest.map_structure(tf.identity, x)
        return bijector.inverse(x), bijector.inverse_log_det_jacobian(x, event_ndims)
    if event_ndims is None:
        event_ndims = bijector.inverse_min_event_ndims
    value = tf.convert_to_tensor(x, dtype_hint=bijector.dtype)
    log_det = tf.zeros([], value.dtype)
    for part in parts(bijector):
        if isinstance(part, FlowBijector):
            after, more = part.inverse_and_log_det(value)
        elif isinstance(part, Invert) and isinstance(part.bijector, FlowBijector):
            after, more = part.bijector.forward_and_log_det(value)
        else:
            # TFP caches by the tensor's identity: a tensor of its own is in no cache.
            value = tf.identity(value)
            after = part.inverse(value)
            more = part.inverse_log_det_jacobian(value)
        log_det += _sum_over_event(more, value, event_ndims, part.inverse_min_event_ndims)
        value, event_ndims = after, part.inverse_event_ndims(event_ndims)
    return value, log_det


def parts(bijector: tfb.Bijector, inverted: bool = False) -> Iterator[tfb.Bijector]:
    """Yields what is neither a chain nor the inverse of one, in the order of `inverse`."""
    if isinstance(bijector, Invert):
        yield from parts(bijector.bijector, not inverted)
    elif isinstance(bijector, Chain):
        # A chain lists the part next to the data first.
        for part in reversed(bijector.bijectors) if inverted else bijector.bijectors:
            yield from parts(part, inverted)
    else:
        yield tfb.Invert(bijector) if inverted else bijector


def _in_line(bijector: tfb.Bijector) -> bool:
    """Tells whether all parts map one tensor to one, unlike `tfb.Split` or `tfb.JointMap`."""
    return not any(
        tf.nest.is_nested(ndims)
        for part in parts(bijector)
        for ndims in (part.forward_min_event_ndims, part.inverse_min_event_ndims)
    )


def _sum_over_event(
    log_det: tf.Tensor, value: tf.Tensor, event_ndims: int, least: int
) -> tf.Tensor:
    """Sums log-dets of events of the least rank over the further axes of larger events."""
    further = event_ndims - least
    if not further:
        return log_det
    shape = sizes(value)[value.shape.rank - event_ndims : value.shape.rank - least]
    # A log-det may be one number for all of them.
    log_det = log_det * tf.ones(shape, log_det.dtype)
    return tf.reduce_sum(log_det, axis=list(range(-further, 0)))


# TFP's own methods answer afresh, too, for every bijector in which a flow is.


def _holds_flow(bijector: tfb.Bijector) -> bool:
    modules = (bijector, *bijector.submodules)
    return any(isinstance(module, FlowBijector) or held_layers(module) for module in modules)


def _log_det(
    chain: tfb.Bijector, argument: tf.Tensor, event_ndims: int, inverse: bool
) -> tf.Tensor:
    if inverse:
        return inverse_and_log_det(chain, argument, event_ndims)[1]
    for module in chain.submodules:
        if isinstance(module, FlowBijector):
            module.check_forward_log_det()
    return forward_and_log_det(chain, argument, event_ndims)[1]


answer_afresh(where=_holds_flow, in_line=_in_line, log_det=_log_det)

"""The parts of a flow, as lines of text: scales, couplings, parameters and shapes."""

from collections.abc import Iterator

import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors import FactorOut
from tfnvp.bijectors.coupling import Coupling
from tfnvp.bijectors.flow_bijector import held_layers
from tfnvp.bijectors.one_pass import parts
from tfnvp.graph.internals import Invert

tfb, tfd = tfp.bijectors, tfp.distributions


def describe(flow: tfd.TransformedDistribution) -> list[str]:
    """Lists the bijectors of a flow in the order in which data meets them.

    Args:
        flow: of a known event shape.

    Returns:
        A line that counts scales, couplings and parameters, and for each bijector one with its
        scale, the shape of the events that it is given, and the number of its parameters.
    """
    rows = list(_rows(flow.bijector, flow.event_shape, 1))
    scales = max(scale for scale, *_ in rows)
    couplings = sum(isinstance(part, Coupling) for _, part, *_ in rows)
    count = sum(v.shape.num_elements() for v in flow.trainable_variables)
    lines = [
        f"events {flow.event_shape.as_list()}: {scales} scale{'s' * (scales > 1)}, "
        f"{couplings} couplings, {count:,} trainable parameters"
    ]
    for scale, part, shape, parameters in rows:
        lines.append(f"scale {scale}  {shape.as_list()!s:<16} {_name(part):<38} {parameters:>10,}")
    return lines


def _rows(
    bijector: tfb.Bijector, shape: tf.TensorShape, scale: int
) -> Iterator[tuple[int, tfb.Bijector, tf.TensorShape, int]]:
    for part in parts(bijector):
        within = part.bijector if isinstance(part, Invert) else part
        weights = [w for layer in held_layers(within) for w in layer.weights]
        yield scale, part, shape, sum(weight.shape.num_elements() for weight in weights)
        if isinstance(within, FactorOut):
            height, width, channels = shape
            halved = tf.TensorShape([height // 2, width // 2, 2 * channels])
            yield from _rows(within.bijector, halved, scale + 1)
        shape = part.inverse_event_shape(shape)


def _name(part: tfb.Bijector) -> str:
    if isinstance(part, Invert):
        return f"Invert({_name(part.bijector)})"
    mask = getattr(part, "mask", None)
    return type(part).__name__ + (f" {type(mask).__name__}({mask.parity})" if mask else "")

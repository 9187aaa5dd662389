"""The variables of an export: the model's own, or what stands for them there."""

import collections
import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfnvp.graph.held_kernels import directions_hold_kernels
from tfnvp.graph.internals import with_inner_layers
from tfnvp.layers import InvertibleMatrix, NearestRow, SplineWeights, WeightNormConv2D
from tfnvp.models import FlowModel


class StoredWeights:
    """The variables that an export stores of a model, and reads in place of the model's.

    Directions of weight-normalised convolutions give way to the kernels that come of them.

    Args:
        model: whose weights they are.
        bfloat16: whether kernels are stored in bfloat16; arithmetic stays the same.

    Attributes:
        variables: the `tf.Variable`s to store.
    """

    def __init__(self, model: FlowModel, bfloat16: bool) -> None:
        # The weights of the flow itself are few, and all data goes through their rounding.
        own = (InvertibleMatrix, SplineWeights)
        layers = [layer for layer in model.layers if isinstance(layer, own)]
        exact = {id(weight) for layer in layers for weight in layer.weights}
        # Rows of the training are nobody's business on a server, and no signature uses them.
        rows = [layer for layer in model.layers if isinstance(layer, NearestRow)]
        kept = {id(weight) for layer in rows for weight in layer.weights}
        weights = [weight for weight in model.weights if id(weight) not in kept]
        self._holders = _holders_of_kernels(model)
        kernels = {
            id(layer.direction): tf.reshape(layer.kernel(), layer.direction.shape)
            for layer in self._holders
        }
        self._stored = []
        for weight in weights:
            matrix = len(weight.shape) > 1 and weight.dtype.startswith("float")
            lower = bfloat16 and matrix and id(weight) not in exact
            if lower or id(weight) in kernels:
                value = kernels.get(id(weight), weight)
                value = tf.cast(value, tf.bfloat16 if lower else weight.dtype)
                self._stored.append((weight, tf.Variable(value, trainable=False)))
        stored = {id(weight): variable for weight, variable in self._stored}
        held = [stored.get(id(weight), weight.value) for weight in weights]
        known = {id(weight.value) for weight in model.weights}
        # A bijector or a base may have variables besides, which no layer holds and none trains.
        self.variables = [*held, *(v for v in model.flow.variables if id(v) not in known)]

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Within this context the model reads what is stored: kernels where directions were."""
        values = [(weight, tf.cast(value, weight.dtype)) for weight, value in self._stored]
        with keras.StatelessScope(values), directions_hold_kernels(self._holders):
            yield


def _holders_of_kernels(model: FlowModel) -> list[WeightNormConv2D]:
    """Lists the convolutions of a model whose kernels an export can hold in their directions."""
    inner = [layer for layer in with_inner_layers(model) if isinstance(layer, WeightNormConv2D)]
    inner = [layer for layer in inner if layer.built]
    # A direction that two layers share cannot be the kernels of both.
    owners = collections.Counter(id(layer.direction) for layer in inner)

    def makes_it_as_ever(layer: WeightNormConv2D) -> bool:
        # Subclasses, and attributes of a layer, may make the kernel in another way.
        return type(layer) is WeightNormConv2D and "kernel" not in vars(layer)

    return [
        layer for layer in inner if makes_it_as_ever(layer) and owners[id(layer.direction)] == 1
    ]

"""The variables of an export: the model's own, or what stands for them there."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfnvp.graph.internals import with_inner_layers
from tfnvp.layers import InvertibleMatrix, NearestRow, SplineWeights, WeightNormConv2D
from tfnvp.layers.weight_norm_conv2d import folded_kernels
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
        inner = [layer for layer in with_inner_layers(model) if isinstance(layer, WeightNormConv2D)]
        kernels = {
            id(layer.direction): tf.reshape(layer.kernel(), layer.direction.shape)
            for layer in inner
            if layer.folds
        }
        lower = {
            id(weight)
            for weight in (weights if bfloat16 else ())
            if len(weight.shape) > 1 and weight.dtype.startswith("float")
            if id(weight) not in exact
        }

        def held_in_place_of(weight: keras.Variable) -> tf.Variable:
            value = kernels.get(id(weight), weight)
            dtype = tf.bfloat16 if id(weight) in lower else weight.dtype
            return tf.Variable(tf.cast(value, dtype), trainable=False)

        self._stored = [
            (weight, held_in_place_of(weight))
            for weight in weights
            if id(weight) in kernels or id(weight) in lower
        ]
        stored = {id(weight): variable for weight, variable in self._stored}
        held = [stored.get(id(weight), weight.value) for weight in weights]
        known = {id(weight.value) for weight in model.weights}
        # A bijector or a base may have variables besides, which no layer holds and none trains.
        self.variables = [*held, *(v for v in model.flow.variables if id(v) not in known)]

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Within this context the model's weights are read from where they are stored."""
        values = [(weight, tf.cast(value, weight.dtype)) for weight, value in self._stored]
        with keras.StatelessScope(values), folded_kernels():
            yield

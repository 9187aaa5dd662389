"""The variables of an export: a model's own, or copies of its kernels at half the size."""

import contextlib

import keras
import tensorflow as tf

from tfnvp.layers import InvertibleMatrix, NearestRow, SplineWeights
from tfnvp.models import FlowModel


class StoredWeights:
    """The variables that an export stores of a model, and reads in place of the model's.

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
        self._stored = [
            (weight, tf.Variable(tf.cast(weight, tf.bfloat16), trainable=False))
            for weight in (weights if bfloat16 else ())
            if len(weight.shape) > 1 and weight.dtype.startswith("float")
            if id(weight) not in exact
        ]
        stored = {id(weight): variable for weight, variable in self._stored}
        held = [stored.get(id(weight), weight.value) for weight in weights]
        known = {id(weight.value) for weight in model.weights}
        # A bijector or a base may have variables besides, which no layer holds and none trains.
        self.variables = [*held, *(v for v in model.flow.variables if id(v) not in known)]

    def read(self) -> contextlib.AbstractContextManager:
        """Within this context the model's weights are read from where they are stored."""
        values = [(weight, tf.cast(value, weight.dtype)) for weight, value in self._stored]
        return keras.StatelessScope(values) if values else contextlib.nullcontext()

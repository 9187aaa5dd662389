"""Layers computed as functions of input and weights: traced once, rematerialised on demand."""

import json
import threading

import keras
import tensorflow as tf

from tfnvp.replicas import current_rows_counting, rows_counting, several


class PureLayer(keras.layers.Layer):
    """A layer whose computation many layers of the same configuration share.

    A model has tens of conditioners of a few sizes. Inside a graph each is a call of a function of
    its input and its weights, of which TensorFlow traces, differentiates and optimises one for all
    that are configured alike.

    Because the function is pure, it can be rematerialised: with `remat`, training keeps the input
    alone and computes all else again for the gradient. Averages over batches are returned by the
    function and assigned once, outside it.

    A subclass defines `compute` in place of `call`, and uses no variable but its own and its
    sublayers'.

    Args:
        remat: whether to rematerialise, at about a third more time a training step.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, remat=False, **kwargs):
        super().__init__(**kwargs)
        self.remat = remat

    def compute(self, x, context=None, training=False):
        """What the layer computes of x and, if it is given one, a context: a tensor."""
        raise NotImplementedError(f"{type(self).__name__} must define compute")

    def call(self, x, context=None, training=None):
        training = bool(training)
        inputs = [x] if context is None else [x, context]
        if tf.executing_eagerly():
            return self.compute(*inputs, training=training)
        if several() is None:
            function = _shared_function(self, training)
        elif self.remat and training:
            function = _pure_function(remat=True, training=True)
        else:
            # Replicas may meet in the middle, where a function cannot be left.
            return self.compute(*inputs, training=training)
        weights = [tf.convert_to_tensor(variable) for variable in self.variables]
        with _running(self):
            outputs, updates = function(inputs, weights)
        for i, update in updates.items():
            self.variables[int(i)].assign(update)
        return outputs

    def get_config(self):
        return {**super().get_config(), "remat": self.remat}


_functions = {}
_local = threading.local()


class _running:
    """Within this context the layer is the one that is traced, if any is."""

    def __init__(self, layer):
        self.layer = layer

    def __enter__(self):
        self.before = getattr(_local, "layer", None)
        _local.layer = self.layer

    def __exit__(self, *_):
        _local.layer = self.before


def _shared_function(layer, training):
    """The function of all layers that are configured like this one."""
    config = {name: value for name, value in layer.get_config().items() if name != "name"}
    # Policies are changed for a while by `full_precision`.
    config = json.dumps(config, default=str), layer.dtype_policy.name
    key = type(layer), *config, training
    if key not in _functions:
        _functions[key] = tf.function(
            _pure_function(layer.remat and training, training),
            autograph=False,
            # Inlined it would be optimised once for each layer.
            experimental_attributes={"_noinline": True},
        )
    return _functions[key]


def _pure_function(remat, training):
    """Inputs and weights -> outputs, and by index the new values of weights that were assigned."""

    def pure(inputs, weights):
        # Not in the closure: a function outlives the layer that it was traced with.
        layer = _local.layer
        with keras.StatelessScope(list(zip(layer.variables, weights, strict=True))) as scope:
            before = [scope.get_current_value(variable) for variable in layer.variables]
            outputs = layer.compute(*inputs, training=training)
        after = [scope.get_current_value(variable) for variable in layer.variables]
        updates = {str(i): tf.stop_gradient(v) for i, v in enumerate(after) if v is not before[i]}
        return outputs, updates

    if not remat:
        return pure

    def rematerialised(inputs, weights):
        layer, counting = _local.layer, current_rows_counting()

        # Called twice, the second time when the gradient is.
        def again(*tensors):
            with _running(layer), rows_counting(counting):
                return pure(tensors[: len(inputs)], tensors[len(inputs) :])

        return tf.recompute_grad(again)(*inputs, *weights)

    return rematerialised

"""Layers computed as functions of input and weights: traced once, rematerialised on demand."""

import json
import threading

import keras
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.graph.internals import with_inner_layers
from tfnvp.layers.running_moments import RunningMoments


class PureLayer(keras.layers.Layer):
    """A layer whose computation many layers of the same configuration share.

    A model has tens of conditioners of a few sizes. Inside a graph each is a call of a function of
    its input and its weights, of which TensorFlow traces, differentiates and optimises one for all
    that are configured alike.

    Because the function is pure, it can be rematerialised: with `remat`, training keeps the input
    alone and computes all else again for the gradient. Averages over batches are returned by the
    function and assigned once, outside it.

    A subclass defines `compute` in place of `call`, and uses no variable but its own and its
    sublayers'. Tensors in which layers that are else alike differ, it may leave to `constants`.

    Args:
        remat: whether to rematerialise, at about a third more time a training step.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, remat=False, **kwargs):
        super().__init__(**kwargs)
        self.remat = remat

    def compute(self, x, context=None, training=False, **constants):
        """What the layer computes of x and, if it is given one, a context: a tensor."""
        raise NotImplementedError(f"{type(self).__name__} must define compute")

    def constants(self, x):
        """Further tensors for `compute`, by name."""
        return {}

    def shared_config(self):
        """What layers that share their computation have in common."""
        return {name: value for name, value in self.get_config().items() if name != "name"}

    def call(self, x, context=None, training=None):
        training = bool(training)
        inputs = {"x": x} if context is None else {"x": x, "context": context}
        inputs |= self.constants(x)
        if tf.executing_eagerly():
            return self.compute(**inputs, training=training)
        weights = [tf.convert_to_tensor(variable) for variable in self.variables]
        with _running(self):
            outputs, updates = _shared_function(self, training)(inputs, weights)
        if updates is not None:
            averages = self.averages
            updates = tf.split(updates, [variable.shape[0] for variable in averages])
            for variable, update in zip(averages, updates, strict=True):
                replicas.assign(variable, update)
        return outputs

    @property
    def averages(self):
        """The variables that training assigns: vectors of one dtype."""
        moments = [m for m in with_inner_layers(self) if isinstance(m, RunningMoments)]
        return [layer.averages for layer in moments]

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
    # Policies are changed for a while by `full_precision`.
    config = json.dumps(layer.shared_config(), default=str), layer.dtype_policy.name
    key = type(layer), *config, training
    if key not in _functions:
        function = _pure_function(layer.remat and training, training)
        _functions[key] = replicas.SharedFunction(function)
    return _functions[key]


def _pure_function(remat, training):
    """Inputs and weights -> outputs and, in training, all new values of averages in a row."""

    def pure(inputs, weights):
        # Not in the closure: a function outlives the layer that it was traced with.
        layer = _local.layer
        with keras.StatelessScope(list(zip(layer.variables, weights, strict=True))) as scope:
            outputs = layer.compute(**inputs, training=training)
        if not training or not layer.averages:
            return outputs, None
        # In a row: of each by itself the gradient would be a tensor of zeros.
        updates = [scope.get_current_value(variable) for variable in layer.averages]
        return outputs, tf.stop_gradient(tf.concat(updates, axis=0))

    if not remat:
        return pure

    def rematerialised(inputs, weights):
        layer, replica = _local.layer, replicas.remembered()

        # Called twice, the second time when the gradient is.
        def again(*tensors):
            with _running(layer), replica():
                given = dict(zip(inputs, tensors, strict=False))
                return pure(given, tensors[len(inputs) :])

        return tf.recompute_grad(again)(*inputs.values(), *weights)

    return rematerialised

"""Layers computed as functions of input and weights, traced once for all that are alike."""

import json
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfnvp.configured_layer import ConfiguredLayer
from tfnvp.graph import replicas
from tfnvp.graph.internals import kind, with_inner_layers


class Traces:
    """The functions that the like layers of one model share.

    The model makes one and hands it to its layers; it lives and dies with them.

    Attributes:
        functions: keyed by type, configuration, weights and mode.
        layers: under the same key, the layer that the function is traced from.
    """

    def __init__(self) -> None:
        self.functions: dict[tuple, Callable] = {}
        self.layers: dict[tuple, PureLayer] = {}


class PureLayer(ConfiguredLayer):
    """A layer whose computation the like layers of a model share.

    A model has tens of conditioners of a few sizes. Inside a graph each is a call of a function of
    its input and its weights; TensorFlow traces, differentiates and optimises one for all layers
    that are configured alike. docs/performance.md tells what that saves.

    Because the function is pure, it can be rematerialised: with `remat`, training keeps the input
    alone and computes all else again for the gradient. Averages over batches are returned by the
    function and assigned once, outside it.

    A subclass defines `compute` in place of `call`, and uses no variable but its own and its
    sublayers'. Its `constants` may return tensors in which otherwise alike layers differ.

    Args:
        remat: whether to rematerialise, at about a third more time a training step.
        traces: what the layer shares with others; None shares with none.
        **kwargs: further arguments of `keras.layers.Layer`.
    """

    def __init__(self, remat: bool = False, traces: Traces | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.remat = remat
        self._traces = Traces() if traces is None else traces

    def compute(
        self,
        x: tf.Tensor,
        context: tf.Tensor | None = None,
        training: bool = False,
        **constants: tf.Tensor,
    ) -> tf.Tensor:
        """Computes the output from x and, if the layer is given one, a context."""
        raise NotImplementedError(f"{type(self).__name__} must define compute")

    def constants(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives further tensors for `compute`, by name."""
        return {}

    def shared_config(self) -> dict[str, Any]:
        """Gives the configuration that layers which share their computation have in common."""
        return {name: value for name, value in self.get_config().items() if name != "name"}

    def call(
        self, x: tf.Tensor, context: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        training = bool(training)
        inputs = {"x": x} if context is None else {"x": x, "context": context}
        inputs |= self.constants(x)
        # Replicas that run a step each for itself meet in training, which a function cannot leave.
        if tf.executing_eagerly() or (training and not replicas.may_meet_in_functions()):
            return self.compute(**inputs, training=training)
        weights = [tf.convert_to_tensor(variable) for variable in self.variables]
        # Inference has no use for rows' weights, and does not meet other replicas.
        passed = replicas.passed_on() if training else {}
        outputs, updates = self._function(training)(passed, inputs, weights)
        if updates is not None:
            averages = self.averages
            updates = tf.split(updates, [variable.shape[0] for variable in averages])
            for variable, update in zip(averages, updates, strict=True):
                variable.assign(update)
        return outputs

    def _function(self, training: bool) -> Callable:
        """Gives the function of all layers of the model that are configured like this one."""
        config = json.dumps(self.shared_config(), default=str)
        # `full_precision` changes policies for a while, and an export what directions hold; LoRA
        # brings variables for good.
        key = type(self), config, kind(self), training
        functions = self._traces.functions
        # The layer that it was first traced from may have changed since.
        self._traces.layers[key] = self
        if key not in functions:
            # Inference is inlined when it runs: converters want graphs without such calls.
            attributes = {"_noinline": True} if training else None
            functions[key] = tf.function(
                self._pure_function(key), autograph=False, experimental_attributes=attributes
            )
        return functions[key]

    def _pure_function(self, key: tuple) -> Callable:
        """Maps inputs and weights to outputs and, in training, all new averages in a row."""
        traces, training = self._traces, key[-1]

        def pure(passed: dict | replicas.Replica, inputs: dict, weights: list) -> tuple:
            layer = traces.layers[key]
            values = list(zip(layer.variables, weights, strict=True))
            replica = replicas.received(passed)
            with replicas.within(replica), keras.StatelessScope(values) as scope:
                outputs = layer.compute(**inputs, training=training)
            if not training or not layer.averages:
                return outputs, None
            # They are concatenated, so that autodiff builds one zero gradient for all of them.
            updates = [scope.get_current_value(variable) for variable in layer.averages]
            return outputs, tf.stop_gradient(tf.concat(updates, axis=0))

        def rematerialised(passed: dict, inputs: dict, weights: list) -> tuple:
            replica = replicas.received(passed)

            # TensorFlow calls it twice, the second time when the gradient is asked for.
            def again(*tensors: tf.Tensor) -> tuple:
                given = dict(zip(inputs, tensors, strict=False))
                return pure(replica, given, list(tensors[len(inputs) :]))

            return tf.recompute_grad(again)(*inputs.values(), *weights)

        return rematerialised if self.remat and training else pure

    @property
    def averages(self) -> list[keras.Variable]:
        """The variables that training assigns: vectors of one dtype."""
        inner = [layer for layer in with_inner_layers(self) if layer is not self]
        return [layer.averages for layer in inner if hasattr(layer, "averages")]

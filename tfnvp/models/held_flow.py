"""A Keras model that holds a flow: its layers are the model's own, and it is saved whole."""

import os
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp import atomic_file
from tfnvp.bijectors.flow_bijector import keras_layers, tie_keras_layers
from tfnvp.distribution import FlowDistribution
from tfnvp.graph.functions import CompiledFunctions
from tfnvp.graph.internals import with_inner_layers
from tfnvp.models.condition import Condition
from tfnvp.models.description import describe
from tfnvp.models.training_steps import TrainingSteps

tfd = tfp.distributions


class HeldFlow(TrainingSteps):
    """A Keras model whose layers are those that a TFP distribution's bijectors hold.

    `tfnvp.FlowModel` documents the arguments.
    """

    def __init__(
        self,
        distribution: tfd.TransformedDistribution | None = None,
        num_classes: int | None = None,
        context_size: int | None = None,
        label_dropout: float = 0.0,
        conditional_base: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.condition = Condition(
            num_classes, context_size, label_dropout, conditional_base, self.variable_dtype
        )
        self.num_classes, self.context_size = num_classes, context_size
        self._flow = self._event_shape = self._functions = None
        if distribution is not None:
            self._adopt(distribution)
            self.build()

    def build_distribution(self) -> tfd.TransformedDistribution:
        """Makes the distribution; for subclasses to define."""
        raise NotImplementedError(
            f"{type(self).__name__} needs a distribution: pass one, or define build_distribution()"
        )

    def build(self, input_shape: tuple | None = None) -> None:
        if self._flow is None:
            # A model may be asked for the first time by a step that is being traced.
            with tf.init_scope():
                self._adopt(self.build_distribution())
        self.built = True

    @property
    def flow(self) -> FlowDistribution:
        """The distribution whose couplings have no context yet: shapes, dtype and layers."""
        # Keras' wrapper of `build` takes a while, and a score of few rows hardly longer.
        if self._flow is None:
            self.build()
        return self._flow

    def _adopt(self, distribution: tfd.TransformedDistribution) -> None:
        """Takes the distribution's Keras layers as the model's own."""
        # TFP returns a private base class where a bijector is no composite tensor.
        if not (hasattr(distribution, "bijector") and hasattr(distribution, "distribution")):
            raise TypeError(
                "distribution must be a tfp.distributions.TransformedDistribution, got "
                f"distribution={distribution!r}"
            )
        if not distribution.event_shape.is_fully_defined():
            raise ValueError(
                "distribution must have a fully defined event shape, got event_shape="
                f"{distribution.event_shape}"
            )
        self._hand_over_layers(distribution)
        flow = FlowDistribution(
            distribution.distribution, distribution.bijector, name=distribution.name
        )
        self.condition.build(flow.distribution)
        layers = keras_layers(flow)
        if not layers:
            raise ValueError(
                "distribution must have a bijector that holds a keras.Layer as an attribute: a "
                f"network hidden in a function cannot be found, got distribution={distribution!r}"
            )
        if not all(layer.built for layer in layers):
            labels = None
            if self.condition.encoding is not None:
                spec = self.condition.label_spec(1)
                labels = tf.zeros(spec.shape, spec.dtype)
            zeros = tf.zeros([1, *flow.event_shape], flow.dtype)
            self.condition.applied(flow, labels).log_prob(zeros)
        for module in (flow, *flow.submodules):
            tie_keras_layers(module)
        held = {id(v.value) for layer in layers for v in layer.variables}
        if loose := [v.name for v in flow.trainable_variables if id(v) not in held]:
            raise ValueError(
                "distribution must hold its trainable variables in keras.Layers, for Keras trains "
                f"no others, got tf.Variable {', '.join(loose)}"
            )
        # Keras finds the layers in these attributes.
        self._flow_layers = layers
        self.label_encoding, self.base_mean = self.condition.encoding, self.condition.base_mean
        self._functions = CompiledFunctions(layers)
        # It is kept since TFP asks every bijector, which takes milliseconds for a deep flow.
        self._event_shape = flow.event_shape
        self._flow = flow
        if not self.trainable:
            # Keras passes it on to the layers that were there when it was set.
            for layer in self.layers:
                layer.trainable = False

    def _hand_over_layers(self, flow: tfd.TransformedDistribution) -> None:
        """Lets the base distribution hold the model's own layers of whose variables it is made.

        Raises:
            ValueError: for what was made of a `keras.Variable`, of which TFP takes the value alone.
        """
        for module in (flow, *flow.submodules):
            for name, value in (getattr(module, "parameters", None) or {}).items():
                if isinstance(value, keras.Variable):
                    raise ValueError(
                        f"{name} of {module.name} must not be a keras.Variable, of which TFP takes "
                        f"the value of this moment: pass the tf.Variable in it, {value.name}.value"
                    )
        used = {id(variable) for variable in flow.variables}
        found = set(map(id, keras_layers(flow)))
        own = [
            layer
            for layer in self.layers
            if id(layer) not in found and used & {id(v.value) for v in layer.variables}
        ]
        if own:
            flow.distribution._layers_of_model = own

    def can_share_step(self, variables: list[keras.Variable]) -> bool:
        """Tells whether replicas can share the step, which needs all variables to be layers'."""
        if not super().can_share_step(variables):
            return False
        known = {id(variable.value) for variable in variables}
        return all(id(variable) in known for variable in self.flow.variables)

    def quantize(self, mode: Any = None, *args: Any, **kwargs: Any) -> None:
        """Refuses to round the conditioners.

        Raises:
            ValueError: always. Where a coupling's input differs by rounding, between `encode` and
                `decode`, a quantized conditioner's output differs by a step.
        """
        raise ValueError(
            "quantize is refused: encode and decode of quantized conditioners are not inverse, got "
            f"mode={mode!r}; for less memory make the model with dtype='mixed_bfloat16'"
        )

    def get_build_config(self) -> dict[str, Any]:
        """Gives what `build_from_config` is given when a saved model is loaded."""
        return {"event_shape": self.event_shape.as_list()}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds the model; the configuration is only looked at by people."""
        self.build()

    def get_config(self) -> dict[str, Any]:
        if type(self).build_distribution is HeldFlow.build_distribution:
            raise ValueError(
                "a FlowModel made from a distribution cannot be saved whole, since TFP objects are "
                "not Keras-serialisable: subclass it with build_distribution() and get_config(), "
                "or use save_weights()"
            )
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": self.dtype_policy.name,
            **self.condition.get_config(),
        }

    def save(self, filepath: str | os.PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Saves the model whole, as `keras.Model.save`; a file is written whole or not at all.

        Raises:
            ValueError: for a model made from a distribution or with quantized layers, before any
                file is touched.
        """
        self.get_config()
        layers = [inner for layer in self._flow_layers for inner in with_inner_layers(layer)]
        if quantized := [layer.name for layer in layers if layer.quantization_mode]:
            raise ValueError(
                "a model of quantized layers cannot be saved, for it could not be loaded; got "
                f"layer {quantized[0]!r}"
            )
        if Path(filepath).suffix != ".keras" or not overwrite:
            super().save(filepath, overwrite, **kwargs)
            return
        with atomic_file.writing(filepath) as written:
            super().save(written, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Exports the model's call, log p(x), as `keras.Model.export`, also before a first call.

        `tfnvp.export_saved_model` exports what a server needs.
        """
        if kwargs.get("input_signature") is None:
            inputs = [tf.TensorSpec([None, *self.event_shape], self.flow.dtype)]
            if self.condition.encoding is not None:
                inputs.append(self.condition.label_spec(None))
            kwargs["input_signature"] = inputs
        return super().export(*args, **kwargs)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """Prints scales, couplings, shapes and parameters, and then what Keras prints."""
        lines = describe(self.flow)
        print_fn = kwargs.get("print_fn", args[2] if len(args) > 2 else None)
        (print_fn or print)("\n".join(lines))
        super().summary(*args, **kwargs)

    @property
    def event_shape(self) -> tf.TensorShape:
        """Shape of an event."""
        if self._event_shape is None:
            self.build()
        return self._event_shape

    @property
    def event_size(self) -> int:
        """Dimensions of an event."""
        return self.event_shape.num_elements()

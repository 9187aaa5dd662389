"""The base of every bijector here: one pass a direction, with parameters in Keras layers."""

import collections.abc
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.graph.internals import BOOKS, ListedToConverters, own_variables
from tfnvp.types import TensorLike

tfb = tfp.bijectors


class FlowBijector(tfb.Bijector):
    """A bijector whose value and log-det come from one evaluation, with parameters in Keras layers.

    A subclass writes one method a direction, each returning the value and the log-det together::

        def _forward_and_log_det(self, z): ...    # latents -> data, log |det dx/dz|
        def _inverse_and_log_det(self, x): ...    # data -> latents, log |det dz/dx|

    The log-det is summed over the event, and broadcasts with the batch: a scalar will do where it
    is the same for every row. TFP's four methods (`forward`, `inverse` and their log-dets) follow
    from these two. Each of them runs the network anew, with the weights of that moment and
    connected to its argument: TFP's bijector cache is neither asked nor filled, nor is that of a
    `tfb.Chain` or any other bijector that holds this one. `tfnvp.FlowDistribution` asks for value
    and log-det together, and so runs each network once.

    Keras layers held as attributes are tied to TFP: their variables show up in `variables` of the
    bijector and of every distribution over it, and those that are not frozen in
    `trainable_variables`.
    Whether a layer trains or infers is decided by Keras' call context, never by a bijector's
    keyword argument: `model(x, training=True)` reaches the layers, `dist.log_prob(x)` infers.

    Args:
        event_ndims: the rank of the events, the same on both sides.
        parameters: the constructor's arguments, `dict(locals())`: each becomes an attribute, and
            `validate_args` and `name` among them are those of `tfb.Bijector`.
        **kwargs: further arguments of `tfb.Bijector`.
    """

    #: Whether latents of any data, however large, are near 0, so that nothing after it overflows.
    tames_data = False

    def __init__(self, event_ndims: int, parameters: dict[str, Any], **kwargs: Any) -> None:
        parameters = {k: v for k, v in parameters.items() if k not in ("self", "__class__")}
        of_tfp = {k: parameters[k] for k in ("validate_args", "name") if k in parameters}
        for name in parameters.keys() - of_tfp.keys():
            setattr(self, name, parameters[name])
        super().__init__(
            forward_min_event_ndims=event_ndims,
            inverse_min_event_ndims=event_ndims,
            parameters=parameters,
            **{**of_tfp, **kwargs},
        )
        tie_keras_layers(self)

    def forward_and_log_det(self, z: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps latents to data.

        Args:
            z: [..., *event], of which the last `forward_min_event_ndims` axes are an event.

        Returns:
            x [..., *event] and log |det dx/dz|, a tensor that broadcasts to [...].
        """
        self._tie()
        with tf.name_scope(self.name):
            return self._forward_and_log_det(tf.convert_to_tensor(z, dtype_hint=self.dtype))

    def inverse_and_log_det(self, x: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps data to latents.

        Args:
            x: [..., *event], of which the last `inverse_min_event_ndims` axes are an event.

        Returns:
            z [..., *event] and log |det dz/dx|, a tensor that broadcasts to [...].
        """
        self._tie()
        with tf.name_scope(self.name):
            return self._inverse_and_log_det(tf.convert_to_tensor(x, dtype_hint=self.dtype))

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must define _forward_and_log_det")

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must define _inverse_and_log_det")

    def _tie(self) -> None:
        """Refreshes which variables are trainable, before a tape sees them read."""
        len(getattr(self, "_KERAS_VARIABLES", ()))

    def check_forward_log_det(self) -> None:
        """Raises a ValueError where the log-det of `forward` would not be that of `inverse`.

        A plain `tfd.TransformedDistribution` takes one for the other.
        """

    # TFP calls these four, which follow from the two above.

    def _forward(self, z: tf.Tensor) -> tf.Tensor:
        return self.forward_and_log_det(z)[0]

    def _inverse(self, x: tf.Tensor) -> tf.Tensor:
        return self.inverse_and_log_det(x)[0]

    def _forward_log_det_jacobian(self, z: tf.Tensor) -> tf.Tensor:
        self.check_forward_log_det()
        return self.forward_and_log_det(z)[1]

    def _inverse_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        return self.inverse_and_log_det(x)[1]

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType) -> dict[str, Any]:
        # Parameters live in Keras layers, which have no batch shape; contexts have one.
        return {}


def keras_layers(module: tf.Module) -> list[keras.Layer]:
    """Lists the Keras layers that a TFP object and all within it hold, in a stable order.

    Args:
        module: a bijector or distribution (`tf.Module`).

    Returns:
        The outermost layers found as attributes, or inside lists, tuples and dictionaries that are
        attributes; each once.
    """
    found = {}
    for owner in (module, *module.submodules):
        found |= {id(layer): layer for layer in held_layers(owner)}
    return list(found.values())


def tie_keras_layers(module: tf.Module) -> None:
    """Makes the variables of the Keras layers that `module` holds visible to `tf.Module`.

    `FlowBijector` does it for itself, and `FlowModel` for TFP objects of other makes. The tie is
    live: layers that are built, frozen or given other variables (LoRA) later are seen as they are.

    Args:
        module: a bijector or distribution; what it contains is not visited.
    """
    if held_layers(module):
        # By its name `tf.Module` looks there first, before what it may find frozen elsewhere.
        module._KERAS_VARIABLES = LiveVariables(module)


class LiveVariables(ListedToConverters, collections.abc.Sequence):
    """The `tf.Variable`s of the Keras layers that a TFP object holds, at each look those of then.

    Keras does not tell a `tf.Variable` that it was frozen, and `tf.Module` and gradient tapes ask
    the variable alone: each look makes them as trainable as the layers say.

    Args:
        module: the bijector or distribution.
    """

    def __init__(self, module: tf.Module) -> None:
        self._module = module

    def __getitem__(self, index: int | slice) -> Any:
        return self._now()[index]

    def __len__(self) -> int:
        return len(self._now())

    def __iter__(self) -> Iterator[tf.Variable]:
        return iter(self._now())

    def _now(self) -> list[tf.Variable]:
        return [v for layer in held_layers(self._module) for v in own_variables(layer)]


def held_layers(module: tf.Module) -> list[keras.Layer]:
    """Lists the Keras layers that are attributes of a TFP object itself."""
    values = [
        value
        for name, value in sorted(vars(module).items())
        if not name.startswith((*BOOKS, "_KERAS_VARIABLES"))
    ]
    layers = [leaf for leaf in tf.nest.flatten(values) if isinstance(leaf, keras.Layer)]
    return list({id(layer): layer for layer in layers}.values())

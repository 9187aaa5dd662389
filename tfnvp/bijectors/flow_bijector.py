"""The base of every bijector here: one pass a direction, and the tie between TFP and Keras."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

tfb = tfp.bijectors


class FlowBijector(tfb.Bijector):
    """A bijector whose value and log-det come from one evaluation, with parameters in Keras layers.

    A subclass writes one method a direction, each returning the value and the log-det together::

        def _forward_and_log_det(self, z): ...    # latents -> data, log |det dx/dz|
        def _inverse_and_log_det(self, x): ...    # data -> latents, log |det dz/dx|

    The log-det is left in TFP's bijector cache, where `log_prob` and
    `experimental_sample_and_log_prob` look for it, so that a network runs once in each of them.

    Keras layers held as attributes are tied to TFP as soon as they are built: their variables show
    up in `trainable_variables` and `variables` of the bijector and of every distribution over it.
    Whether a layer trains or infers is decided by Keras' call context, never by a bijector's
    keyword argument: `model(x, training=True)` reaches the layers, `dist.log_prob(x)` infers.

    Args:
        event_ndims: the rank of the events, the same on both sides.
        parameters: the constructor's arguments, `dict(locals())`, for `copy`.
        validate_args: whether to check the values at run time.
        name: of the bijector and the scope of its operations.
        **kwargs: further arguments of `tfb.Bijector`.
    """

    def __init__(self, event_ndims, parameters, validate_args=False, name=None, **kwargs):
        super().__init__(
            forward_min_event_ndims=event_ndims,
            inverse_min_event_ndims=event_ndims,
            parameters=parameters,
            validate_args=validate_args,
            name=name,
            **kwargs,
        )
        tie_keras_layers(self)

    def _forward_and_log_det(self, z):
        raise NotImplementedError(f"{type(self).__name__} must define _forward_and_log_det")

    def _inverse_and_log_det(self, x):
        raise NotImplementedError(f"{type(self).__name__} must define _inverse_and_log_det")

    def _forward(self, z):
        x, log_det = self._forward_and_log_det(z)
        tie_keras_layers(self)
        self._cache.forward_attributes(z)["ildj"] = -log_det
        return x

    def _inverse(self, x):
        z, log_det = self._inverse_and_log_det(x)
        tie_keras_layers(self)
        self._cache.inverse_attributes(x)["ildj"] = log_det
        return z

    # TFP asks for a log-det through these two. Running the map first, and holding its value, makes
    # the cached log-det the one of the current weights: the cache forgets a value that nobody
    # holds, but keeps the log-det for as long as the argument lives.
    def _call_forward_log_det_jacobian(self, x, *args, **kwargs):
        x = tf.convert_to_tensor(x, dtype_hint=self.dtype)
        value = self.forward(x)
        log_det = super()._call_forward_log_det_jacobian(x, *args, **kwargs)
        del value
        return log_det

    def _call_inverse_log_det_jacobian(self, y, *args, **kwargs):
        y = tf.convert_to_tensor(y, dtype_hint=self.dtype)
        value = self.inverse(y)
        log_det = super()._call_inverse_log_det_jacobian(y, *args, **kwargs)
        del value
        return log_det

    def _forward_log_det_jacobian(self, z):
        return self._forward_and_log_det(z)[1]

    def _inverse_log_det_jacobian(self, x):
        return self._inverse_and_log_det(x)[1]

    @classmethod
    def _parameter_properties(cls, dtype):
        # Parameters live in Keras layers, which have no batch shape.
        return {}


def keras_layers(module):
    """The Keras layers that a TFP object and all within it hold, each once, in a stable order.

    Args:
        module: a bijector or distribution (`tf.Module`).

    Returns:
        A list of the outermost `keras.Layer` found as attributes, or inside lists, tuples and
        dictionaries that are attributes.
    """
    found = []
    for owner in (module, *module.submodules):
        found += [layer for layer in _held_layers(owner) if not any(layer is f for f in found)]
    return found


def tie_keras_layers(module):
    """Makes the variables of the Keras layers that `module` holds visible to `tf.Module`.

    Done by `FlowBijector` for itself and by `FlowModel` for bijectors of other makes. Layers not
    built yet have no variables: tie again once they are.

    Args:
        module: a bijector or distribution; what it contains is not visited.
    """
    variables = [v for layer in _held_layers(module) for v in layer.variables]
    if len(variables) == len(getattr(module, "_keras_variables", ())):
        return
    values = [variable.value for variable in variables]
    # In a mixed-precision layer's call Keras hands out casts of the variables: tie after it.
    if all(isinstance(value, tf.Variable) for value in values):
        module._keras_variables = values


def _held_layers(module):
    # Besides the constructor's arguments, TensorFlow's own books (_self_...) name the layers again.
    values = [
        value
        for name, value in sorted(vars(module).items())
        if name != "_parameters" and not name.startswith("_self_")
    ]
    layers = [leaf for leaf in tf.nest.flatten(values) if isinstance(leaf, keras.Layer)]
    return list({id(layer): layer for layer in layers}.values())

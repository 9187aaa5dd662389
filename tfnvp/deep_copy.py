"""Deep copies of distributions and bijectors: variables of their own, with the same values."""

import copy
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.graph.internals import with_inner_layers

tfb, tfd = tfp.bijectors, tfp.distributions


def deep_copy(value: Any, memo: dict[int, Any]) -> Any:
    """Copies a TFP object with all that it is made of.

    Python's own `copy.deepcopy` fails for many classes of TFP, whose `__new__` wants arguments. A
    copy is made by the constructor, of copies of its arguments.

    Args:
        value: a distribution or bijector, or an argument of one's constructor.
        memo: copies by the identity of what was copied, as in `copy.deepcopy`: what occurs twice
            is copied once.

    Returns:
        The copy; of what cannot change, such as tensors, masks and functions, the thing itself.
    """
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, tfd.Distribution | tfb.Bijector):
        arguments = {name: deep_copy(v, memo) for name, v in value.parameters.items()}
        copied = type(value)(**arguments)
    elif isinstance(value, keras.Layer):
        copied = _copy_of_layer(value)
    elif isinstance(value, dict):
        copied = {key: deep_copy(v, memo) for key, v in value.items()}
    elif isinstance(value, list):
        copied = [deep_copy(v, memo) for v in value]
    elif isinstance(value, tuple) and not hasattr(value, "_fields"):
        copied = tuple(deep_copy(v, memo) for v in value)
    elif isinstance(value, tf.Variable | tf.Module):
        copied = copy.deepcopy(value, memo)
    else:
        copied = value
    memo[id(value)] = copied
    return copied


def _copy_of_layer(layer: keras.Layer) -> keras.Layer:
    copied = type(layer).from_config(layer.get_config())
    if not layer.built:
        return copied
    if not copied.built:
        copied.build_from_config(layer.get_build_config())
    pairs = list(zip(with_inner_layers(copied), with_inner_layers(layer), strict=True))
    for ours, theirs in pairs:
        if getattr(theirs, "lora_enabled", False) and not ours.lora_enabled:
            ours.enable_lora(theirs.lora_rank, lora_alpha=theirs.lora_alpha)
    for ours, theirs in zip(copied.variables, layer.variables, strict=True):
        ours.assign(theirs)
    for ours, theirs in pairs:
        if not theirs.trainable:
            ours.trainable = False
    return copied

"""Compiled functions of a model, forgotten when the layers that they trace change."""

from collections.abc import Callable, Hashable
from typing import Any

import keras
import tensorflow as tf

from tfnvp.graph.internals import structure, with_inner_layers


class Changes:
    """Finds changes of layers after which functions traced from them no longer match.

    These are other variables or policies, as LoRA and quantization bring them, or other variables
    that are trained; new values of variables are no change.

    Args:
        layers: the layers.
    """

    def __init__(self, layers: list[keras.Layer]) -> None:
        self._layers = [inner for layer in layers for inner in with_inner_layers(layer)]
        self._structure = self._variables = None

    def happened(self) -> bool:
        """Tells whether the layers have changed since this was last asked, or never was."""
        before = self._structure
        self._structure, self._variables = structure(self._layers)
        return self._structure != before


class CompiledFunctions:
    """The functions that TensorFlow has traced from a model, by function and arguments.

    Args:
        layers: the layers that the functions use.
    """

    def __init__(self, layers: list[keras.Layer]) -> None:
        self._changes = Changes(layers)
        self._optimizer = None
        self._known: dict[Hashable, Callable] = {}

    def known(self, optimizer: keras.optimizers.Optimizer | None) -> dict[Hashable, Callable]:
        """Gives the functions by their `call_key`, for new ones to be added.

        All are forgotten when the model was compiled with another optimizer, or its layers got
        other variables or policies (LoRA, quantization); new values need no new functions.
        """
        if self._changes.happened() or optimizer is not self._optimizer:
            self._optimizer, self._known = optimizer, {}
        return self._known


def call_key(
    function: Callable, args: tuple[tf.Tensor | None, ...], static: dict[str, Any]
) -> Hashable:
    """Tells a function, the kind of its tensors, and its other arguments from all others."""
    function = getattr(function, "__func__", function)
    return function, *map(any_rows, args), *sorted(static.items())


def any_rows(x: tf.Tensor | None) -> tf.TensorSpec | None:
    """Gives the spec of a tensor with any number of rows, lest another number traces anew."""
    if x is None:
        return None
    return tf.TensorSpec([None, *x.shape[1:]] if x.shape.rank else [], x.dtype)

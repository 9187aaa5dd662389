"""Layers and models whose configuration is what their constructors were given."""

import inspect
from typing import Any

import keras


def arguments(cls: type, instance: object) -> dict[str, Any]:
    """Gives the arguments of a class's constructor, which an instance keeps as attributes."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    return {name: getattr(instance, name) for name in names if hasattr(instance, name)}


class ConfiguredLayer(keras.layers.Layer):
    """A Keras layer that keeps its constructor's arguments as attributes, and saves them."""

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for cls in type(self).__mro__[: type(self).__mro__.index(ConfiguredLayer)]:
            config |= arguments(cls, self)
        return config


class UncastLayer(ConfiguredLayer):
    """A layer whose inputs are not cast to the compute dtype of a mixed-precision policy."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def get_config(self) -> dict[str, Any]:
        # The constructor decides about casts by itself.
        return {name: value for name, value in super().get_config().items() if name != "autocast"}

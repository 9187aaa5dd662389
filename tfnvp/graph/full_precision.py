"""Mixed-precision layers, run in full precision."""

import contextlib
import threading
from collections.abc import Iterator

import keras

from tfnvp.graph.internals import with_inner_layers

_lock = threading.RLock()


@contextlib.contextmanager
def full_precision(layers: list[keras.Layer]) -> Iterator[None]:
    """Within this context the layers compute in the dtype of their variables.

    A chain of couplings multiplies the errors of bfloat16 conditioners, forward and inverse do not
    meet again (design.md: 2e-2 over ten). What must invert exactly is traced or run in here.

    Raises:
        ValueError: if a layer is quantized: its variables have no full precision.
    """
    layers = [inner for layer in layers for inner in with_inner_layers(layer)]
    if quantized := [layer.name for layer in layers if layer.quantization_mode]:
        raise ValueError(
            "encode and decode need conditioners that are not quantized, or they are not inverse, "
            f"got layer {quantized[0]!r}"
        )
    with _lock:
        policies = [layer.dtype_policy for layer in layers]
        try:
            for layer in layers:
                layer.dtype_policy = layer.variable_dtype
            yield
        finally:
            for layer, policy in zip(layers, policies, strict=True):
                layer.dtype_policy = policy

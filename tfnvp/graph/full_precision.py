"""Mixed-precision layers, run in full precision."""

import contextlib
import threading
from collections.abc import Iterator

import keras
import tensorflow as tf

from tfnvp.graph.internals import with_inner_layers

_lock = threading.RLock()


@contextlib.contextmanager
def full_precision(layers: list[keras.Layer]) -> Iterator[None]:
    """Within this context the layers compute in the dtype of their variables.

    A chain of couplings multiplies the errors of bfloat16 conditioners, so that forward and inverse
    no longer undo each other (2e-2 over ten couplings). Code that must invert exactly is traced or
    run in this context.

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


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Within this context GPUs multiply float32 in float32, not in the 10 bits of TF32.

    TensorFlow decides when an operation runs: this reaches what is run here, and not a function of
    the user's that is traced here and run later.
    """
    with _lock:
        before = tf.config.experimental.tensor_float_32_execution_enabled()
        try:
            tf.config.experimental.enable_tensor_float_32_execution(False)
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)

"""The state of an export, in which directions of weight-normalised convolutions hold kernels."""

import contextlib
import contextvars
from collections.abc import Iterable, Iterator

import keras

_holders: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar(
    "holders_of_kernels", default=frozenset()
)


@contextlib.contextmanager
def directions_hold_kernels(layers: Iterable[keras.Layer]) -> Iterator[None]:
    """Within this context the directions of these layers are taken for their kernels.

    Whoever enters it has put kernels in the directions' place. An export does, since its weights
    are fixed, and normalising them anew is a fifth of the time of one image. What is traced within
    would be wrong outside, so that traces are kept apart by `holds_kernel`.
    """
    before = _holders.set(frozenset(map(id, layers)))
    try:
        yield
    finally:
        _holders.reset(before)


def holds_kernel(layer: keras.Layer) -> bool:
    """Tells whether the direction of a layer is its kernel now."""
    return id(layer) in _holders.get()

"""Data that is checked and padded on the host, for steps that XLA compiles.

XLA leaves assertions out, and compiles a step anew for each number of rows.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.models.training_data import MappedPyDataset

if TYPE_CHECKING:
    from tfnvp.models.training_steps import TrainingSteps

_SECONDS_TO_LOOK = 5
_ROWS_OF_A_BATCH = 32  # This is Keras' own default.


def check_on_the_host(model: "TrainingSteps", method: str, given: dict[str, Any]) -> None:
    """Has data check itself before a step sees it, with the errors that a step would raise.

    Arrays become a `tf.data.Dataset`. In `fit` and `evaluate` a batch with fewer rows than one
    before it gets rows of weight 0, which do not count, unless it is a `PyDataset`'s.

    Args:
        model: one whose steps XLA compiles.
        method: the Keras method that is called.
        given: its arguments, which change.

    Raises:
        ValueError: for data that cannot be checked on the way, or an order that cannot be kept.
    """
    if method.endswith("_on_batch"):
        _check(model)(given["x"], given.get("y"), given.get("sample_weight"))
        return
    shuffle = given.pop("shuffle", True) if method == "fit" else False
    if shuffle == "batch":
        raise ValueError('shuffle must be True or False with jit_compile=True, got shuffle="batch"')
    hold_out(given)
    size = given.pop("batch_size", None)
    steps = given.get("steps_per_epoch") or given.get("steps")
    parts = [given.pop(name, None) for name in ("x", "y", "sample_weight")]
    given["x"] = _checked(model, parts, size, steps, shuffle, pads=method != "predict")
    held_out = given.get("validation_data")
    if held_out is not None:
        parts = list(held_out) if isinstance(held_out, tuple | list) else [held_out]
        size = given.pop("validation_batch_size", None) or size
        steps = given.get("validation_steps")
        given["validation_data"] = _checked(model, parts, size, steps, shuffle=False, pads=True)
    if method == "fit":
        # A `PyDataset` is shuffled by Keras, batch by batch.
        given["shuffle"] = shuffle and isinstance(given["x"], keras.utils.PyDataset)


@contextlib.contextmanager
def named_fault(model: "TrainingSteps", given: dict[str, Any]) -> Iterator[None]:
    """Raises the error of bad data where a step of replicas ends in being cancelled.

    The replica that was cancelled may report before the one that failed. Arrays and finite data
    sets then tell why that did, as far as some seconds reach: a step that fails is to end soon.
    Several workers are left alone, for there it is most often one of them that is gone.

    Args:
        model: a `FlowModel`.
        given: the arguments of a Keras method.
    """
    try:
        yield
    except tf.errors.CancelledError:
        if isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise
        end = time.monotonic() + _SECONDS_TO_LOOK
        held_out = given.get("validation_data")
        held_out = list(held_out) if isinstance(held_out, tuple | list) else [held_out]
        for parts in ([given.get(name) for name in ("x", "y", "sample_weight")], held_out):
            if hasattr(parts[0], "shape") or _ends(parts[0]):
                for _ in _checked(model, parts, None, None, shuffle=False, pads=False):
                    if time.monotonic() > end:
                        break
        raise


def _ends(data: Any) -> bool:
    """Tells whether data is a data set that ends."""
    endless = tf.data.INFINITE_CARDINALITY
    return isinstance(data, tf.data.Dataset) and bool(data.cardinality() != endless)


def dataset_of(
    arrays: list, batch_size: int, shuffle: bool, seed: int | None = None
) -> tf.data.Dataset:
    """Makes batches of the rows of arrays, in another order each epoch where they are shuffled.

    Args:
        arrays: x, and labels and weights or None, of as many rows.
        batch_size: rows of a batch; the last one may have fewer.
        shuffle: whether the order is drawn.
        seed: of the orders of all epochs; None draws them afresh.
    """
    rows = len(arrays[0])
    while arrays[-1] is None:  # tf.distribute takes no None as the last part of an element.
        arrays = arrays[:-1]
    indices = tf.data.Dataset.range(rows)
    if shuffle:
        indices = indices.shuffle(max(rows, 1), seed=seed)
    batches = indices.batch(batch_size, drop_remainder=rows % batch_size == 0)
    # The arrays are one element, repeated, so that they are not copied for each batch.
    held = tf.data.Dataset.from_tensors(tuple(arrays)).repeat()

    def gathered(index: tf.Tensor, held: tuple) -> tuple:
        return tuple(None if array is None else tf.gather(array, index) for array in held)

    zipped = tf.data.Dataset.zip(batches, held)
    return zipped.map(gathered, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def batch_size_of(rows: int, batch_size: int | None, steps: int | None) -> int:
    """Gives the rows of a batch, chosen as Keras chooses them where none are given."""
    return batch_size or (math.ceil(rows / steps) if steps else _ROWS_OF_A_BATCH)


def hold_out(given: dict[str, Any]) -> None:
    """Takes the last rows of arrays as validation data, as `validation_split` asks for."""
    share = given.pop("validation_split", 0)
    if not share or given.get("validation_data") is not None:
        return
    parts = [given.get(name) for name in ("x", "y", "sample_weight")]
    if not hasattr(parts[0], "shape"):
        raise ValueError(
            f"validation_split needs arrays, got a {type(parts[0]).__name__}: pass validation_data"
        )
    rows = len(parts[0])
    first = math.floor(rows * (1 - share))
    if not 0 < first < rows:
        raise ValueError(
            f"validation_split must leave rows on both sides, got {share} of {rows} rows"
        )
    kept = [None if part is None else part[:first] for part in parts]
    given |= dict(zip(("x", "y", "sample_weight"), kept, strict=True))
    given["validation_data"] = tuple(None if part is None else part[first:] for part in parts)


def _checked(
    model: "TrainingSteps",
    parts: list,
    batch_size: int | None,
    steps: int | None,
    shuffle: bool,
    pads: bool,
) -> Any:
    x = parts[0]
    if isinstance(x, Iterator):
        check = _check_from_python(model)
        batches = (check(data) for data in x)
        return _padded_from_python(batches) if pads else batches
    if isinstance(x, keras.utils.PyDataset):
        return MappedPyDataset(_check_from_python(model), x)
    if not isinstance(x, tf.data.Dataset):
        if not hasattr(x, "shape"):
            raise ValueError(
                "x must be an array, a tf.data.Dataset, a generator or a PyDataset with "
                f"jit_compile=True, got a {type(x).__name__}"
            )
        arrays = [part if part is None else np.asarray(part) for part in parts]
        x = dataset_of(arrays, batch_size_of(len(x), batch_size, steps), shuffle)

    x = x.map(_check(model), num_parallel_calls=tf.data.AUTOTUNE)
    rows = x.element_spec[0].shape[0]
    return x if rows is not None or not pads else _padded(x)


def _check(model: "TrainingSteps") -> Callable:
    """Makes a function that gives the parts of a batch once their values are found valid."""

    @tf.autograph.experimental.do_not_convert
    def check(*data: Any) -> tuple:
        x, labels, weights = model.unpacked(data)
        x, labels = model.check_values(x), model.condition.check_values(labels)
        if weights is None:
            return (x,) if labels is None else (x, labels)
        # Keras forgets the weights of rows that come without labels.
        return x, tf.zeros([tf.shape(x)[0], 0]) if labels is None else labels, weights

    return check


def _check_from_python(model: "TrainingSteps") -> Callable:
    """Makes such a check for batches that come from Python."""
    # TensorFlow reports an error of Python code that it calls as UnknownError; one of a graph stays
    # what it is.
    check = tf.function(_check(model), autograph=False, reduce_retracing=True)
    return lambda data: check(*keras.utils.unpack_x_y_sample_weight(data))


def _padded(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Fills batches up to the rows of the largest one so far, with rows of weight 0."""
    return batches.scan(0, _filled)


def _padded_from_python(batches: Iterator[tuple]) -> Iterator[tuple]:
    """Fills batches of a generator in the same way."""
    most = 0
    for data in batches:
        most, data = _filled(most, data)
        yield data


@tf.autograph.experimental.do_not_convert
def _filled(most: tf.Tensor | int, data: tuple) -> tuple:
    """Gives how many rows the largest batch has by now, and a batch with as many."""
    x, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    rows = tf.shape(x)[0]
    most = tf.maximum(most, rows)
    labels = tf.zeros([rows, 0]) if labels is None else labels
    weights = tf.ones([rows]) if weights is None else weights

    def filled(part: tf.Tensor) -> tf.Tensor:
        added = tf.zeros(tf.concat([[most - rows], tf.shape(part)[1:]], 0), part.dtype)
        full = tf.concat([part, added], 0)
        if not tf.executing_eagerly():
            full.set_shape([None, *part.shape[1:]])
        return full

    return most, tuple(map(filled, (x, labels, weights)))

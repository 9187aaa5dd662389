"""The data that `fit` and `evaluate` are given: rows, labels and weights of rows."""

import functools
import inspect
import numbers
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.checks import assert_all, first_where
from tfnvp.types import TensorLike

if TYPE_CHECKING:
    from tfnvp.models.training_steps import TrainingSteps

_ROWS_LOOKED_AT = 64


def accepted(
    model: "TrainingSteps", method: Callable, args: tuple, kwargs: dict[str, Any]
) -> inspect.BoundArguments:
    """Gives the arguments of a Keras method, `fit` or the like, so that Keras uses all of them.

    Raises:
        ValueError: for labels or class weights that the model has no use for, or a data set of a
            wrong dtype or shape.
    """
    bound = inspect.signature(method).bind(model, *args, **kwargs)
    given = bound.arguments
    if given.get("x") is None or given.get("kwargs"):  # This is an evaluation within `fit`.
        return bound
    names = [name for name in ("x", "y", "sample_weight") if name in bound.signature.parameters]
    class_weight = given.pop("class_weight", None)
    parts = accepted_parts(model, *(given.get(name) for name in names), class_weight=class_weight)
    given |= dict(zip(names, parts, strict=False))
    if isinstance(given["x"], tf.data.Dataset) and "shuffle" in bound.signature.parameters:
        given.setdefault("shuffle", False)  # Keras warns of its own default, True.
    validation = given.get("validation_data")
    if isinstance(validation, tuple | list):
        validation = keras.utils.unpack_x_y_sample_weight(validation)
        given["validation_data"] = accepted_parts(model, *validation)
    elif validation is not None:
        given["validation_data"] = accepted_parts(model, validation)[0]
    return bound


def accepted_parts(
    model: "TrainingSteps",
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
) -> tuple[Any, Any, Any]:
    """Gives x, labels and weights so that Keras uses all of them; raises as `accepted` does."""
    one_by_one = isinstance(x, Iterator | keras.utils.PyDataset)
    if one_by_one or isinstance(x, tf.data.Dataset):
        for name, part in (("y", y), ("sample_weight", sample_weight)):
            if part is not None:
                raise ValueError(
                    f"{name} must be None where x is a {type(x).__name__}: have it yield tuples of "
                    "data, labels or None, and weights"
                )
    if isinstance(x, tf.data.Dataset):
        # Some data sets do not know their shapes; then the step checks them.
        kind = keras.utils.unpack_x_y_sample_weight(x.element_spec)[0]
        model.check_kind(kind)
        _voice_doubt(model, x, kind)
        if class_weight is not None:
            x = x.map(_by_class(model, class_weight))
        labels, weights = keras.utils.unpack_x_y_sample_weight(x.element_spec)[1:]
        if weights is not None and not has_labels(labels):
            # None comes into a data set's function as an object that is not None.
            x = x.map(lambda x, _, weights: _with_labels((x, None, weights)))
        return x, None, None
    model.check_kind(x if isinstance(x, Mapping) else _kind(x))
    if getattr(x, "shape", None) and x.shape[0] == 0:
        raise ValueError(f"x must have rows, got shape {tuple(x.shape)}")
    if has_labels(y) and model.condition.encoding is None:
        raise ValueError(
            "y must be None, for the model is not conditional: it learns p(x); make it with "
            "num_classes or context_size to learn p(x | y)"
        )
    for name, part in (("y", y), ("sample_weight", sample_weight)):
        if hasattr(x, "shape") and part is not None and np.ndim(part) and len(part) != len(x):
            raise ValueError(
                f"{name} must have a row for each of the {len(x)} rows of x, got {len(part)}"
            )
    if class_weight is not None:
        if not hasattr(x, "shape"):
            raise ValueError(
                "class_weight needs arrays or a tf.data.Dataset, got x of type "
                f"{type(x).__name__}: have it yield weights of rows"
            )
        add = _by_class(model, class_weight)
        x, y, sample_weight = add(x, y, sample_weight)
    _voice_doubt(model, x, _kind(x))
    if one_by_one:
        mapped = isinstance(x, keras.utils.PyDataset)
        x = MappedPyDataset(_with_labels, x) if mapped else (_with_labels(data) for data in x)
    if sample_weight is not None and hasattr(x, "shape"):
        sample_weight = np.asarray(sample_weight)
        if not sample_weight.ndim:
            raise ValueError(
                f"sample_weight must be one number for each row, got {sample_weight.item()!r}"
            )
        # Keras forgets the weights of rows that come without labels.
        y = np.zeros([len(x), 0], "float32") if y is None else y
    return x, y, sample_weight


def batches_to_adapt_to(
    data: TensorLike | tf.data.Dataset, sample_weight: TensorLike | None = None
) -> Iterable[tuple]:
    """Gives (x, labels, weights) of an array, or of the batches of a data set, which must end."""
    if not isinstance(data, tf.data.Dataset):
        return [(data, None, sample_weight)]
    if sample_weight is not None:
        raise ValueError(
            "sample_weight must be None with a tf.data.Dataset: have it yield (x, labels or None, "
            "weights)"
        )
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("data to adapt to must end, got a data set repeated without end")
    return map(keras.utils.unpack_x_y_sample_weight, data)


def _kind(x: Any) -> tf.TensorSpec:
    """Gives shape and dtype of an array; anything else is taken for floats."""
    if isinstance(x, np.ndarray | tf.Tensor):
        return tf.TensorSpec(x.shape, tf.as_dtype(x.dtype))
    return tf.TensorSpec(getattr(x, "shape", None), tf.float32)


def _voice_doubt(model: "TrainingSteps", x: Any, kind: tf.TensorSpec) -> None:
    """Warns once about data for which the model's figures would be meaningless."""
    if not model.voiced_doubt:
        doubt = model.doubt(functools.partial(_first_rows, x, kind.dtype))
        if doubt:
            model.voiced_doubt = True
            warnings.warn(doubt, stacklevel=6)


def _first_rows(x: Any, dtype: tf.DType) -> np.ndarray:
    """Gives some finite rows of data, or none where looking at them would use them up."""
    batch = None
    if isinstance(x, tf.data.Dataset):
        batch = next(iter(x.take(1)), None)
    elif hasattr(x, "shape"):
        batch = x
    known = (tf.float16, tf.float32, tf.float64)
    if batch is None or not (dtype.is_integer or dtype in known):
        return np.zeros([0], "float32")
    rows = np.asarray(keras.utils.unpack_x_y_sample_weight(batch)[0][:_ROWS_LOOKED_AT])
    rows = rows.astype(dtype.as_numpy_dtype)
    return rows[np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))]


def _by_class(model: "TrainingSteps", class_weight: dict[int, float]) -> Callable:
    """Makes a function that adds weights of classes, 1 where none is given, to labelled rows."""
    classes = model.condition.num_classes
    if not classes:
        raise ValueError(
            "class_weight must be None, for the model has no classes: make it with num_classes, or "
            "pass sample_weight"
        )
    table = np.ones(classes)
    if not isinstance(class_weight, Mapping):
        raise ValueError(
            f"class_weight must be a dictionary of classes and weights, got {class_weight!r}"
        )
    for label, weight in class_weight.items():
        known = isinstance(label, numbers.Integral) and 0 <= label < classes
        if not known or not 0 <= weight < np.inf:
            raise ValueError(
                f"class_weight must map classes 0..{classes - 1} to finite numbers of 0 or more, "
                f"got {label!r}: {weight!r}"
            )
        table[label] = weight

    @tf.autograph.experimental.do_not_convert
    def add(*data: Any) -> tuple[Any, Any, tf.Tensor]:
        x, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if not has_labels(labels):
            raise ValueError("class_weight needs labels: pass y, or a data set of (x, y)")
        if weights is not None:
            raise ValueError(
                "class_weight and sample_weight exclude each other: multiply them into "
                "sample_weight"
            )
        # Labels out of range are refused later, and -1 means p(x).
        place = tf.cast(tf.convert_to_tensor(labels), tf.int64)
        weights = tf.gather(tf.constant(table, model.variable_dtype), place % classes)
        return x, labels, tf.where((place >= 0) & (place < classes), weights, 1)

    return add


@tf.autograph.experimental.do_not_convert
def _with_labels(data: Any) -> Any:
    """Adds labels of size 0 to weights without any, which Keras forgets or stumbles over."""
    x, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if weights is None or labels is not None:
        return data
    return x, tf.zeros([tf.shape(x)[0], 0]), weights


class MappedPyDataset(keras.utils.PyDataset):
    """A `PyDataset` with a function of its batches.

    Args:
        function: maps what the data gives at an index to another batch.
        data: the `PyDataset`.
    """

    def __init__(self, function: Callable, data: keras.utils.PyDataset) -> None:
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._function, self._data = function, data

    @property
    def num_batches(self) -> int | None:
        """The number of batches, or None for data without end."""
        return self._data.num_batches

    def __getitem__(self, index: int) -> Any:
        return self._function(self._data[index])

    def on_epoch_begin(self) -> None:
        """Tells the data that an epoch begins."""
        self._data.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Tells the data that an epoch has ended."""
        self._data.on_epoch_end()


def has_labels(labels: Any) -> bool:
    """Tells whether there are labels, by themselves or by their specification."""
    # The specification of None in a data set has no shape.
    if labels is None or (isinstance(labels, tf.TypeSpec) and not hasattr(labels, "shape")):
        return False
    if isinstance(labels, tuple):
        return bool(labels)
    # Keras forgets the weights of rows without labels: labels of size 0 go with them.
    shape = tf.TensorShape(getattr(labels, "shape", None))
    return shape.rank != 2 or shape[1] != 0


def weights_of_rows(weights: TensorLike, x: tf.Tensor, dtype: str) -> tf.Tensor:
    """Makes a tensor [B] of the weights of x's rows, which are checked.

    Args:
        weights: 0 or more, B of any dtype of numbers; bools say which rows count.
        x: [B, ...].
        dtype: of the result.

    Raises:
        ValueError: for weights of another number, or negative, infinite or NaN.
    """
    weights = tf.convert_to_tensor(weights)
    if weights.dtype == tf.string:
        raise ValueError("sample_weight must be one number for each row, got strings")
    weights = tf.cast(tf.reshape(weights, [-1]), dtype)
    found, rows = tf.size(weights), tf.shape(x)[0]
    message = "sample_weight must be one number for each row, got weights and rows"
    checks = [assert_all(found == rows, message, found, rows)]
    # We do not ask for `weights < 0`, since NaN would pass.
    usable = (weights >= 0) & (weights < weights.dtype.max)
    message = "sample_weight must be finite and 0 or more, got"
    checks.append(assert_all(usable, message, first_where(~usable, weights)))
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(weights)


def without_weightless(weights: tf.Tensor, *tensors: tf.Tensor | None) -> list[tf.Tensor | None]:
    """Replaces every row of weight 0, whatever it holds, by a row that counts.

    A row that is left out may be NaN, or of no class, and zero times its log-density would be NaN.
    Where no row counts, all are zeros.

    Args:
        weights: [B], checked.
        *tensors: [B, ...], or None, which stays.
    """
    counts, last = weights > 0, tf.size(weights) - 1
    rows = tf.range(last + 1)
    # We do not ask for the largest of no weights, which TensorFlow refuses to give.
    index = tf.where(counts, rows, tf.reduce_min(tf.where(counts, rows, last)))
    any_counts = tf.reduce_any(counts)

    def replaced(x: tf.Tensor | None) -> tf.Tensor | None:
        if x is None:
            return None
        rows = tf.gather(x, index)
        return tf.where(any_counts, rows, tf.zeros_like(rows))

    return [replaced(x) for x in tensors]

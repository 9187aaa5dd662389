"""Moments of batch normalizations that are of the weights as they stand.

A running average is of the batches of the last steps, and of the weights that these had. Where
weights change fast it is of another function than the one that is scored: a training that stands at
1.6 bits/dim may validate at 3. Moments that are taken anew, of weights that stay the same, are
right whatever the learning rate.
"""

import collections
import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.graph.internals import with_inner_layers
from tfnvp.layers.running_moments import RunningMoments
from tfnvp.models.host_checks import batch_size_of, dataset_of
from tfnvp.models.training_data import accepted_parts

if TYPE_CHECKING:
    from tfnvp.models.training_steps import TrainingSteps

#: The moments are of at least so many rows and batches, where the data has as many.
ROWS, BATCHES = 512, 4


def running_moments(model: keras.Model) -> list[RunningMoments]:
    """Lists the layers of a model that average over batches."""
    return [layer for layer in with_inner_layers(model) if isinstance(layer, RunningMoments)]


def refresh(model: "TrainingSteps", data: Any, batch_size: int | None, step: "MomentsStep") -> None:
    """Takes moments of data that `fit` would take, or of what `Kept` has kept."""
    if not isinstance(data, Kept):
        parts = accepted_parts(model, *keras.utils.unpack_x_y_sample_weight(data))
        arrays = hasattr(parts[0], "shape")
        data = batches_of_arrays(list(parts), batch_size) if arrays else parts[0]
    step(batches_of(model, data))


class MomentsStep:
    """Takes the moments of batches into a model's averages, each with the same weight.

    Args:
        model: a `FlowModel` that is built.
    """

    def __init__(self, model: "TrainingSteps") -> None:
        self._model = model
        self._function = tf.function(self._step, autograph=False, reduce_retracing=True)

    def _step(self, iterator: Iterator, count: tf.Tensor) -> tf.Tensor:
        """Takes the next batch, after so many, and tells whether a row of it counts."""
        data = next(iterator)
        # At the end of the data nothing is assigned, on no replica. Labels may be None.
        parts = [part for part in tf.nest.flatten(data, expand_composites=True) if part is not None]
        with tf.control_dependencies(parts):
            for layer in running_moments(self._model):
                layer.weigh_all_alike(count)
        strategy = self._model.distribute_strategy
        rows = strategy.run(self._of_replica, args=(data,))
        return strategy.reduce("sum", rows, axis=None) > 0

    def _of_replica(self, data: Any) -> tf.Tensor:
        x, labels, weights = self._model.unpacked(data)
        with replicas.weighing_rows(weights):
            self._model(x, labels, training=True)
        # A batch of which no row counts leaves the averages as they are.
        return tf.shape(x)[0] if weights is None else tf.math.count_nonzero(weights, dtype=tf.int32)

    def __call__(self, datasets: Iterable) -> None:
        """Runs over the batches of some data sets; where no row counts, the averages stay.

        Raises:
            ValueError: if there is no batch.
        """
        batches = count = 0
        step = self._step if self._model.run_eagerly else self._function
        for dataset in datasets:
            # The function is given the iterator, which knows no number of rows: it is traced once.
            iterator = iter(dataset)
            with contextlib.suppress(tf.errors.OutOfRangeError, StopIteration):
                while True:
                    count += bool(step(iterator, tf.constant(count)))
                    batches += 1
        if not batches:
            raise ValueError("data must have a batch of rows, got none")


class FreshMoments(keras.callbacks.Callback):
    """Takes a model's moments anew before each validation and at the end of each epoch.

    `FlowModel.fit` has one of its own, of the data that it trains on, so that validation, and
    whatever other callbacks look at, is of the weights of that moment; where nobody looks, it takes
    them once, in the end. One that is given takes its place, for moments of other data.

    Args:
        data: batches as `fit` takes them; None leaves the running averages as they are. Arrays are
            drawn from; of a `tf.data.Dataset` or an iterator the first batches, of 512 rows or
            more, stand for all, so that its rows must be in an order of chance.

    Example:
        >>> import numpy as np
        >>> x = np.random.uniform(size=(64, 4, 4, 1)).astype("float32")
        >>> model = tfnvp.ImageRealNVP((4, 4, 1), num_scales=1, filters=4, residual_blocks=1)
        >>> model.compile(optimizer="adam")
        >>> fresh = tfnvp.callbacks.FreshMoments(x[:32])
        >>> history = model.fit(x, batch_size=32, verbose=0, callbacks=[fresh])
    """

    def __init__(self, data: Any = None) -> None:
        super().__init__()
        self.data = data
        self._stale = False
        self._each_epoch = True

    @classmethod
    def of_fit(cls, data: Any, watched: bool) -> "FreshMoments":
        """Makes the callback of a `fit`, and of whether other callbacks look at the epochs."""
        own = cls(data)
        own._each_epoch = watched
        return own

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes note that the weights are about to change."""
        self._stale = True

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the moments before a validation."""
        self._refresh()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the moments of an epoch without validation, if somebody looks."""
        if self._each_epoch:
            self._refresh()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the moments in the end."""
        self._refresh()

    def _refresh(self) -> None:
        if self._stale and self.data is not None:
            self.model.refresh_moments(self.data)
        self._stale = False


class Kept:
    """The last rows that a generator gave, for it cannot be asked for them again."""

    def __init__(self) -> None:
        self.last = collections.deque()

    def through(self, batches: Iterator) -> Iterator:
        """Gives batches on, and keeps the last ones."""
        rows = 0
        for batch in batches:
            self.last.append(batch)
            rows += _rows(batch)
            while len(self.last) > BATCHES and rows - _rows(self.last[0]) >= ROWS:
                rows -= _rows(self.last.popleft())
            yield batch


def keep_moments_fresh(model: "TrainingSteps", given: dict[str, Any]) -> None:
    """Gives `fit` a callback that takes moments anew of its own data, unless it has one.

    Args:
        model: a `FlowModel`.
        given: the arguments of its `fit`, which change.
    """
    callbacks = given.get("callbacks") or []
    listed = getattr(callbacks, "callbacks", callbacks)
    listed = list(listed) if isinstance(listed, list | tuple) else [listed]
    if not running_moments(model) or any(isinstance(one, FreshMoments) for one in listed):
        return
    parts = [given.get(name) for name in ("x", "y", "sample_weight")]
    if isinstance(parts[0], Iterator):
        data: Any = Kept()
        given["x"] = data.through(parts[0])
    elif hasattr(parts[0], "shape"):
        # Keras validates by the last rows.
        rows = math.floor(len(parts[0]) * (1 - given.get("validation_split", 0)))
        parts = [part if part is None else part[:rows] for part in parts]
        data = batches_of_arrays(parts, given.get("batch_size"))
    else:
        data = parts[0]
    # It comes before all that might look at the model, and after what changes the weights.
    swaps = [isinstance(one, keras.callbacks.SwapEMAWeights) for one in listed]
    place = len(listed) - swaps[::-1].index(True) if any(swaps) else 0
    own = FreshMoments.of_fit(data, watched=bool(listed))
    all_of_them = [*listed[:place], own, *listed[place:]]
    # A list of Keras' kind is the caller's, and stays without ours, which is of this data.
    is_keras = isinstance(callbacks, keras.callbacks.CallbackList)
    given["callbacks"] = (
        keras.callbacks.CallbackList(all_of_them, model=model) if is_keras else all_of_them
    )


def batches_of(model: "TrainingSteps", data: Any) -> Iterable:
    """Gives the first batches of data: data sets, as the model's strategy shares them out.

    Args:
        model: a `FlowModel`.
        data: a `tf.data.Dataset`, a `PyDataset`, what `Kept` has kept, or another iterator.
    """
    distribute = model.distribute_strategy.experimental_distribute_dataset
    if isinstance(data, tf.data.Dataset):
        first = next(iter(data.take(1)), None)
        return [distribute(data.take(0 if first is None else _count(_rows(first))))]
    batches = data.last if isinstance(data, Kept) else data
    if isinstance(data, keras.utils.PyDataset):
        ends = data.num_batches is not None
        batches = map(data.__getitem__, _mixed(data.num_batches) if ends else itertools.count())
    return (distribute(tf.data.Dataset.from_tensors(batch)) for batch in _first(batches))


def batches_of_arrays(parts: list, batch_size: int | None = None) -> tf.data.Dataset:
    """Makes batches from all over arrays: x, labels and weights, None where none are."""
    rows = len(parts[0])
    batch_size = batch_size_of(rows, batch_size, None)
    places = _mixed(rows)[: _count(batch_size) * batch_size]
    parts = [part if part is None else np.asarray(part)[places] for part in parts]
    return dataset_of(parts, batch_size, shuffle=False)


def _mixed(count: int) -> np.ndarray:
    """Gives the numbers below `count` in an order of chance, which is always the same.

    Rows may be sorted, by class say, and batches of rows that are alike have moments of their own.
    """
    return np.random.RandomState(0).permutation(count)


def _first(batches: Iterable) -> Iterator[tuple]:
    rows = 0
    for count, batch in enumerate(batches, start=1):
        parts = list(keras.utils.unpack_x_y_sample_weight(batch))
        while parts[-1] is None:  # A data set has no place for None.
            parts.pop()
        yield tuple(parts)
        rows += len(parts[0])
        if count >= BATCHES and rows >= ROWS:
            return


def _rows(batch: Any) -> int:
    return len(keras.utils.unpack_x_y_sample_weight(batch)[0])


def _count(rows: int) -> int:
    return max(BATCHES, math.ceil(ROWS / max(rows, 1)))

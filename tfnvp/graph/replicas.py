"""The replicas on which a `tf.distribute` strategy runs a step at once, and what they exchange.

Ordinary code on several replicas meets the others through TensorFlow's replica context. Inside a
step that replicas share (`tfnvp.graph.shared_step`) they cannot leave the function to meet, and an
`Inside` stands in for the context. Code that asks this module need not know which of them it is.
"""

import contextlib
import functools
import itertools
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf


def several() -> "tf.distribute.ReplicaContext | Inside | None":
    """Returns the replica context where this is one of several replicas, or None."""
    if (inside := _local.inside) is not None:
        return inside
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def may_meet_in_functions() -> bool:
    """Tells whether replicas, if there are several, can meet inside a `tf.function` called here."""
    return isinstance(several(), Inside | None)


def sum_over(value: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over all replicas."""
    context = several()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def sum_each_over(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums each of a list of tensors over all replicas, those of one dtype in one exchange."""
    context = several()
    if not isinstance(context, Inside):
        return values if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, values)
    if len({value.dtype for value in values}) > 1:
        return [sum_over(value) for value in values]
    row = sum_over(tf.concat([tf.reshape(value, [-1]) for value in values], axis=0))
    parts = tf.split(row, [value.shape.num_elements() for value in values])
    return [tf.reshape(part, value.shape) for part, value in zip(parts, values, strict=True)]


def summed_on_the_first(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums gradients over all replicas on the first of them, and gives zeros on all others.

    Keras clips the gradients of each replica before it adds them up. Given these, it clips the sum.
    """
    is_first = tf.equal(several().replica_id_in_sync_group, 0)
    return [tf.where(is_first, gradient, 0) for gradient in sum_each_over(gradients)]


# TensorFlow's convolutions and batch normalizations do not stand a batch of no rows, which the last
# one of an epoch can leave a replica with: a row of zeros then stands in for it.


@contextlib.contextmanager
def rows_counting(counting: tf.Tensor | None) -> Iterator[None]:
    """Within this context the rows of this replica's batch count in statistics, or do not.

    Args:
        counting: a scalar, 1 or 0: they are data, or stand in for a batch of no rows; or None.
    """
    with _set(counting=counting):
        yield


def rows_count(dtype: tf.DType) -> tf.Tensor:
    """Gives 1, or 0 where the rows of this replica's batch do not count in statistics."""
    counting = _local.counting
    return tf.ones([], dtype) if counting is None else tf.cast(counting, dtype)


class Inside:
    """Stands in for the replica context in a function that replicas share.

    Replicas meet in it by collective operations, which find each other by a number: that of the
    function's call, the same on all replicas, and of the exchange in it.

    Args:
        devices: those of all replicas.
        replica_id: a scalar tensor, the place of this replica among them.
        call: a scalar int32 tensor, the number of the function's call.
        counting: a scalar tensor as in `rows_counting`, or None.
    """

    def __init__(
        self,
        devices: tuple[str, ...],
        replica_id: tf.Tensor,
        call: tf.Tensor,
        counting: tf.Tensor | None = None,
    ) -> None:
        self.replica_id_in_sync_group = replica_id
        self.num_replicas_in_sync = len(devices)
        self.devices = devices
        self.counting = counting
        self.handles: dict[int, tf.Tensor] = {}
        self._first_number = _EXCHANGES_A_CALL * call
        self._exchanges = itertools.count()

    def all_reduce(self, op: tf.distribute.ReduceOp, value: tf.Tensor) -> tf.Tensor:
        """Sums a tensor over all replicas, as the method of a replica context does."""
        assert op is tf.distribute.ReduceOp.SUM

        @tf.custom_gradient
        def summed(value: tf.Tensor) -> tuple[tf.Tensor, Any]:
            return self._sum(value), self._sum

        return summed(value)

    def _sum(self, value: tf.Tensor) -> tf.Tensor:
        place = next(self._exchanges)
        assert place < _EXCHANGES_A_CALL and value.shape.is_fully_defined(), value
        # An operation without effects calls the exchange: TensorFlow lets those that have effects
        # run in the order in which they were made, and replicas would wait for each other for ever.
        (result,) = tf.raw_ops.PartitionedCall(
            args=[value, self._first_number + place],
            Tout=[value.dtype],
            f=_exchange(self.devices, value.dtype),
        )
        result.set_shape(value.shape)
        return result


#: What makes a replica in a function that it calls, or that replica; None where there is none.
Passed = dict[str, tf.Tensor] | Inside | None


def passed_on() -> Passed:
    """Gives what a function that is called here needs to be `received` by it; None for nothing."""
    inside = _local.inside
    if inside is None:
        return None
    return {
        "id": inside.replica_id_in_sync_group,
        "call": hide_from_constant_folding(next_call()),
        "counting": rows_count(tf.int32),
    }


def received(passed: Passed) -> Inside | None:
    """Makes the replica that runs a function of what was `passed_on` to it, while it is traced."""
    if not isinstance(passed, dict):
        return passed
    return Inside(_local.inside.devices, passed["id"], passed["call"], passed["counting"])


@contextlib.contextmanager
def within(inside: Inside | None) -> Iterator[None]:
    """Within this context code is run by one replica of a shared function; by no such, if None."""
    with _set(inside=inside, counting=None if inside is None else inside.counting):
        yield


def next_call(strategy: tf.distribute.Strategy | None = None) -> tf.Tensor:
    """Gives a number that no call of a shared function has had."""
    return tf.constant(next(_calls))


def handle(variable: keras.Variable | tf.Variable) -> tf.Tensor:
    """Gives the resource that this replica's part of a variable is, in graphs."""
    known = {} if _local.inside is None else _local.inside.handles
    if id(variable) in known:
        return known[id(variable)]
    return variable.value.handle if isinstance(variable, keras.Variable) else variable.handle


def hide_from_constant_folding(tensor: tf.Tensor) -> tf.Tensor:
    """Gives the same tensor as an operation that TensorFlow does not take for a constant.

    For each constant that a function which is not inlined is given, TensorFlow makes and optimises
    a function of its own.
    """
    return tf.compat.v1.placeholder_with_default(tensor, tensor.shape)


@functools.cache
def _exchange(devices: tuple[str, ...], dtype: tf.DType) -> Any:
    """Makes the function that sums a tensor over all replicas, in an exchange of a number."""

    def exchanged(value: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.CollectiveReduceV2(
            input=value,
            group_size=len(devices),
            # All exchanges of a number must be of one dtype, and of one shape.
            group_key=zlib.crc32(repr((*devices, dtype)).encode()) & 0x7FFFFFFF,
            instance_key=number,
            ordering_token=[],
            merge_op="Add",
            final_op="Id",
        )

    specs = tf.TensorSpec(None, dtype), tf.TensorSpec([], tf.int32)
    with tf.Graph().as_default():
        return tf.function(exchanged, autograph=False).get_concrete_function(*specs)


class _Local(threading.local):
    """The state of the replica whose step this thread traces: replicas are traced in threads."""

    inside: Inside | None = None
    counting: tf.Tensor | None = None


@contextlib.contextmanager
def _set(**values: Any) -> Iterator[None]:
    before = {name: getattr(_local, name) for name in values}
    vars(_local).update(values)
    try:
        yield
    finally:
        vars(_local).update(before)


_EXCHANGES_A_CALL = 2**12
_calls = itertools.count()
_local = _Local()

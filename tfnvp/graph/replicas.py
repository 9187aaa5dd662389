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
from typing import Any, NamedTuple

import keras
import tensorflow as tf


def replica_context() -> "tf.distribute.ReplicaContext | Inside | None":
    """Returns the replica context where this is one of several replicas, or None."""
    if (inside := _local.inside) is not None:
        return inside
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def may_meet_in_functions() -> bool:
    """Tells whether replicas, if there are several, can meet inside a `tf.function` called here."""
    return isinstance(replica_context(), Inside | None)


def sum_over(value: tf.Tensor) -> tf.Tensor:
    """Sums a tensor over all replicas."""
    context = replica_context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def sum_each_over(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums each of a list of tensors over all replicas, those of one dtype in one exchange."""
    context = replica_context()
    if not isinstance(context, Inside):
        return values if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, values)
    if len({value.dtype for value in values}) > 1:
        return [sum_over(value) for value in values]
    row = sum_over(tf.concat([tf.reshape(value, [-1]) for value in values], axis=0))
    parts = tf.split(row, [value.shape.num_elements() for value in values])
    return [tf.reshape(part, value.shape) for part, value in zip(parts, values, strict=True)]


def sums_on_the_first_replica(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Sums gradients over all replicas on the first of them, and gives zeros on all others.

    Keras clips the gradients of each replica before it adds them up. Given these, it clips the sum.
    """
    is_first = tf.equal(replica_context().replica_id_in_sync_group, 0)
    return [tf.where(is_first, gradient, 0) for gradient in sum_each_over(gradients)]


@contextlib.contextmanager
def weighing_rows(weights: tf.Tensor | None) -> Iterator[None]:
    """Within this context the rows of this replica's batch have weights in its statistics.

    TensorFlow's convolutions refuse a batch of no rows, which the last one of an epoch can
    leave a replica with: a row of weight 0 then stands in for it.

    Args:
        weights: one for each row, [B], or one for all, a scalar; None for 1.
    """
    with _set(row_weights=weights):
        yield


def row_weights(dtype: tf.DType) -> tf.Tensor | None:
    """Gives the weights of this replica's rows, [B] or a scalar; None where none are set."""
    weights = _local.row_weights
    return None if weights is None else tf.cast(weights, dtype)


class Inside:
    """Stands in for the replica context in a function that replicas share.

    Replicas meet in it by collective operations, which find each other by a number: that of the
    function's call, the same on all replicas, and of the exchange in it.

    Args:
        devices: those of all replicas.
        replica_id: a scalar tensor, the place of this replica among them.
        call: a scalar int32 tensor, the number of the function's call.
    """

    def __init__(self, devices: tuple[str, ...], replica_id: tf.Tensor, call: tf.Tensor) -> None:
        self.replica_id_in_sync_group = replica_id
        self.num_replicas_in_sync = len(devices)
        self.devices = devices
        self.handles: dict[int, tf.Tensor] = {}
        self._first_number = _EXCHANGES_A_CALL * call
        self._exchanges = itertools.count()

    def all_reduce(self, op: tf.distribute.ReduceOp, value: tf.Tensor) -> tf.Tensor:
        """Sums a tensor over all replicas, as the method of a replica context does."""
        assert op is tf.distribute.ReduceOp.SUM

        @tf.custom_gradient
        def all_sum(value: tf.Tensor) -> tuple[tf.Tensor, Any]:
            return self._sum(value), self._sum

        return all_sum(value)

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


class Replica(NamedTuple):
    """The replica of a shared step that runs a function, if one does, and the rows' weights."""

    inside: Inside | None = None
    row_weights: tf.Tensor | None = None


def passed_on() -> dict[str, tf.Tensor]:
    """Gives the tensors that a function which is called here needs for `received`."""
    passed = {}
    if _local.row_weights is not None:
        passed["row_weights"] = _local.row_weights
    if _local.inside is not None:
        passed["id"] = _local.inside.replica_id_in_sync_group
        passed["call"] = hide_from_constant_folding(next_call())
    return passed


def received(passed: dict[str, tf.Tensor] | Replica) -> Replica:
    """Makes the `Replica` inside a function from what was `passed_on` to it, while it is traced."""
    if isinstance(passed, Replica):
        return passed
    inside = None
    if "id" in passed:
        inside = Inside(_local.inside.devices, passed["id"], passed["call"])
    return Replica(inside, passed.get("row_weights"))


@contextlib.contextmanager
def within(replica: Replica) -> Iterator[None]:
    """Within this context a replica runs the code, inside a shared function or not."""
    with _set(inside=replica.inside, row_weights=replica.row_weights):
        yield


def next_call(strategy: tf.distribute.Strategy | None = None) -> tf.Tensor:
    """Gives a number that no call of a shared function has had yet."""
    return tf.constant(next(_calls))


def handle(variable: keras.Variable | tf.Variable) -> tf.Tensor:
    """Gives the resource handle of this replica's part of a variable, in graphs."""
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
    """Makes the function that sums a tensor over all replicas, in the exchange of that number."""

    def exchanged(value: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.CollectiveReduceV2(
            input=value,
            group_size=len(devices),
            # All exchanges of one number must have one dtype and one shape.
            group_key=zlib.crc32(repr((*devices, dtype)).encode()) & 0x7FFFFFFF,
            instance_key=number,
            ordering_token=[],
            communication_hint=communication(devices),
            merge_op="Add",
            final_op="Id",
        )

    specs = tf.TensorSpec(None, dtype), tf.TensorSpec([], tf.int32)
    with tf.Graph().as_default():
        return tf.function(exchanged, autograph=False).get_concrete_function(*specs)


def communication(devices: tuple[str, ...]) -> str:
    """Names the way in which replicas exchange tensors, as TensorFlow's collectives take it.

    NCCL knows one replica a GPU. Logical devices share one, and then, as on CPUs, a ring over the
    host stands in for it; left alone, TensorFlow takes that ring on GPUs too.
    """
    gpus = all(tf.DeviceSpec.from_string(device).device_type == "GPU" for device in devices)
    whole = len(tf.config.list_logical_devices("GPU")) == len(tf.config.get_visible_devices("GPU"))
    return "nccl" if gpus and whole else "ring"


class _Local(threading.local):
    """The state of the replica whose step this thread traces: replicas are traced in threads."""

    inside: Inside | None = None
    row_weights: tf.Tensor | None = None


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

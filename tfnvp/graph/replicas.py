"""Functions that layers and replicas share, and what code on several replicas needs to know.

Replicas are what a `tf.distribute` strategy runs a step on at once.
"""

import contextlib
import functools
import itertools
import threading
import zlib

import keras
import tensorflow as tf

# Not public: the options of calls, of the thread that traces.
from tensorflow.python.eager import context as eager


def several():
    """The replica context where this is one of several replicas, or None.

    In a `SharedFunction` it is an `Inside`, which stands in for one.
    """
    if (inside := getattr(_local, "inside", None)) is not None:
        return inside
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def sum_over(value):
    """The sum over all replicas of a tensor, or of each of a list."""
    context = several()
    if context is None:
        return value
    known = isinstance(value, list) and all(v.shape.is_fully_defined() for v in value)
    if known and not tf.executing_eagerly() and may_meet_in_functions():
        return _sums(value)
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def summed_on_the_first(gradients):
    """The sums of gradients over all replicas on the first of them, zeros on all others.

    Keras clips the gradients of each replica before it adds them up. Given these, it clips the sum.
    """
    is_first = tf.equal(several().replica_id_in_sync_group, 0)
    return [tf.where(is_first, gradient, 0) for gradient in sum_over(gradients)]


# TensorFlow's convolutions and batch normalizations do not stand a batch of no rows, which the last
# one of an epoch can leave a replica with: a row of zeros then stands in for it.


@contextlib.contextmanager
def rows_counting(counting):
    """Within this context the rows of this replica's batch count in statistics, or do not.

    Args:
        counting: a scalar, 1 or 0: whether they are data, or stand in for a batch of no rows; None
            where they always are data.
    """
    with _set(counting=counting):
        yield


def rows_count(dtype):
    """1, or 0 where the rows of this replica's batch do not count in statistics."""
    counting = getattr(_local, "counting", None)
    return tf.ones([], dtype) if counting is None else tf.cast(counting, dtype)


def remembered():
    """A context manager in which, later and elsewhere, this is the replica that it is now."""
    now = {name: getattr(_local, name, None) for name in ("inside", "counting")}
    return lambda: _set(**now)


def may_meet_in_functions():
    """Whether replicas, if there are several, may meet in a `SharedFunction` called here."""
    context = several()
    return (
        context is None
        or isinstance(context, Inside)
        or isinstance(context.strategy, tf.distribute.MirroredStrategy)
    )


def handle(variable):
    """The resource that this replica's part of a Keras variable is, in graphs."""
    known = getattr(_local, "handles", None) or {}
    # Not `get`: such a variable has no resource of its own there.
    return known[id(variable)] if id(variable) in known else variable.value.handle  # noqa: SIM401


def assign(variable, value):
    """Assigns to a Keras variable, under a strategy as its aggregation says."""
    if (
        isinstance(several(), (type(None), Inside))
        or tf.executing_eagerly()
        or not may_meet_in_functions()
        or variable.aggregation != "only_first_replica"
    ):
        variable.assign(value)
    else:
        # The same on all replicas: each assigns its own, where Keras would have them meet.
        value = tf.convert_to_tensor(value, variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=handle(variable), value=value)


@contextlib.contextmanager
def holding(variables, handles, others=()):
    """Within this context, in a `SharedFunction`, Keras variables are this replica's.

    What is assigned to them is so at its end, aggregated over replicas as Keras does it.

    Args:
        variables: a list of Keras variables.
        handles: of each its `handle`, as an argument of the function.
        others: pairs of variables and handles for which `handle` is asked, and no value.
    """
    before = []
    for variable, resource in zip(variables, handles, strict=True):
        value = tf.raw_ops.ReadVariableOp(resource=resource, dtype=variable.dtype)
        value.set_shape(variable.shape)
        before.append((variable, value))
    known = {id(v): resource for v, resource in [*zip(variables, handles, strict=True), *others]}
    with _set(handles=known), keras.StatelessScope(before) as scope:
        yield
    for variable, value in before:
        after = scope.get_current_value(variable)
        if after is value:
            continue
        if variable.aggregation == "mean":
            after = sum_over(after) / several().num_replicas_in_sync
        after = tf.cast(after, variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=known[id(variable)], value=after)


class SharedFunction:
    """A function of tensors that TensorFlow traces, differentiates and optimises once for all.

    It is a `tf.function` that is not inlined, so that each call is one operation of a graph, and
    calls from several replicas, which as TensorFlow has it are traced for each of them, share the
    trace too. Replicas may meet in it, under a `tf.distribute.MirroredStrategy`, by `sum_over`.

    Args:
        function: of nested structures of tensors and variables, with no other state.
    """

    def __init__(self, function):
        self._function = function
        self._traced = {}

    def __call__(self, *args):
        context = several()
        if tf.executing_eagerly() or not may_meet_in_functions():
            return self._function(*args)
        if context is None:
            return self._for(None)(None, *args)
        within = isinstance(context, Inside)
        devices = context.devices if within else context.strategy.extended.worker_devices
        devices = tuple(devices)
        replica = {
            "id": context.replica_id_in_sync_group,
            "counting": getattr(_local, "counting", None),
            "call": tf.zeros([], tf.int32),
        }
        if not within:
            replica["id"] = no_constant(replica["id"])
        # Out of the strategy, and of what else TensorFlow would trace it for again.
        with _outside.as_default(), _optimised_once():
            traced = self._for(devices).get_concrete_function(replica, *args)
        # Exchanges are such calls, see `Inside`.
        if any(op.type == "PartitionedCall" for op in traced.graph.get_operations()):
            # All replicas are here, or TensorFlow says that they cannot be.
            call = _next_call() if within else context.merge_call(_next_call)
            replica["call"] = no_constant(call)
        with _optimised_once():
            return traced(replica, *args)

    def _for(self, devices):
        """The `tf.function` of a replica and arguments for replicas on devices; None for one."""
        if devices not in self._traced:

            def function(replica, *args):
                if replica is None:
                    return self._function(*args)
                inside = Inside(devices, replica["id"], replica["call"])
                with _set(inside=inside, counting=replica["counting"]):
                    return self._function(*args)

            attributes = {"_noinline": True}
            self._traced[devices] = tf.function(
                function, autograph=False, experimental_attributes=attributes
            )
        return self._traced[devices]


@SharedFunction
def _sums(values):
    """Of each of a list of tensors of a dtype, in one exchange."""
    row = sum_over(tf.concat([tf.reshape(value, [-1]) for value in values], axis=0))
    parts = tf.split(row, [value.shape.num_elements() for value in values])
    return [tf.reshape(part, value.shape) for part, value in zip(parts, values, strict=True)]


def no_constant(tensor):
    """The same tensor, so that it is no constant to TensorFlow.

    For each constant that is given to a function that is not inlined, TensorFlow makes a function
    of its own again.
    """
    return tf.compat.v1.placeholder_with_default(tensor, tensor.shape)


class Inside:
    """Stands in for the replica context in a function that replicas share.

    Replicas cannot leave a function to meet, as a replica context has them do. Here they meet by
    collective operations, which find each other by a number: that of the function's call, the same
    on all replicas, and of the exchange in it.
    """

    def __init__(self, devices, replica_id, call):
        self.replica_id_in_sync_group = replica_id
        self.num_replicas_in_sync = len(devices)
        self.devices = devices
        self._numbers = _EXCHANGES_A_CALL * call
        self._exchanges = itertools.count()

    def all_reduce(self, op, value):
        """As of a replica context: the sum over all replicas."""
        assert op is tf.distribute.ReduceOp.SUM

        @tf.custom_gradient
        def summed(value):
            return self._sum(value), self._sum

        return summed(value)

    def _sum(self, value):
        place = next(self._exchanges)
        assert place < _EXCHANGES_A_CALL and value.shape.is_fully_defined(), value
        number = self._numbers + place
        # An operation without effects calls it: TensorFlow lets those that have effects run in the
        # order in which they were made, and replicas would wait for each other for ever.
        call = tf.raw_ops.PartitionedCall
        exchange = _exchange(self.devices, value.dtype)
        (result,) = call(args=[value, number], Tout=[value.dtype], f=exchange)
        result.set_shape(value.shape)
        return result


@functools.cache
def _exchange(devices, dtype):
    """The function of a tensor, one replica's, and an exchange's number that sums over all."""

    def exchanged(value, number):
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
    with _outside.as_default():
        return tf.function(exchanged, autograph=False).get_concrete_function(*specs)


@contextlib.contextmanager
def _optimised_once():
    """Within this context TensorFlow spends less time on optimising functions that are called.

    It optimises each function with the graph around it, and again for each device that calls it, in
    two rounds of which the second finds nothing.
    """
    before = eager.context().function_call_options
    config = tf.compat.v1.ConfigProto.FromString(before.config_proto_serialized)
    options = config.graph_options.rewrite_options
    options.meta_optimizer_iterations = type(options).ONE
    options.function_optimization = type(options).OFF
    eager.context().function_call_options = eager.FunctionCallOptions(config_proto=config)
    try:
        yield
    finally:
        eager.context().function_call_options = before


def _next_call(strategy=None):
    return tf.constant(next(_calls))


_EXCHANGES_A_CALL = 2**12
_calls = itertools.count()
_outside = tf.Graph()


@contextlib.contextmanager
def _set(**values):
    before = {name: getattr(_local, name, None) for name in values}
    vars(_local).update(values)
    try:
        yield
    finally:
        vars(_local).update(before)


_local = threading.local()  # replicas are traced in threads of their own

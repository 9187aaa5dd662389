"""A training step that replicas share: traced once, whatever their number."""

import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.graph.internals import optimised_once, takes_collectives


class SharedStep:
    """A step of several replicas as one function, which each calls with its batch and variables.

    `tf.distribute` traces everything once a replica. Here the step is traced once, as a function of
    a replica's part of the batch and of the handles of its part of every variable; what replicas
    exchange in it goes by collective operations, see `tfnvp.graph.replicas.Inside`.

    Args:
        step: a function of tensors (or None) that reads and assigns Keras variables alone.
        variables: all those variables, made in the scope of a `tf.distribute.MirroredStrategy`.
    """

    def __init__(self, step: Callable, variables: list[keras.Variable]) -> None:
        self._step = step
        self._variables = variables
        # We trace in a neutral graph: the ambient strategy and device would become part of the
        # cache key.
        self._neutral = tf.Graph()
        self._function = tf.function(
            self._run, autograph=False, experimental_attributes={"_noinline": True}
        )

    @staticmethod
    def fits(variables: list[keras.Variable]) -> bool:
        """Tells whether this is one of several replicas that can share a step on variables.

        A strategy with `cross_device_ops` of the user's own, and the environment variable
        TFNVP_PLAIN_REPLICAS, ask for TensorFlow's ordinary path.
        """
        context = tf.distribute.get_replica_context()
        return (
            not tf.executing_eagerly()
            and context is not None
            and context.num_replicas_in_sync > 1
            and isinstance(context.strategy, tf.distribute.MirroredStrategy)
            and takes_collectives(context.strategy)
            and os.environ.get("TFNVP_PLAIN_REPLICAS", "0") in ("", "0")
            # A variable that was made outside of the strategy's scope is one replica's alone.
            and all(isinstance(v.value, tf.distribute.DistributedValues) for v in variables)
        )

    def __call__(self, *args: tf.Tensor | None) -> Any:
        """Runs the step on this replica; all replicas must call it together."""
        context = tf.distribute.get_replica_context()
        # All replicas are here, or TensorFlow says that they cannot be.
        call = context.merge_call(replicas.next_call)
        self._devices = tuple(context.strategy.extended.worker_devices)
        replica = {
            "id": replicas.hide_from_constant_folding(context.replica_id_in_sync_group),
            "call": replicas.hide_from_constant_folding(call),
        }
        handles = [variable.value.handle for variable in self._variables]
        with optimised_once():
            with self._neutral.as_default():
                traced = self._function.get_concrete_function(replica, handles, *args)
            return traced(replica, handles, *args)

    def _run(self, replica: dict, handles: list[tf.Tensor], *args: tf.Tensor | None) -> Any:
        inside = replicas.Inside(self._devices, replica["id"], replica["call"])
        inside.handles = dict(zip(map(id, self._variables), handles, strict=True))
        with replicas.within(replicas.Replica(inside)), _OwnVariables(inside.handles):
            return self._step(*args)


class _OwnVariables(keras.StatelessScope):
    """Within this scope Keras variables are those of one replica, read and assigned there."""

    def __init__(self, handles: dict[int, tf.Tensor]) -> None:
        super().__init__(initialize_variables=False)
        self.handles = handles

    def get_current_value(self, variable: keras.Variable) -> tf.Tensor | None:
        """Gives what the replica's variable holds."""
        # Most of an optimizer's variables are never read here: reading would copy them.
        if id(variable) not in self.state_mapping and id(variable) in self.handles:
            handle = self.handles[id(variable)]
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable.dtype)
            value.set_shape(variable.shape)
            self.state_mapping[id(variable)] = value
        return super().get_current_value(variable)

    def add_update(self, update: tuple[keras.Variable, tf.Tensor]) -> None:
        """Assigns to the replica's variable at once, for an optimizer's operation may follow."""
        variable, value = update
        if variable.aggregation == "mean":
            value = replicas.sum_over(value) / replicas.replica_context().num_replicas_in_sync
        value = tf.cast(value, variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=self.handles[id(variable)], value=value)
        self.state_mapping.pop(id(variable), None)

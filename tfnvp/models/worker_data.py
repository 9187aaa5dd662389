"""Data of several workers, each of which reads all of it and takes its part of every batch."""

import random
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfnvp.graph.internals import steps_of
from tfnvp.models.host_checks import batch_size_of, dataset_of, hold_out

if TYPE_CHECKING:
    from tfnvp.models.training_steps import TrainingSteps

_OFF = tf.data.experimental.AutoShardPolicy.OFF


def check_for_workers(model: "TrainingSteps", method: str, given: dict[str, Any]) -> None:
    """Sees to it that workers see the same order of rows, or they see some twice and others never.

    Arrays that `fit` shuffles become a data set in an order that the chief draws for all.

    Args:
        model: one under a `tf.distribute.MultiWorkerMirroredStrategy`.
        method: the Keras method that is called.
        given: its arguments, which may change.

    Raises:
        ValueError: for a data set whose order differs from worker to worker, or that gives all of
            them the same rows.
    """
    # Keras would split the arrays itself, which are a data set by then.
    hold_out(given)
    x, held_out = given["x"], given.get("validation_data")
    for name, data in (("x", x), ("validation_data", held_out)):
        if isinstance(data, tf.data.Dataset):
            _check_order(name, data)
    if method == "fit" and hasattr(x, "shape") and given.get("shuffle", True):
        arrays = [given.pop(name, None) for name in ("x", "y", "sample_weight")]
        size = batch_size_of(len(x), given.pop("batch_size", None), given.get("steps_per_epoch"))
        seed = _drawn_by_the_chief(model.distribute_strategy)
        given |= {"x": dataset_of(arrays, size, shuffle=True, seed=seed), "shuffle": False}


def _check_order(name: str, data: tf.data.Dataset) -> None:
    steps = steps_of(data)
    if ("shuffle", False) in steps:
        raise ValueError(
            f"{name} must be shuffled with a seed under several workers, .shuffle(n, seed=0): each "
            "takes its part of every batch, and without one their orders differ"
        )
    policy = data.options().experimental_distribute.auto_shard_policy
    if policy == _OFF and "shard" not in dict(steps):
        raise ValueError(
            f"{name} must be sharded under several workers, .shard(workers, index), where "
            "auto_shard_policy is OFF, or all of them see the same rows; or leave the policy alone"
        )


def _drawn_by_the_chief(strategy: tf.distribute.Strategy) -> int:
    """Draws a number on the first worker, for all of them."""
    # Collectives on GPUs take floats, which hold integers up to here exactly.
    drawn = tf.constant(random.randrange(2**24), tf.float32)

    def of_the_first() -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.where(tf.equal(replica, 0), drawn, 0)

    total = tf.function(lambda: strategy.reduce("SUM", strategy.run(of_the_first), axis=None))
    return int(total())

"""Data of several workers, each of which reads all of it and takes its part of every batch."""

import random
import zlib
from collections.abc import Callable
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
        ValueError: for data whose order differs from worker to worker, or a data set that gives all
            of them the same rows.
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
        # Collectives on GPUs take floats, which hold integers up to here exactly.
        seed = _of_the_chief(model.distribute_strategy, random.randrange(2**24))
        given |= {"x": dataset_of(arrays, size, shuffle=True, seed=seed), "shuffle": False}
    for name, data in (("x", given["x"]), ("validation_data", held_out)):
        if isinstance(data, tf.data.Dataset):
            _check_seeds(model.distribute_strategy, name, data)


def _check_order(name: str, data: tf.data.Dataset) -> None:
    steps = steps_of(data)
    unseeded = [kind for kind, seeds in steps if seeds and not any(seeds)]
    if unseeded:
        raise ValueError(
            f"{name} must be shuffled with a seed under several workers, .shuffle(n, seed=0), as "
            "must all that draws: each worker takes its part of every batch, and without one their "
            f"orders differ; got none for '{unseeded[0]}'"
        )
    policy = data.options().experimental_distribute.auto_shard_policy
    if policy == _OFF and "shard" not in dict(steps):
        raise ValueError(
            f"{name} must be sharded under several workers, .shard(workers, index), where "
            "auto_shard_policy is OFF, or all of them see the same rows; or leave the policy alone"
        )


def _check_seeds(strategy: tf.distribute.Strategy, name: str, data: tf.data.Dataset) -> None:
    # TensorFlow mixes a program's global seed into the seed of each shuffle.
    own = zlib.crc32(repr([seeds for _, seeds in steps_of(data)]).encode()) % 2**24
    differs = own != _of_the_chief(strategy, own)
    if _sum(strategy, lambda replica: tf.constant(float(differs))):
        raise ValueError(
            f"{name} must be in one order on all workers, got seeds that differ: give all of them "
            "the same global seed (keras.utils.set_random_seed, tf.random.set_seed), or none"
        )


def _of_the_chief(strategy: tf.distribute.Strategy, number: int) -> int:
    """Gives all workers the number that the first of them has, below 2^24."""
    return int(_sum(strategy, lambda replica: tf.where(tf.equal(replica, 0), float(number), 0)))


def _sum(strategy: tf.distribute.Strategy, of_replica: Callable[[tf.Tensor], tf.Tensor]) -> float:
    """Sums what a function makes of the number of each replica."""

    def run() -> tf.Tensor:
        return of_replica(tf.distribute.get_replica_context().replica_id_in_sync_group)

    total = tf.function(lambda: strategy.reduce("SUM", strategy.run(run), axis=None))
    return float(total())

"""Seeds and noise of stateless random operations."""

import keras
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.types import TensorLike


def fresh_seed(generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Draws the next seed [2] of a `keras.random.SeedGenerator`, another one on each replica."""
    seed = tf.cast(generator.next(), tf.int32)
    context = replicas.replica_context()
    if context is None:
        return seed
    # The generator's state is the same on every replica.
    replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
    return tf.random.experimental.stateless_fold_in(seed, replica, alg="philox")


def uniform(shape: TensorLike, seed: TensorLike, dtype: str | tf.DType) -> tf.Tensor:
    """Draws stateless noise in [0, 1)."""
    # The algorithm is named, since the default one differs with and without XLA.
    return tf.random.stateless_uniform(shape, seed, dtype=dtype, alg="philox")


def random_bytes(shape: TensorLike, seed: TensorLike) -> tf.Tensor:
    """Draws stateless integers 0..255, uint8."""
    size = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform(
        [(size + 3) // 4], seed, minval=None, maxval=None, dtype=tf.int32, alg="philox"
    )
    return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:size], shape)


def stateless_seed(seed: TensorLike | None) -> tf.Tensor:
    """Makes a seed [2], int32, for stateless operations from an integer, such a pair, or None.

    Raises:
        ValueError: for an integer of more than 64 bits.
    """
    if seed is None:
        return tf.random.uniform([2], minval=tf.int32.min, maxval=tf.int32.max, dtype=tf.int32)
    if isinstance(seed, int) and not tf.int32.min <= seed <= tf.int32.max:
        if not tf.int64.min <= seed <= tf.int64.max:
            raise ValueError(f"seed must be an integer of 64 bits, got seed={seed}")
        # No 64-bit seed is truncated to another's.
        return tf.reverse(tf.bitcast(tf.constant(seed, tf.int64), tf.int32), [0])
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    return tf.stack([tf.zeros_like(seed), seed]) if seed.shape.rank == 0 else seed

"""What all sets share: the way from single images to batches."""

import dataclasses

import tensorflow as tf

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a set before it is read.

    Attributes:
        image_shape: `(height, width, channels)`.
        levels: number of values a pixel takes; its images carry 0..levels-1.
        source: where the images come from, one line.

    Example:
        >>> DatasetInfo(image_shape=(8, 8, 1), levels=17, source="my scanner").levels
        17
    """

    image_shape: tuple[int, int, int]
    levels: int
    source: str


def feed(
    images: tf.data.Dataset,
    split: str,
    batch_size: int | None,
    *,
    shuffle: bool | None,
    seed: int,
    flip: bool,
) -> tf.data.Dataset:
    """Shuffles, batches, flips and prefetches; the arguments are those of `tfnvp.data.load`.

    Args:
        images: uint8 [H, W, C], of known cardinality.

    Returns:
        uint8 [H, W, C], or [B, H, W, C] with a batch size; of known cardinality.
    """
    if shuffle or (shuffle is None and split == "train"):
        # The whole set in the buffer: a smaller one would leave neighbours close together.
        images = images.shuffle(images.cardinality(), seed=seed, reshuffle_each_iteration=True)
    if batch_size is not None:
        images = images.batch(batch_size, num_parallel_calls=tf.data.AUTOTUNE)
    if flip:
        images = _flip(images, seed)
    return images.prefetch(tf.data.AUTOTUNE)


def _flip(images: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """Mirrors each image with probability 1/2, a whole batch in one operation."""
    # A counter zipped to the images, whose numbers change from epoch to epoch, keeps the draws
    # themselves stateless: they do not depend on which thread of `map` comes first.
    counter = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)

    def flip(images, count):
        shape = tf.concat([tf.shape(images)[:-3], [1, 1, 1]], axis=0)
        draws = tf.random.stateless_uniform(shape, seed=[seed, count], alg="philox")
        return tf.where(draws < 0.5, tf.reverse(images, axis=[-2]), images)

    return tf.data.Dataset.zip(images, counter).map(flip, num_parallel_calls=tf.data.AUTOTUNE)

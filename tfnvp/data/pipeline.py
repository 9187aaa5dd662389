"""The way from single images to batches, which all sets share."""

import dataclasses
import math

import tensorflow as tf

SPLITS = ("train", "validation", "test")

# A larger set is decoded anew in each epoch; CelebA's training split has 2.0 GB.
_CACHE_BYTES = 2 * 2**30
# The shuffle buffer holds all of CIFAR-10 or CelebA. It holds a part of larger sets, which comes
# from all over the set, since TFDS shuffled it when it wrote it.
_SHUFFLE_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Facts about a set that are known before it is read.

    Attributes:
        image_shape: `(height, width, channels)`; `(size,)` for a set of vectors.
        levels: number of values a pixel takes; its images carry 0..levels-1. 1 for vectors.
        source: where the images come from, one line.
        num_classes: how many classes its labels name; None for a set without labels.

    Example:
        >>> from tfnvp.data import DatasetInfo
        >>> DatasetInfo(image_shape=(8, 8, 1), levels=17, source="my scanner").levels
        17
    """

    image_shape: tuple[int, ...]
    levels: int
    source: str
    num_classes: int | None = None


def cached(images: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps the images in memory if all of them fit into 2 GiB."""
    fits = int(images.cardinality()) * _image_bytes(images) <= _CACHE_BYTES
    return images.cache() if fits else images


def feed(
    images: tf.data.Dataset,
    split: str,
    batch_size: int | None,
    image_shape: tuple[int, int, int] | None = None,
    shuffle: bool | None = None,
    seed: int = 0,
    flip: bool = False,
    epochs: range | None = None,
    indices: bool = False,
) -> tf.data.Dataset:
    """Shuffles, crops, batches, flips and prefetches; arguments are those of `tfnvp.data.load`.

    Args:
        images: uint8 [h, w, C], or pairs of these and labels, of known cardinality.
        image_shape: the shape to cut out of larger images, at random where they are shuffled and
            from the middle otherwise; None for images of one shape.

    Returns:
        uint8 [H, W, C], or [B, H, W, C] with a batch size, or pairs; of known cardinality.
    """
    shuffle = split == "train" if shuffle is None else shuffle
    # The buffer takes the whole set where it fits: a smaller one leaves neighbours close together.
    count = int(images.cardinality())
    buffer = max(1, min(count, _SHUFFLE_BYTES // _image_bytes(images)))
    if indices:
        images, image_shape, flip = tf.data.Dataset.range(count), None, False

    def epoch(seed: int | tf.Tensor) -> tf.data.Dataset:
        rows = images
        if shuffle:
            rows = rows.shuffle(buffer, seed=seed, reshuffle_each_iteration=True)
        if image_shape is not None and _image_spec(images).shape != image_shape:
            rows = _crop(rows, image_shape, seed if shuffle else None)
        if batch_size is not None:
            rows = rows.batch(batch_size, num_parallel_calls=tf.data.AUTOTUNE)
        return _flip(rows, seed) if flip else rows

    def numbered(number: tf.Tensor) -> tf.data.Dataset:
        # Were TensorFlow's global seed 0, it would compare ours with 0, which a tensor forbids.
        tf.compat.v1.set_random_seed(1)
        # The seeds of `tf.random` have no more than 31 bits.
        options = {"maxval": 2**31 - 1, "dtype": tf.int64, "alg": "philox"}
        return epoch(tf.random.stateless_uniform([], [seed, number], **options))

    if epochs is None:
        batches = epoch(seed)
    else:
        if not isinstance(epochs, range) or epochs.step != 1 or epochs.start < 0:
            wanted = "a range of numbers from 0 up, such as range(10)"
            raise ValueError(f"epochs must be {wanted}, got epochs={epochs!r}")
        batches = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(numbered)
        length = len(epoch(seed)) * len(epochs)
        batches = batches.apply(tf.data.experimental.assert_cardinality(length))
    # Each of several workers takes its part of every batch: sharding by files would make the
    # batches others than those of one worker.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _image_spec(images: tf.data.Dataset) -> tf.TensorSpec:
    return tf.nest.flatten(images.element_spec)[0]


def _image_bytes(images: tf.data.Dataset) -> int:
    # Sides that differ from image to image are guessed, from a 4:3 photograph of LSUN.
    return math.prod(size or 128 for size in _image_spec(images).shape)


def _draws(images: tf.data.Dataset, seed: int | tf.Tensor) -> tf.data.Dataset:
    """Pairs each image with a random number, another one in each epoch."""
    # Numbers that are zipped to the images let the random operations be stateless: they do not
    # depend on which thread of `map` comes first.
    counter = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(images, counter)


def _crop(
    images: tf.data.Dataset, image_shape: tuple[int, int, int], seed: int | tf.Tensor | None
) -> tf.data.Dataset:
    """Cuts images to a shape, at random or, without a seed, from the middle."""
    height, width, _ = image_shape

    def cut(image: tf.Tensor, draw: tf.Tensor | None = None) -> tf.Tensor:
        spare = tf.shape(image)[:2] - [height, width]
        if draw is None:
            top, left = tf.unstack(spare // 2)
        else:
            uniform = tf.random.stateless_uniform([2], seed=[seed, draw], alg="philox")
            top, left = tf.unstack(tf.cast(uniform * tf.cast(spare + 1, tf.float32), tf.int32))
        return tf.ensure_shape(image[top : top + height, left : left + width], image_shape)

    source = images if seed is None else _draws(images, seed)
    return source.map(cut, num_parallel_calls=tf.data.AUTOTUNE)


def _flip(images: tf.data.Dataset, seed: int | tf.Tensor) -> tf.data.Dataset:
    """Mirrors each image with probability 1/2, a whole batch in one operation."""

    def flip(batch: tf.Tensor | tuple, draw: tf.Tensor) -> tf.Tensor | tuple:
        images, *labels = tf.nest.flatten(batch)
        shape = tf.concat([tf.shape(images)[:-3], [1, 1, 1]], axis=0)
        draws = tf.random.stateless_uniform(shape, seed=[seed, draw], alg="philox")
        flipped = tf.where(draws < 0.5, tf.reverse(images, axis=[-2]), images)
        return (flipped, *labels) if labels else flipped

    return _draws(images, seed).map(flip, num_parallel_calls=tf.data.AUTOTUNE)

"""What all sets share: the way from single images to batches."""

import dataclasses
import math

import tensorflow as tf

SPLITS = ("train", "validation", "test")

# A set that is larger is decoded anew in each epoch; CelebA's training split is 2.0 GB.
_CACHE_BYTES = 2 * 2**30
# Images that wait to be shuffled: all of CIFAR-10 or CelebA; of larger sets a part, which comes
# from all over the set, since TFDS shuffled it when it wrote it.
_SHUFFLE_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a set before it is read.

    Attributes:
        image_shape: `(height, width, channels)`; `(size,)` of a set of vectors.
        levels: number of values a pixel takes; its images carry 0..levels-1. 1 of vectors.
        source: where the images come from, one line.
        num_classes: how many classes its labels name; None for a set without labels.

    Example:
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
    *,
    image_shape: tuple[int, int, int] | None = None,
    shuffle: bool | None,
    seed: int,
    flip: bool,
    epochs: range | None = None,
    indices: bool = False,
) -> tf.data.Dataset:
    """Shuffles, crops, batches, flips and prefetches; arguments are those of `tfnvp.data.load`.

    Args:
        images: uint8 [h, w, C], or pairs of these and labels, of known cardinality.
        image_shape: what is cut out of images that are larger, at random where they are shuffled
            and from the middle otherwise; None for images of one shape.

    Returns:
        uint8 [H, W, C], or [B, H, W, C] with a batch size, or pairs; of known cardinality.
    """
    shuffle = split == "train" if shuffle is None else shuffle
    # The whole set in the buffer where it fits: a smaller one leaves neighbours close together.
    count = int(images.cardinality())
    buffer = max(1, min(count, _SHUFFLE_BYTES // _image_bytes(images))) if shuffle else None
    if indices:
        images, image_shape, flip = tf.data.Dataset.range(count), None, False

    def epoch(seed):
        return _epoch(images, batch_size, image_shape, buffer, seed, flip)

    def numbered(number):
        # The seed of all of TensorFlow's operations, were it 0, would be compared with a tensor.
        tf.compat.v1.set_random_seed(1)
        return epoch(_epoch_seed(seed, number))

    if epochs is None:
        batches = epoch(seed)
    else:
        _check_epochs(epochs)
        batches = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(numbered)
        length = len(epoch(seed)) * len(epochs)
        batches = batches.apply(tf.data.experimental.assert_cardinality(length))
    # On several workers each takes its part of every batch: by files they would be other batches.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _epoch(images, batch_size, image_shape, buffer, seed, flip):
    """One epoch, with a buffer in a random order."""
    if buffer is not None:
        images = images.shuffle(buffer, seed=seed, reshuffle_each_iteration=True)
    if image_shape is not None and _image_spec(images).shape != image_shape:
        images = _crop(images, image_shape, None if buffer is None else seed)
    if batch_size is not None:
        images = images.batch(batch_size, num_parallel_calls=tf.data.AUTOTUNE)
    return _flip(images, seed) if flip else images


def _epoch_seed(seed, number):
    """A seed for an epoch from that of all and the epoch's number."""
    # Of no more bits than a seed of `tf.random` has.
    return tf.random.stateless_uniform(
        [], [seed, number], maxval=2**31 - 1, dtype=tf.int64, alg="philox"
    )


def _check_epochs(epochs):
    if not isinstance(epochs, range) or epochs.step != 1 or epochs.start < 0:
        raise ValueError(
            f"epochs must be a range of numbers from 0 up, such as range(10), got epochs={epochs!r}"
        )


def _image_spec(images: tf.data.Dataset) -> tf.TensorSpec:
    return tf.nest.flatten(images.element_spec)[0]


def _image_bytes(images: tf.data.Dataset) -> int:
    # Sides that differ from image to image are taken for those of a 4:3 photograph of LSUN.
    return math.prod(size or 128 for size in _image_spec(images).shape)


def _draws(images: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """The images, each with a number of its own that is another one in each epoch."""
    # Numbers zipped to the images keep the random operations themselves stateless: they do not
    # depend on which thread of `map` comes first.
    counter = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(images, counter)


def _crop(
    images: tf.data.Dataset, image_shape: tuple[int, int, int], seed: int | None
) -> tf.data.Dataset:
    """Cuts images to a shape, at random or, without a seed, from the middle."""
    height, width, _ = image_shape

    def cut(image, draw=None):
        spare = tf.shape(image)[:2] - [height, width]
        if draw is None:
            top, left = tf.unstack(spare // 2)
        else:
            uniform = tf.random.stateless_uniform([2], seed=[seed, draw], alg="philox")
            top, left = tf.unstack(tf.cast(uniform * tf.cast(spare + 1, tf.float32), tf.int32))
        return tf.ensure_shape(image[top : top + height, left : left + width], image_shape)

    source = images if seed is None else _draws(images, seed)
    return source.map(cut, num_parallel_calls=tf.data.AUTOTUNE)


def _flip(images: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """Mirrors each image with probability 1/2, a whole batch in one operation."""

    def flip(batch, draw):
        images, *labels = tf.nest.flatten(batch)
        shape = tf.concat([tf.shape(images)[:-3], [1, 1, 1]], axis=0)
        draws = tf.random.stateless_uniform(shape, seed=[seed, draw], alg="philox")
        flipped = tf.where(draws < 0.5, tf.reverse(images, axis=[-2]), images)
        return (flipped, *labels) if labels else flipped

    return _draws(images, seed).map(flip, num_parallel_calls=tf.data.AUTOTUNE)

"""Images as `tf.data` pipelines: embedded sets, TFDS sets and folders of the user's own files.

Every pipeline yields uint8 images, [H, W, C] or in batches [B, H, W, C], that carry 0..levels-1.
The set `moons` has vectors instead, float32 [D] or [B, D].
"""

import tensorflow as tf

from tfnvp.checks import check_choice, check_positive_int
from tfnvp.data import embedded, pipeline, tfds_sets
from tfnvp.data.folder import load_folder
from tfnvp.data.image_files import ImageFileError, read_images
from tfnvp.data.pipeline import SPLITS, DatasetInfo
from tfnvp.data.tfds_sets import DatasetNotFoundError

__all__ = [
    "SPLITS",
    "DatasetInfo",
    "DatasetNotFoundError",
    "ImageFileError",
    "info",
    "load",
    "load_folder",
    "names",
    "read_images",
]

_SETS = {**embedded.SETS, **tfds_sets.SETS}


def names() -> list[str]:
    """The names of the sets, sorted."""
    return sorted(_SETS)


def info(name: str) -> DatasetInfo:
    """Tells the image shape, the levels and the source of a set without reading it.

    Raises:
        ValueError: if `name` is unknown; the message lists the known ones.

    Example:
        >>> tfnvp.data.info("digits").image_shape
        (8, 8, 1)
        >>> tfnvp.data.info("digits").levels
        17
    """
    check_choice("name", name, tuple(_SETS))
    return _SETS[name].info


def load(
    name: str,
    split: str = "train",
    batch_size: int | None = None,
    *,
    shuffle: bool | None = None,
    seed: int = 0,
    flip: bool = False,
    labels: bool = False,
    epochs: range | None = None,
    indices: bool = False,
) -> tf.data.Dataset:
    """A named set as a pipeline of uint8 images, or of vectors.

    | name | image shape | levels | train | validation | test | source (TFDS, scikit-learn) |
    |---|---|---|---|---|---|---|
    | `digits` | 8, 8, 1 | 17 | 1,297 | 200 | 300 | `sklearn.datasets.load_digits` |
    | `photos` | 32, 32, 3 | 256 | 3,600 | 104 | 104 | `sklearn.datasets.load_sample_images` |
    | `moons` | 2 | | 10,000 | 10,000 | 10,000 | `sklearn.datasets.make_moons` |
    | `cifar10` | 32, 32, 3 | 256 | 95% | the last 5% | all | `cifar10` |
    | `mnist` | 28, 28, 1 | 256 | 11/12 | the last 1/12 | all | `mnist` |
    | `fashion_mnist` | 28, 28, 1 | 256 | 11/12 | the last 1/12 | all | `fashion_mnist` |
    | `kmnist` | 28, 28, 1 | 256 | 11/12 | the last 1/12 | all | `kmnist` |
    | `svhn_cropped` | 32, 32, 3 | 256 | 11/12 | the last 1/12 | all | `svhn_cropped` |
    | `imagenet32` | 32, 32, 3 | 256 | 98% | the last 2% | all | `downsampled_imagenet/32x32` |
    | `imagenet64` | 64, 64, 3 | 256 | 98% | the last 2% | all | `downsampled_imagenet/64x64` |
    | `lsun_bedroom` | 64, 64, 3 | 256 | 98% | the last 2% | all | `lsun/bedroom` |
    | `lsun_tower` | 64, 64, 3 | 256 | 98% | the last 2% | all | `lsun/tower` |
    | `lsun_church_outdoor` | 64, 64, 3 | 256 | 98% | the last 2% | all | `lsun/church_outdoor` |
    | `celeb_a` | 64, 64, 3 | 256 | all | all | all | `celeb_a` |

    The table's shares are of the TFDS training split, and test is the TFDS validation split where
    there is no test split. Sets of TFDS are read from its data directory, the environment variable
    `TFDS_DATA_DIR` or else `~/tensorflow_datasets`, and never downloaded; `info(name).source` has
    the version. They are decoded once and kept in memory up to 2 GiB; larger ones are decoded anew
    in each epoch. CelebA is cut to the central 148 x 148 pixels and resized to 64 x 64. LSUN is
    resized to a smaller side of 96 and cut to 64 x 64, at random where it is shuffled and from the
    middle otherwise. Source: Real NVP (arXiv 1605.08803), section 4.1.

    Args:
        name, split: a set of the table, and `"train"`, `"validation"` or `"test"`.
        batch_size: images in a batch; the last batch may be smaller and is kept. None gives
            single images.
        shuffle: whether each epoch is in a new random order rather than a fixed one; None means
            for `"train"` alone.
        seed: integer that decides the orders and the flips of all epochs, together with that of
            `tf.random.set_seed` where that is called.
        flip: whether each image is mirrored left to right with probability 1/2, drawn afresh
            each epoch.
        labels: whether each image comes with its class, for a conditional model: of `digits`,
            `mnist`, `fashion_mnist`, `kmnist`, `svhn_cropped`, `cifar10` and `moons`.
        epochs: the numbers of the epochs to give one after the other, from 0 up. The order of each
            depends on the seed and its number alone; None gives one epoch, not numbered.
        indices: whether to give, instead of the images, their places in the set, int64.

    Returns:
        A `tf.data.Dataset` of known cardinality, of uint8 [H, W, C] or [B, H, W, C] in 0..levels-1;
        with labels, of pairs of these and int64 [] or [B] in 0..num_classes-1. `moons` has float32
        [2] or [B, 2] in place of images.

    Raises:
        ValueError: if `name`, `split` or `batch_size` is not one that is described here, or labels
            are asked of a set that has none, or a flip of vectors.
        DatasetNotFoundError: if a TFDS set is not in the data directory; says how to get it.
        ImportError: if a TFDS set is asked for without the extra `data`.

    Example:
        >>> images = tfnvp.data.load("digits", split="test", batch_size=64)
        >>> len(images), next(iter(images)).shape
        (5, TensorShape([64, 8, 8, 1]))
    """
    check_choice("name", name, tuple(_SETS))
    check_choice("split", split, SPLITS)
    check_positive_int("batch_size", batch_size, optional=True)
    if labels and not _SETS[name].info.num_classes:
        labelled = ", ".join(known for known in names() if _SETS[known].info.num_classes)
        raise ValueError(f"labels: the set {name!r} has none; those with labels: {labelled}")
    if flip and len(_SETS[name].info.image_shape) != 3:
        raise ValueError(f"flip: the set {name!r} has no images that could be mirrored")
    images, shape = _SETS[name].read(split, labels), _SETS[name].info.image_shape
    return pipeline.feed(images, split, batch_size, shape, shuffle, seed, flip, epochs, indices)

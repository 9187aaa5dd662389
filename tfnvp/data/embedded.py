"""The sets that come with scikit-learn and need no download: `digits`, `photos` and `moons`."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfnvp.data.pipeline import DatasetInfo

# Each split of `photos` takes these columns [first, last) of the two photographs: of every 160 of
# the 640, 96 train, 32 validate and 32 test. So each sees the pagoda, the sky, the flower and its
# blurred ground in about the same shares: were a split one band, it would be of another kind of
# picture, and its score would say little of the model.
_PATCH = 32
_BANDS = {
    "train": [(first, first + 96) for first in range(0, 640, 160)],
    "validation": [(first + 96, first + 128) for first in range(0, 640, 160)],
    "test": [(first + 128, first + 160) for first in range(0, 640, 160)],
}
# Train patches overlap, so that there are a few thousand; patches that are scored do not.
_STRIDES = {"train": 8, "validation": _PATCH, "test": _PATCH}


def _cut_patches(photograph: np.ndarray, split: str) -> np.ndarray:
    """Cuts the patches of a split, [N, 32, 32, C], out of a photograph [H, 640, C]."""
    stride = _STRIDES[split]
    patches = [
        photograph[row : row + _PATCH, column : column + _PATCH]
        for first, last in _BANDS[split]
        for row in range(0, photograph.shape[0] - _PATCH + 1, stride)
        for column in range(first, last - _PATCH + 1, stride)
    ]
    return np.stack(patches)


def _photos(split: str, labels: bool) -> tf.data.Dataset:
    """32x32 colour patches of scikit-learn's two photographs, 427 x 640, uint8 [32, 32, 3].

    The splits share no pixel. Of every 160 columns the first 96 train, at a stride of 8, 2 x 1,800
    patches; the next 32 validate and the last 32 test, at a stride of 32, 2 x 52 patches each.
    """
    from sklearn.datasets import load_sample_images  # It is slow to import.

    photographs = load_sample_images().images
    patches = np.concatenate([_cut_patches(photograph, split) for photograph in photographs])
    return tf.data.Dataset.from_tensor_slices(patches)


def _digits(split: str, labels: bool) -> tf.data.Dataset:
    """scikit-learn's 1,797 handwritten digits, uint8 [8, 8, 1] in 0..16.

    The first 1,297 of `numpy.random.RandomState(0).permutation(1797)` train, the next 200
    validate and the last 300 test. With labels, pairs of an image and 0..9, int64.
    """
    from sklearn.datasets import load_digits  # It is slow to import.

    digits = load_digits()
    images = digits.images.astype(np.uint8)[..., None]
    order = np.random.RandomState(0).permutation(len(images))
    train, validation, test = np.split(order, [1297, 1497])
    rows = {"train": train, "validation": validation, "test": test}[split]
    images, classes = images[rows], digits.target[rows]
    return tf.data.Dataset.from_tensor_slices((images, classes) if labels else images)


def _moons(split: str, labels: bool) -> tf.data.Dataset:
    """10,000 points of `make_moons(noise=0.05)`, float32 [2]; with labels, pairs with 0 or 1."""
    from sklearn.datasets import make_moons  # It is slow to import.

    state = {"train": 0, "test": 1, "validation": 2}[split]
    points, moons = make_moons(10_000, noise=0.05, random_state=state)
    points = points.astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((points, moons) if labels else points)


@dataclasses.dataclass(frozen=True)
class EmbeddedSet:
    """A set and the function that gives a split of it as single images or vectors."""

    info: DatasetInfo
    read: Callable[[str, bool], tf.data.Dataset]


SETS = {
    "digits": EmbeddedSet(DatasetInfo((8, 8, 1), 17, "sklearn.datasets.load_digits", 10), _digits),
    "photos": EmbeddedSet(
        DatasetInfo((_PATCH, _PATCH, 3), 256, "sklearn.datasets.load_sample_images"), _photos
    ),
    "moons": EmbeddedSet(DatasetInfo((2,), 1, "sklearn.datasets.make_moons", 2), _moons),
}

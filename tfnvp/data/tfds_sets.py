"""The sets that TensorFlow Datasets has prepared in its data directory; none is downloaded."""

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf

from tfnvp._environment import extra
from tfnvp.data import pipeline
from tfnvp.data.pipeline import DatasetInfo

Prepare = Callable[[tf.Tensor], tf.Tensor] | None


class DatasetNotFoundError(ValueError):
    """A TFDS set is not in the data directory; the message says where, and how to get it."""


@dataclasses.dataclass(frozen=True)
class TFDSSet:
    """A set of TFDS: one row of `SETS`.

    Attributes:
        name: the set, and its config where it has one, as `tfds.load` takes it.
        splits: the TFDS split behind each split of tfnvp.
        prepare: makes of a stored uint8 image [h, w, C] one of `info.image_shape` or, if that is
            cut out of it afterwards, a larger one; None where it is stored in that shape.
    """

    info: DatasetInfo
    name: str
    version: str
    splits: dict[str, str]
    prepare: Prepare = None

    def read(self, split: str, labels: bool = False) -> tf.data.Dataset:
        """The images of a split one by one, in stored order.

        They are decoded once and then kept in memory where they fit, see `pipeline.cached`.

        Returns:
            uint8 images, prepared, or pairs of these and int64 labels, of known cardinality.

        Raises:
            DatasetNotFoundError: if the set is not in the data directory, or not whole.
            ImportError: without the extra `data`.
        """
        try:
            import tensorflow_datasets as tfds  # It is slow to import.
        except ModuleNotFoundError as missing:
            raise ImportError(
                f"the TFDS set {self.name} is read by tensorflow-datasets, of {extra('data')}"
            ) from missing
        # The directory itself is read: a builder looked up by name would depend on what this
        # version of TFDS knows, and warns where the set is missing.
        try:
            builder = tfds.builder_from_directory(self._directory())
        except Exception as error:  # Absent, unreadable and torn JSON raise many types.
            raise self._not_found(f"is not in {self._directory()}") from error
        files = [path for source in builder.info.splits.values() for path in source.filepaths]
        if missing := [path for path in files if not tf.io.gfile.exists(path)]:
            raise self._not_found(f"is incomplete: there is no {missing[0]}")

        def read(example: dict[str, tf.Tensor]) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
            image, shape = example["image"], self.info.image_shape
            image = self.prepare(image) if self.prepare else tf.ensure_shape(image, shape)
            return (image, example["label"]) if labels else image

        # TFDS would cache the labels too, and only some of the sets.
        config = tfds.ReadConfig(try_autocache=False)
        examples = builder.as_dataset(split=self.splits[split], read_config=config)
        return pipeline.cached(examples.map(read, num_parallel_calls=tf.data.AUTOTUNE))

    def _directory(self) -> str:
        # TFDS reads the variable only once, when it is imported.
        data_dir = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
        return os.path.join(os.path.expanduser(data_dir), self.name, self.version)

    def _not_found(self, what: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"the TFDS set {self.name} {self.version} {what}: set TFDS_DATA_DIR to a TFDS data "
            "directory that holds it, or download it with: python -c "
            f"\"import tensorflow_datasets as tfds; tfds.load('{self.name}:{self.version}')\""
        )


def resize(image: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Averages uint8 [h, w, C] over areas to uint8 [height, width, C]."""
    resized = tf.image.resize(image, [height, width], method="area")
    return tf.cast(tf.round(resized), tf.uint8)


def central_148_to_64(image: tf.Tensor) -> tf.Tensor:
    """Prepares CelebA: the central 148 x 148 pixels become 64 x 64 (paper section 4.1)."""
    top, left = (tf.shape(image)[0] - 148) // 2, (tf.shape(image)[1] - 148) // 2
    return tf.ensure_shape(resize(image[top : top + 148, left : left + 148], 64, 64), (64, 64, 3))


def smallest_side_to_96(image: tf.Tensor) -> tf.Tensor:
    """Prepares LSUN: the smaller of height and width becomes 96 pixels (paper section 4.1)."""
    size = tf.shape(image)[:2]
    height, width = tf.unstack((96 * size + tf.reduce_min(size) // 2) // tf.reduce_min(size))
    return tf.ensure_shape(resize(image, height, width), (None, None, 3))


def _set(
    name: str,
    version: str,
    size: int,
    splits: dict[str, str],
    prepare: Prepare = None,
    channels: int = 3,
    **more: int,
) -> TFDSSet:
    info = DatasetInfo((size, size, channels), 256, f"TFDS {name} {version}", **more)
    return TFDSSet(info, name, version, splits, prepare)


# The test split is the one that the paper's figure is for: TFDS' own test split where there is one,
# and its validation split else, in which case our validation split is cut from training.
_CUT = {"train": "train[:98%]", "validation": "train[98%:]", "test": "validation"}
_CIFAR10 = {"train": "train[:95%]", "validation": "train[95%:]", "test": "test"}
# The last twelfth of MNIST's 60,000 are 5,000; TFDS rounds to the nearest image.
_TWELFTH = {"train": "train[:91.6667%]", "validation": "train[91.6667%:]", "test": "test"}
_GREY = {"channels": 1, "num_classes": 10}
_ALL = {split: split for split in pipeline.SPLITS}

SETS = {
    "cifar10": _set("cifar10", "3.0.2", 32, _CIFAR10, num_classes=10),
    "mnist": _set("mnist", "3.0.1", 28, _TWELFTH, **_GREY),
    "fashion_mnist": _set("fashion_mnist", "3.0.1", 28, _TWELFTH, **_GREY),
    "kmnist": _set("kmnist", "3.0.1", 28, _TWELFTH, **_GREY),
    "svhn_cropped": _set("svhn_cropped", "3.1.0", 32, _TWELFTH, num_classes=10),
    "imagenet32": _set("downsampled_imagenet/32x32", "2.0.0", 32, _CUT),
    "imagenet64": _set("downsampled_imagenet/64x64", "2.0.0", 64, _CUT),
    "lsun_bedroom": _set("lsun/bedroom", "3.1.0", 64, _CUT, smallest_side_to_96),
    "lsun_tower": _set("lsun/tower", "3.1.0", 64, _CUT, smallest_side_to_96),
    "lsun_church_outdoor": _set("lsun/church_outdoor", "3.1.0", 64, _CUT, smallest_side_to_96),
    "celeb_a": _set("celeb_a", "2.1.0", 64, _ALL, central_148_to_64),
}

"""The sets that TensorFlow Datasets has prepared in its data directory; none is downloaded."""

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf

from tfnvp.data import pipeline
from tfnvp.data.pipeline import DatasetInfo


class DatasetNotFoundError(ValueError):
    """A TFDS set is not in the data directory; says where it was sought and how to get it.

    Example:
        >>> try:
        ...     pictures = tfnvp.data.load("cifar10")
        ... except tfnvp.data.DatasetNotFoundError as error:
        ...     print(error)  # doctest: +SKIP
    """


@dataclasses.dataclass(frozen=True)
class TFDSSet:
    """A set of TFDS: one row of `SETS`.

    Attributes:
        info: image shape, levels and source.
        name: the set, and its config where it has one, as `tfds.load` takes it.
        version: the version that is read.
        splits: the TFDS split behind each of ours.
        prepare: from a stored uint8 image [h, w, C] to one of `info.image_shape` or, if that is cut
            out of it afterwards, to a larger one; None where it is stored in that shape.
    """

    info: DatasetInfo
    name: str
    version: str
    splits: dict[str, str]
    prepare: Callable[[tf.Tensor], tf.Tensor] | None = None

    def read(self, split: str, labels: bool = False) -> tf.data.Dataset:
        """The images of a split one by one, in stored order.

        They are decoded once and then kept in memory where they fit, see `pipeline.cached`.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            labels: whether they come with their labels, int64.

        Returns:
            uint8 images, prepared, or pairs of these and labels, of known cardinality.

        Raises:
            DatasetNotFoundError: if the set is not in the data directory, or not whole.
        """
        import tensorflow_datasets as tfds  # slow to import

        # Read from the directory itself: a builder looked up by name would depend on what this
        # version of TFDS knows, and warns where the set is missing.
        try:
            builder = tfds.builder_from_directory(self._directory())
        except Exception as error:  # not there, not readable, or a torn JSON: many types
            raise self._not_found(f"is not in {self._directory()}") from error
        missing = [
            path
            for source in builder.info.splits.values()
            for path in source.filepaths
            if not tf.io.gfile.exists(path)
        ]
        if missing:
            raise self._not_found(f"is incomplete: there is no {missing[0]}")

        def read(example):
            image = self._image(example)
            return (image, example["label"]) if labels else image

        images = builder.as_dataset(
            split=self.splits[split],
            # TFDS would cache the labels too, and some sets only.
            read_config=tfds.ReadConfig(try_autocache=False),
        ).map(read, num_parallel_calls=tf.data.AUTOTUNE)
        return pipeline.cached(images)

    def _image(self, example):
        if self.prepare is None:
            return tf.ensure_shape(example["image"], self.info.image_shape)
        return self.prepare(example["image"])

    def _directory(self) -> str:
        # TFDS reads the variable once, when it is imported; here it counts at each call.
        data_dir = os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")
        return os.path.join(os.path.expanduser(data_dir), self.name, self.version)

    def _not_found(self, what: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"the TFDS set {self.name} {self.version} {what}: set TFDS_DATA_DIR to a TFDS data "
            "directory that holds it, or download it with: python -c "
            f"\"import tensorflow_datasets as tfds; tfds.load('{self.name}:{self.version}')\""
        )


def resize(image: tf.Tensor, height, width) -> tf.Tensor:
    """uint8 [h, w, C], averaged over areas to uint8 [height, width, C]."""
    resized = tf.image.resize(image, [height, width], method="area")
    return tf.cast(tf.round(resized), tf.uint8)


def central_148_to_64(image: tf.Tensor) -> tf.Tensor:
    """CelebA: the central 148 x 148 pixels, resized to 64 x 64 (paper section 4.1)."""
    top, left = (tf.shape(image)[0] - 148) // 2, (tf.shape(image)[1] - 148) // 2
    return tf.ensure_shape(resize(image[top : top + 148, left : left + 148], 64, 64), (64, 64, 3))


def smallest_side_to_96(image: tf.Tensor) -> tf.Tensor:
    """LSUN: the smaller of height and width becomes 96 pixels (paper section 4.1)."""
    size = tf.shape(image)[:2]
    height, width = tf.unstack((96 * size + tf.reduce_min(size) // 2) // tf.reduce_min(size))
    return tf.ensure_shape(resize(image, height, width), (None, None, 3))


# What is called the test split is what the paper's figure is for: where a set has a test split it
# is that, and TFDS' validation split else. Where it has no other, validation is cut from training.
_CUT = {"train": "train[:98%]", "validation": "train[98%:]", "test": "validation"}


def _downsampled_imagenet(size: int) -> TFDSSet:
    config = f"downsampled_imagenet/{size}x{size}"
    info = DatasetInfo((size, size, 3), 256, f"TFDS {config} 2.0.0")
    return TFDSSet(info, config, "2.0.0", _CUT)


def _lsun(category: str) -> TFDSSet:
    info = DatasetInfo((64, 64, 3), 256, f"TFDS lsun/{category} 3.1.0")
    return TFDSSet(info, f"lsun/{category}", "3.1.0", _CUT, smallest_side_to_96)


SETS = {
    "cifar10": TFDSSet(
        info=DatasetInfo((32, 32, 3), 256, "TFDS cifar10 3.0.2", num_classes=10),
        name="cifar10",
        version="3.0.2",
        splits={"train": "train[:95%]", "validation": "train[95%:]", "test": "test"},
    ),
    "imagenet32": _downsampled_imagenet(32),
    "imagenet64": _downsampled_imagenet(64),
    "lsun_bedroom": _lsun("bedroom"),
    "lsun_tower": _lsun("tower"),
    "lsun_church_outdoor": _lsun("church_outdoor"),
    "celeb_a": TFDSSet(
        info=DatasetInfo((64, 64, 3), 256, "TFDS celeb_a 2.1.0"),
        name="celeb_a",
        version="2.1.0",
        splits={split: split for split in pipeline.SPLITS},
        prepare=central_148_to_64,
    ),
}

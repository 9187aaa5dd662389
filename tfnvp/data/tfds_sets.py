"""The sets that TensorFlow Datasets has prepared in its data directory; none is downloaded."""

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf

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
        crop: from a stored uint8 image [h, w, C] to one of `info.image_shape`; None where it is
            stored in that shape.
    """

    info: DatasetInfo
    name: str
    version: str
    splits: dict[str, str]
    crop: Callable[[tf.Tensor], tf.Tensor] | None = None

    def read(self, split: str) -> tf.data.Dataset:
        """The images of a split one by one, in stored order, decoded once and then kept in memory.

        Args:
            split: `"train"`, `"validation"` or `"test"`.

        Returns:
            uint8 images of `info.image_shape`, of known cardinality.

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
        images = builder.as_dataset(
            split=self.splits[split],
            # TFDS would cache the labels too, and some sets only.
            read_config=tfds.ReadConfig(try_autocache=False),
        ).map(self._image, num_parallel_calls=tf.data.AUTOTUNE)
        return images.cache()

    def _image(self, example):
        image = example["image"] if self.crop is None else self.crop(example["image"])
        return tf.ensure_shape(image, self.info.image_shape)

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


SETS = {
    "cifar10": TFDSSet(
        info=DatasetInfo((32, 32, 3), 256, "TFDS cifar10 3.0.2"),
        name="cifar10",
        version="3.0.2",
        splits={"train": "train[:95%]", "validation": "train[95%:]", "test": "test"},
    ),
}

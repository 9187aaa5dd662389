import dataclasses
import os
import re

import numpy as np
import pytest
import tensorflow as tf

import tfnvp.data
from tfnvp.data import tfds_sets

_DATA_DIR = os.environ.get("TFDS_DATA_DIR", "")
needs_cifar10 = pytest.mark.skipif(
    not os.path.exists(os.path.join(_DATA_DIR, "cifar10", "3.0.2", "dataset_info.json")),
    reason="TFDS_DATA_DIR does not name a directory that holds cifar10 3.0.2",
)


def _images(*args, **kwargs):
    return np.stack(list(tfnvp.data.load(*args, **kwargs).as_numpy_iterator()))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A TFDS directory with a cifar10 of 40 and 5 images; returns those."""
    import tensorflow_datasets as tfds

    images = np.random.RandomState(0).randint(0, 256, [45, 32, 32, 3]).astype(np.uint8)
    parts = {"train": images[:40], "test": images[40:]}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="cifar10",
        version="3.0.2",
        data_dir=tmp_path,
        disable_shuffling=True,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={
            name: tf.data.Dataset.from_tensor_slices(
                {"image": part, "label": np.zeros(len(part), np.int64)}
            )
            for name, part in parts.items()
        },
    )
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return parts


def test_splits(tiny):
    np.testing.assert_array_equal(_images("cifar10", shuffle=False), tiny["train"][:38])
    np.testing.assert_array_equal(_images("cifar10", "validation"), tiny["train"][38:])
    np.testing.assert_array_equal(_images("cifar10", "test"), tiny["test"])


def test_batches(tiny):
    dataset = tfnvp.data.load("cifar10", batch_size=16, flip=True)
    assert dataset.element_spec == tf.TensorSpec([None, 32, 32, 3], tf.uint8)
    assert [len(batch) for batch in dataset] == [16, 16, 6]
    assert len(dataset) == 3


def test_decoded_once(tiny, monkeypatch):
    calls = []

    def crop(image):
        tf.py_function(lambda: calls.append(1), [], [])
        return image[:16, 8:24]

    row = dataclasses.replace(
        tfds_sets.SETS["cifar10"],
        info=tfnvp.data.DatasetInfo((16, 16, 3), 256, "a test"),
        crop=crop,
    )
    monkeypatch.setitem(tfnvp.data._SETS, "cropped", row)
    dataset = tfnvp.data.load("cropped", "test")
    for _ in range(3):
        images = np.stack(list(dataset.as_numpy_iterator()))
        np.testing.assert_array_equal(images, tiny["test"][:, :16, 8:24])
    assert len(calls) == 5


def test_absent_says_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(tfnvp.data.DatasetNotFoundError) as caught:
        tfnvp.data.load("cifar10")
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in message
    assert os.path.join(str(tmp_path), "cifar10", "3.0.2") in message
    assert "set TFDS_DATA_DIR" in message
    assert "tfds.load('cifar10:3.0.2')" in message
    assert not list(tmp_path.iterdir())  # nothing downloaded, nothing half written


def test_default_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = re.escape(str(tmp_path / "tensorflow_datasets" / "cifar10"))
    with pytest.raises(tfnvp.data.DatasetNotFoundError, match=wanted):
        tfnvp.data.load("cifar10")


def test_torn_or_incomplete(tiny, tmp_path):
    directory = tmp_path / "cifar10" / "3.0.2"
    (shard,) = directory.glob("cifar10-test*")
    shard.unlink()
    with pytest.raises(tfnvp.data.DatasetNotFoundError, match=f"incomplete.*{shard.name}"):
        tfnvp.data.load("cifar10")
    (directory / "dataset_info.json").write_text("{")
    with pytest.raises(tfnvp.data.DatasetNotFoundError, match=r"cifar10 3\.0\.2"):
        tfnvp.data.load("cifar10")


@needs_cifar10
def test_the_real_pictures():
    train, validation = _images("cifar10", shuffle=False), _images("cifar10", "validation")
    assert abs(len(validation) / (len(train) + len(validation)) - 0.05) < 0.001
    test = _images("cifar10", "test")
    assert test.dtype == np.uint8 and test.shape[1:] == tfnvp.data.info("cifar10").image_shape
    assert test.max() == 255 and 100 < test.mean() < 140

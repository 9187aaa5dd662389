import dataclasses
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

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
def sets(tfds_directory, tfds_images, monkeypatch):
    """A directory with all sets in use; returns the images that it holds."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_directory))
    return tfds_images


@pytest.fixture
def tiny(sets):
    """The same; the images of its cifar10."""
    return sets["cifar10"]


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

    def prepare(image):
        tf.py_function(lambda: calls.append(1), [], [])
        return tf.ensure_shape(image[:16, 8:24], (16, 16, 3))

    row = dataclasses.replace(
        tfds_sets.SETS["cifar10"],
        info=tfnvp.data.DatasetInfo((16, 16, 3), 256, "a test"),
        prepare=prepare,
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


def test_torn_or_incomplete(sets, tfds_directory, tmp_path, monkeypatch):
    directory = tmp_path / "cifar10" / "3.0.2"
    shutil.copytree(tfds_directory / "cifar10" / "3.0.2", directory)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (shard,) = directory.glob("cifar10-test*")
    shard.unlink()
    with pytest.raises(tfnvp.data.DatasetNotFoundError, match=f"incomplete.*{shard.name}"):
        tfnvp.data.load("cifar10")
    (directory / "dataset_info.json").write_text("{")
    with pytest.raises(tfnvp.data.DatasetNotFoundError, match=r"cifar10 3\.0\.2"):
        tfnvp.data.load("cifar10")


@pytest.mark.parametrize("size", [32, 64])
def test_downsampled_imagenet(sets, size):
    """Test is TFDS' validation split, and the last 2% of its training split validate."""
    stored = sets[f"downsampled_imagenet/{size}x{size}"]
    name = f"imagenet{size}"
    np.testing.assert_array_equal(_images(name, shuffle=False), stored["train"][:49])
    np.testing.assert_array_equal(_images(name, "validation"), stored["train"][49:])
    np.testing.assert_array_equal(_images(name, "test"), stored["validation"])


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist", "svhn_cropped"])
def test_sets_with_ten_classes_validate_on_the_last_twelfth(sets, name):
    """With their labels, which are 0, 1, ... 9, 0 and so on in the stored order."""
    stored = sets[name]
    count = len(stored["train"])
    wanted = {"train": (0, count - count // 12), "validation": (count - count // 12, count)}
    for split in tfnvp.data.SPLITS:
        first, last = wanted.get(split, (0, len(stored["test"])))
        pairs = tfnvp.data.load(name, split, 100, shuffle=False, labels=True)
        ((images, labels),) = pairs.as_numpy_iterator()
        expected = stored["test" if split == "test" else "train"][first:last]
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, np.arange(first, last) % 10)
    info = tfnvp.data.info(name)
    assert images.shape[1:] == info.image_shape
    assert (info.levels, info.num_classes) == (256, 10)


def _area_mean(image, height, width):
    """Means over areas, by Pillow, which is neither TensorFlow nor this project."""
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized).astype(int)


@pytest.mark.parametrize("category", ["bedroom", "tower", "church_outdoor"])
def test_lsun_is_resized_and_cut_from_the_middle(sets, category):
    images = _images(f"lsun_{category}", "test")
    assert images.shape == (5, 64, 64, 3) and images.dtype == np.uint8
    # 130 x 110 becomes 113 x 96.
    for image, stored in zip(images, sets[f"lsun/{category}"]["validation"], strict=True):
        expected = _area_mean(stored, 113, 96)[24:88, 16:80]
        assert np.abs(image - expected).mean() < 4


def test_lsun_is_cut_at_random_in_training(sets):
    dataset = tfnvp.data.load("lsun_bedroom", batch_size=49, seed=3)
    (first,), (second,) = (list(dataset.as_numpy_iterator()) for _ in range(2))
    assert first.shape == (49, 64, 64, 3)
    (again,) = tfnvp.data.load("lsun_bedroom", batch_size=49, seed=3).as_numpy_iterator()
    np.testing.assert_array_equal(first, again)
    # An image is found again, in another epoch, at another place.
    smaller = np.stack([_area_mean(image, 96, 144) for image in sets["lsun/bedroom"]["train"]])

    def place(crop):
        rows, columns = range(0, 33, 4), range(0, 81, 4)
        found = [
            # Every eighth pixel is enough to tell.
            np.abs(smaller[:, row : row + 64 : 8, column : column + 64 : 8] - crop[::8, ::8]).mean(
                (1, 2, 3)
            )
            for row in rows
            for column in columns
        ]
        spot, image = np.unravel_index(np.argmin(found), np.shape(found))
        return image, divmod(int(spot), len(columns))

    places = [dict(place(crop) for crop in epoch[:20]) for epoch in (first, second)]
    both = set(places[0]) & set(places[1])
    assert sum(places[0][image] != places[1][image] for image in both) > len(both) / 2
    rows, columns = zip(*places[0].values(), strict=True)
    assert len(set(rows)) > 3 and len(set(columns)) > 6


def test_celeb_a_is_the_middle_of_the_face(sets):
    images = _images("celeb_a", "validation")
    assert images.shape == (5, 64, 64, 3)
    for image, stored in zip(images, sets["celeb_a"]["validation"], strict=True):
        expected = _area_mean(stored[35:183, 15:163], 64, 64)
        assert np.abs(image - expected).mean() < 3
    counts = [len(tfnvp.data.load("celeb_a", split)) for split in tfnvp.data.SPLITS]
    assert counts == [6, 5, 4]


def test_what_does_not_fit_into_memory_is_decoded_anew(sets, monkeypatch):
    monkeypatch.setattr(tfnvp.data.pipeline, "_CACHE_BYTES", 5 * 32 * 32 * 3 - 1)
    monkeypatch.setattr(tfnvp.data.pipeline, "_SHUFFLE_BYTES", 3 * 32 * 32 * 3)
    assert "CacheDataset" not in _kinds(tfnvp.data.load("cifar10", "test"))
    images = _images("cifar10")
    assert not np.array_equal(images, sets["cifar10"]["train"][:38])
    ordered = sets["cifar10"]["train"][:38]
    # From a buffer of three, an image comes at most two places early.
    order = [int(np.abs(ordered - image.astype(int)).sum((1, 2, 3)).argmin()) for image in images]
    assert sorted(order) == list(range(38))
    assert max(number - place for place, number in enumerate(order)) == 2
    monkeypatch.setattr(tfnvp.data.pipeline, "_CACHE_BYTES", 5 * 32 * 32 * 3)
    assert "CacheDataset" in _kinds(tfnvp.data.load("cifar10", "test"))


def _kinds(dataset):
    """The kinds of the pipeline's stages."""
    below = [kind for source in dataset._inputs() for kind in _kinds(source)]
    return [type(dataset).__name__, *below]


@needs_cifar10
def test_the_real_pictures():
    train, validation = _images("cifar10", shuffle=False), _images("cifar10", "validation")
    assert abs(len(validation) / (len(train) + len(validation)) - 0.05) < 0.001
    test = _images("cifar10", "test")
    assert test.dtype == np.uint8 and test.shape[1:] == tfnvp.data.info("cifar10").image_shape
    assert test.max() == 255 and 100 < test.mean() < 140


@pytest.mark.parametrize("size", [32, 64])
def test_the_real_photographs(size):
    path = os.path.join(_DATA_DIR, f"downsampled_imagenet/{size}x{size}/2.0.0/dataset_info.json")
    if not os.path.exists(path):
        pytest.skip("TFDS_DATA_DIR does not name a directory that holds downsampled_imagenet")
    test = _images(f"imagenet{size}", "test")
    assert test.dtype == np.uint8 and test.shape[1:] == (size, size, 3)
    assert test.max() == 255 and 100 < test.mean() < 140


def test_the_real_handwriting():
    if not os.path.exists(os.path.join(_DATA_DIR, "mnist", "3.0.1", "dataset_info.json")):
        pytest.skip("TFDS_DATA_DIR does not name a directory that holds mnist 3.0.1")
    counts = [len(tfnvp.data.load("mnist", split)) for split in ("train", "validation")]
    assert counts == [55_000, 5_000]
    test = tfnvp.data.load("mnist", "test", 10_000, labels=True)
    ((images, labels),) = test.as_numpy_iterator()
    assert images.shape[1:] == (28, 28, 1) and images.max() == 255 and 25 < images.mean() < 45
    # Among so many written digits each is about as frequent as the others.
    assert np.bincount(labels, minlength=10).min() > 0.07 * len(labels)

import doctest

import numpy as np
import pytest
import tensorflow as tf

import tfnvp.data
from tfnvp.data import folder, pipeline


def _numbered(n, height=2, width=3):
    """Images that hold their own number in the left column and zeros elsewhere."""
    images = np.zeros([n, height, width, 1], np.uint8)
    images[:, :, 0, 0] = np.arange(n)[:, None]
    return tf.data.Dataset.from_tensor_slices(images)


def _feed(images, split="train", batch_size=None, *, shuffle=None, seed=0, flip=False, **options):
    options |= {"shuffle": shuffle, "seed": seed, "flip": flip}
    return pipeline.feed(images, split, batch_size, **options)


def _epoch(dataset):
    """The images of one pass, [N, H, W, C], from batches or single images."""
    arrays = list(dataset.as_numpy_iterator())
    return np.concatenate([a if a.ndim == 4 else a[None] for a in arrays])


def _order(dataset):
    return _epoch(dataset).max(axis=(1, 2, 3)).tolist()


def test_train_is_reshuffled_each_epoch_from_the_seed():
    dataset = _feed(_numbered(50), seed=3)
    first, second = _order(dataset), _order(dataset)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    again = _feed(_numbered(50), seed=3)
    assert [_order(again), _order(again)] == [first, second]
    assert _order(_feed(_numbered(50), seed=4)) != first


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_scored_keeps_its_order(split):
    assert _order(_feed(_numbered(20), split)) == list(range(20))


def test_shuffle_overrides_the_split():
    assert _order(_feed(_numbered(20), "train", shuffle=False)) == list(range(20))
    assert _order(_feed(_numbered(20), "test", shuffle=True)) != list(range(20))


@pytest.mark.parametrize("flip", [False, True])
def test_last_batch_is_kept_and_cardinality_known(flip):
    dataset = _feed(_numbered(10), batch_size=4, flip=flip)
    assert [batch.shape for batch in dataset] == [(4, 2, 3, 1), (4, 2, 3, 1), (2, 2, 3, 1)]
    assert len(dataset) == 3
    assert len(_feed(_numbered(10), flip=flip)) == 10
    assert dataset.element_spec == tf.TensorSpec([None, 2, 3, 1], tf.uint8)


@pytest.mark.parametrize("batch_size", [None, 64])
def test_flip_mirrors_about_half_afresh_each_epoch(batch_size):
    images = _numbered(256).map(lambda image: tf.maximum(image, 1) * [[[1], [0], [0]]])
    images = images.map(lambda image: tf.cast(image, tf.uint8))

    def mirrored(dataset):
        pixels = _epoch(dataset)
        left, right = pixels[:, 0, 0, 0] > 0, pixels[:, 0, 2, 0] > 0
        assert np.all(left ^ right)  # mirrored or as it was, and nothing else
        assert not pixels[:, :, 1].any()
        return right

    dataset = _feed(images, "test", batch_size, seed=7, flip=True)
    first, second = mirrored(dataset), mirrored(dataset)
    assert 96 < first.sum() < 160  # four standard deviations about 128
    assert 96 < (first ^ second).sum() < 160
    again = _feed(images, "test", batch_size, seed=7, flip=True)
    np.testing.assert_array_equal(mirrored(again), first)
    np.testing.assert_array_equal(mirrored(again), second)
    assert (mirrored(_feed(images, "test", batch_size, seed=8, flip=True)) ^ first).any()


@pytest.mark.parametrize("flip", [False, True])
def test_repeat_goes_on_as_epochs_do(flip):
    by_epoch = _feed(_numbered(20), seed=1, flip=flip)
    expected = np.concatenate([_epoch(by_epoch), _epoch(by_epoch)])
    np.testing.assert_array_equal(
        _epoch(_feed(_numbered(20), seed=1, flip=flip).repeat(2)), expected
    )


@pytest.mark.parametrize("flip", [False, True])
def test_an_epoch_is_decided_by_its_number_and_the_seed(flip):
    """Whatever came before it, and whatever the seed of TensorFlow."""
    whole = _epoch(_feed(_numbered(20), batch_size=6, flip=flip, epochs=range(3)))
    tf.random.set_seed(5)
    last = _feed(_numbered(20), batch_size=6, flip=flip, epochs=range(2, 3))
    assert len(last) == 4
    np.testing.assert_array_equal(_epoch(last), whole[40:])
    orders = whole.max(axis=(1, 2, 3)).reshape(3, 20)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(20), [3, 1]))
    assert len({tuple(order) for order in orders}) == 3
    other = _feed(_numbered(20), batch_size=6, flip=flip, epochs=range(2, 3), seed=1)
    assert (_epoch(other) != whole[40:]).any()


def test_indices_are_those_of_the_images():
    images = _feed(_numbered(20), batch_size=6, flip=True, epochs=range(3))
    indices = _feed(_numbered(20), batch_size=6, flip=True, epochs=range(3), indices=True)
    assert [batch.shape for batch in indices][:4] == [(6,), (6,), (6,), (2,)]
    np.testing.assert_array_equal(np.concatenate(list(indices)), _order(images))


@pytest.mark.parametrize("epochs", [3, range(0, 4, 2), range(-1, 2)])
def test_bad_epochs(epochs):
    with pytest.raises(ValueError, match=r"^epochs must be a range of numbers from 0 up"):
        tfnvp.data.load("digits", epochs=epochs)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, "8", True])
def test_bad_batch_size(batch_size):
    with pytest.raises(ValueError, match=r"^batch_size must be a positive integer or None, got"):
        tfnvp.data.load("digits", batch_size=batch_size)


def test_numpy_batch_size():
    batch = next(iter(tfnvp.data.load("digits", batch_size=np.int64(8))))
    assert batch.shape == (8, 8, 8, 1)


def test_unknown_name_and_split_list_the_known():
    for call in (tfnvp.data.load, tfnvp.data.info):
        with pytest.raises(ValueError, match=r"name 'minst'.*digits, photos, moons, cifar10"):
            call("minst")
    with pytest.raises(ValueError, match=r"unknown split 'dev'.*train, validation, test"):
        tfnvp.data.load("digits", "dev")


@pytest.mark.parametrize("module", [tfnvp.data, pipeline, folder])
def test_docstring_examples_run(module):
    names = {"tfnvp": tfnvp, "DatasetInfo": pipeline.DatasetInfo}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted > 0 and result.failed == 0

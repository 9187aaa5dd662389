import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images, make_moons

import tfnvp.data
from tfnvp.data import embedded


def _images(name, split):
    return np.stack(list(tfnvp.data.load(name, split, shuffle=False).as_numpy_iterator()))


@pytest.mark.parametrize(
    "name, sizes",
    [("digits", (1297, 200, 300)), ("photos", (3600, 104, 104))],
)
def test_shapes_and_sizes(name, sizes):
    info = tfnvp.data.info(name)
    for split, size in zip(tfnvp.data.SPLITS, sizes, strict=True):
        dataset = tfnvp.data.load(name, split)
        assert len(dataset) == size
        assert dataset.element_spec.shape == info.image_shape
        images = _images(name, split)
        assert images.shape == (size, *info.image_shape)
        assert images.dtype == np.uint8
        assert images.max() < info.levels


def test_digits_splits_are_those_of_the_permutation():
    order = np.random.RandomState(0).permutation(1797)
    digits = load_digits().images[..., None]
    parts = [_images("digits", split) for split in tfnvp.data.SPLITS]
    np.testing.assert_array_equal(np.concatenate(parts), digits[order])
    assert tfnvp.data.info("digits").levels == 17
    assert max(part.max() for part in parts) == 16


def test_moons_are_points_with_their_moon(refuses):
    points, moons = next(iter(tfnvp.data.load("moons", "test", 10_000, labels=True)))
    expected = make_moons(10_000, noise=0.05, random_state=1)
    np.testing.assert_allclose(points, expected[0], rtol=1e-6)
    np.testing.assert_array_equal(moons, expected[1])
    alone = tfnvp.data.load("moons", "validation", 4)
    assert alone.element_spec.shape[1:] == tfnvp.data.info("moons").image_shape
    assert np.all(next(iter(alone)) != points[:4]) and len(alone) == 2500
    refuses(tfnvp.data.load, "moons", flip=True, match="flip: the set 'moons' has no images")


def test_photos_splits_share_no_pixel():
    # Each pixel of a photograph is replaced by its own number.
    pixels = np.arange(427 * 640).reshape(427, 640, 1)
    seen = {split: np.unique(embedded._cut_patches(pixels, split)) for split in tfnvp.data.SPLITS}
    assert not np.intersect1d(seen["train"], seen["validation"]).size
    assert not np.intersect1d(seen["train"], seen["test"]).size
    assert not np.intersect1d(seen["validation"], seen["test"]).size


def test_photos_splits_are_of_one_kind():
    # With one band of the photographs a split, this was 0.8 deviations, and bits/dim as far apart.
    def roughness(split):
        differences = np.abs(np.diff(_images("photos", split).astype("float32"), axis=2))
        return np.log1p(differences.mean(axis=(1, 2, 3)))

    means = [roughness(split).mean() for split in tfnvp.data.SPLITS]
    assert np.ptp(means) < 0.2 * roughness("train").std()


def test_photos_are_patches_of_both_photographs():
    china, flower = load_sample_images().images
    test = _images("photos", "test")
    np.testing.assert_array_equal(test[0], china[:32, 128:160])
    np.testing.assert_array_equal(test[1], china[32:64, 128:160])
    np.testing.assert_array_equal(test[13], china[:32, 288:320])
    np.testing.assert_array_equal(test[52], flower[:32, 128:160])
    np.testing.assert_array_equal(_images("photos", "train")[1], china[:32, 8:40])
    # Scored patches do not overlap: as many pixels as they have places.
    pixels = np.arange(427 * 640).reshape(427, 640, 1)
    patches = embedded._cut_patches(pixels, "test")
    assert np.unique(patches).size == patches.size

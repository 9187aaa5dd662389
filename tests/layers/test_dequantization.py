import numpy as np
import pytest
import tensorflow as tf

from tfnvp.layers import Dequantization

IMAGES = np.random.default_rng(0).integers(0, 17, size=(5, 4, 3, 2)).astype("uint8")


def _noise(layer, images, **kwargs):
    return layer(images, **kwargs).numpy() * layer.levels - images


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_noise_lies_within_the_level(levels, training):
    images = np.repeat(np.arange(levels, dtype="uint8"), 400).reshape(-1, 20, 20, 1)
    x = Dequantization(levels, seed=1, dtype="float64")(images, training=training)
    np.testing.assert_array_equal(np.floor(x * levels), images)
    assert x.numpy().min() >= 0 and x.numpy().max() < 1
    noise = x * levels - images
    # The mean of 400 uniform numbers or more is within 4 standard deviations.
    assert abs(np.mean(noise) - 0.5) < 4 * np.sqrt(1 / 12 / 400) and np.std(noise) > 0.2


def test_inference_noise_depends_on_neither_batch_nor_position():
    layer = Dequantization(17)
    x = layer(IMAGES).numpy()
    np.testing.assert_array_equal(layer(IMAGES[::-1]), x[::-1])
    np.testing.assert_array_equal(layer(IMAGES[3:4]), x[3:4])
    np.testing.assert_array_equal(Dequantization(17, seed=5)(IMAGES), x)
    graph = tf.function(layer, input_signature=[tf.TensorSpec([None, 4, 3, 2], tf.uint8)])
    np.testing.assert_allclose(graph(IMAGES), x, rtol=1e-6)
    np.testing.assert_allclose(tf.function(layer, jit_compile=True)(IMAGES), x, rtol=1e-6)
    # Pixels and channels have noise of their own.
    assert np.unique(_noise(layer, IMAGES)[0].round(5)).size == 4 * 3 * 2


def test_training_noise_is_fresh_for_each_step_and_image():
    layer = Dequantization(17, seed=1)
    first, second = (_noise(layer, IMAGES, training=True) for _ in range(2))
    assert np.all(first != second) and np.all(first[0] != first[1])
    again = Dequantization(17, seed=1)
    np.testing.assert_array_equal(_noise(again, IMAGES, training=True), first)
    other = Dequantization(17, seed=2)
    assert np.any(_noise(other, IMAGES, training=True) != first)


@pytest.mark.parametrize("training", [False, True])
def test_float_images_are_left_alone(training):
    x = np.random.default_rng(1).uniform(size=(2, 3, 3, 1)).astype("float32")
    np.testing.assert_array_equal(Dequantization(17)(x, training=training), x)


def test_images_keep_their_precision_under_a_mixed_policy():
    layer = Dequantization(256, dtype="mixed_bfloat16")
    x = np.full((1, 1, 1, 1), 0.123456, "float32")
    assert layer(x).dtype == tf.float32 and layer(x).numpy() == x
    assert layer(IMAGES).dtype == tf.float32


@pytest.mark.parametrize("levels", [1, 257, 16.0, None])
def test_bad_levels_are_named(levels):
    with pytest.raises(ValueError, match=f"levels must be .*2 to 256, got levels={levels!r}"):
        Dequantization(levels)

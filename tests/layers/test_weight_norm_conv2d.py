import numpy as np
import pytest
import tensorflow as tf

from tfnvp.layers import WeightNormConv2D

IMAGES = np.random.default_rng(0).normal(size=(2, 4, 5, 3))


def _kernel(layer):
    """scale * v / ||v||, the norm of each output channel's v."""
    direction = np.array(layer.direction)
    norm = np.sqrt(np.sum(direction**2, axis=0))
    kernel = direction / norm * (np.array(layer.scale) if layer.use_scale else 1)
    return kernel.reshape(layer.kernel_size, layer.kernel_size, -1, layer.filters)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("use_scale", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
def test_is_a_convolution_by_the_normalised_kernel(size, use_scale, use_bias, randomize):
    layer = WeightNormConv2D(4, size, use_bias=use_bias, use_scale=use_scale, dtype="float64")
    layer.build(IMAGES.shape)
    randomize(layer)
    assert len(layer.weights) == 1 + use_scale + use_bias
    expected = tf.nn.conv2d(IMAGES, _kernel(layer), strides=1, padding="SAME")
    if use_bias:
        expected += np.array(layer.bias)
    np.testing.assert_allclose(layer(IMAGES), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("use_scale", [True, False])
def test_gradients_are_those_of_the_formula(use_scale, randomize):
    layer = WeightNormConv2D(4, use_bias=False, use_scale=use_scale, dtype="float64")
    layer.build(IMAGES.shape)
    randomize(layer)
    weights = [tf.convert_to_tensor(weight) for weight in layer.weights]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        kernel = weights[0] / tf.norm(weights[0], axis=0) * (weights[1] if use_scale else 1)
        images = tf.nn.conv2d(IMAGES, tf.reshape(kernel, layer.kernel_shape), 1, "SAME")
        loss = tf.reduce_sum(images**3)
    expected = tape.gradient(loss, weights)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(IMAGES) ** 3)
    gradients = tape.gradient(loss, [weight.value for weight in layer.weights])
    for gradient, by_autodiff in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, by_autodiff, rtol=1e-10)


def test_length_of_the_direction_does_not_matter(randomize):
    layer = WeightNormConv2D(4, dtype="float64")
    layer.build(IMAGES.shape)
    randomize(layer)
    before = layer(IMAGES)
    layer.direction.assign(7 * layer.direction)
    np.testing.assert_allclose(layer(IMAGES), before, rtol=1e-12)


def test_zero_scales_give_the_bias():
    layer = WeightNormConv2D(4, scale_initializer="zeros")
    layer.build(IMAGES.shape)
    layer.bias.assign([1.0, 2.0, 3.0, 4.0])
    expected = np.broadcast_to([1.0, 2.0, 3.0, 4.0], (2, 4, 5, 4))
    np.testing.assert_array_equal(layer(IMAGES), expected)


def test_regularization_is_of_the_scales_alone(randomize):
    layer = WeightNormConv2D(4, scale_regularizer="l2")
    layer.build(IMAGES.shape)
    randomize(layer)
    assert len(layer.losses) == 1
    np.testing.assert_allclose(layer.losses[0], 0.01 * np.sum(np.square(layer.scale)), rtol=1e-6)


def test_kernel_is_normalised_in_full_precision_under_a_mixed_policy(randomize):
    """The only error left is that of rounding kernel and image to bfloat16."""
    layer = WeightNormConv2D(1, 1, use_bias=False, dtype="mixed_bfloat16")
    layer.build((None, 1, 1, 1))
    layer.scale.assign([1.0])
    layer.direction.assign(np.full((1, 1), 1.2345678))
    assert float(layer(np.ones((1, 1, 1, 1)))[0, 0, 0, 0]) == 1


@pytest.mark.parametrize("bad", [0, -1, 2.0, "3"])
def test_bad_sizes_are_named(bad):
    with pytest.raises(
        ValueError, match=f"filters must be a positive integer, got filters={bad!r}"
    ):
        WeightNormConv2D(bad)
    with pytest.raises(ValueError, match=f"kernel_size must be .*got kernel_size={bad!r}"):
        WeightNormConv2D(4, bad)

import numpy as np
import pytest
import tensorflow as tf

from tfnvp.layers import FusedBatchNormalization

BATCHES = np.random.default_rng(0).normal(3, 2, size=(3, 2, 2, 3, 4))


def _layer(randomize, dtype, **kwargs):
    layer = FusedBatchNormalization(dtype=dtype, **kwargs)
    layer.build((None, 2, 3, 4))
    return randomize(layer)


@pytest.mark.parametrize("training", [False, True])
def test_fused_kernel_does_as_the_spelt_out_arithmetic(randomize, training):
    """float32 is fused, float64 spelt out; gradients and running averages agree as well."""
    results = []
    for dtype in ("float32", "float64"):
        layer = _layer(randomize, dtype)
        x = tf.constant(BATCHES[0], dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * BATCHES[1].astype(dtype))
        gradients = tape.gradient(loss, [x, layer.scale.value, layer.offset.value])
        moments = [np.array(v) for v in layer.moments.weights]
        results.append([y, *gradients, *moments])
    for fused, spelt_out in zip(*results, strict=True):
        np.testing.assert_allclose(fused, spelt_out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_normalises_by_the_batch(randomize, dtype):
    layer = _layer(randomize, dtype, epsilon=1e-3)
    x = BATCHES[0].astype(dtype)
    mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    expected = (x - mean) / np.sqrt(variance + 1e-3) * np.array(layer.scale)
    expected += np.array(layer.offset)
    np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inference_uses_the_running_averages(dtype):
    layer = FusedBatchNormalization(momentum=0.5, epsilon=1e-3, dtype=dtype)
    for batch in BATCHES:
        layer(batch, training=True)
    weights = np.array([0.25, 0.5, 1]) / 1.75
    mean = weights @ BATCHES.mean(axis=(1, 2, 3))
    variance = weights @ BATCHES.var(axis=(1, 2, 3))
    expected = (BATCHES[0] - mean) / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(layer(BATCHES[0]), expected, rtol=1e-4, atol=1e-4)


def test_without_affine_nothing_is_trained():
    layer = FusedBatchNormalization(affine=False)
    layer(BATCHES[0], training=True)
    assert layer.trainable_variables == []


@pytest.mark.parametrize("training", [False, True])
def test_without_affine_it_is_the_same_with_scales_of_one_and_no_offsets(training):
    """One is spelt out, the other fused."""
    results = []
    for affine in (False, True):
        layer = FusedBatchNormalization(affine=affine)
        layer(BATCHES[2], training=True)
        x = tf.constant(BATCHES[0], "float32")
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y * BATCHES[1])
        results.append([y, tape.gradient(loss, x), layer.moments.mean, layer.moments.variance])
    for spelt_out, fused in zip(*results, strict=True):
        np.testing.assert_allclose(spelt_out, fused, rtol=1e-4, atol=1e-4)

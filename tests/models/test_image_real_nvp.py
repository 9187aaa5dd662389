"""The image model: density, round trip, sampling, sizes and evaluation."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.small_images import LEVELS, floats, pixels

import tfnvp


@pytest.fixture(scope="module")
def model(tiny_model):
    """One scale: two couplings."""
    model = tiny_model((4, 4, 2), levels=LEVELS)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    return model


@pytest.fixture(scope="module")
def deep(tiny_model):
    """Two scales: four couplings, a squeeze and a factor-out."""
    return tiny_model((4, 4, 2), num_scales=2, levels=LEVELS)


# The density.


def test_density_of_two_pixels_integrates_to_one(tiny_model):
    """Over (-a, 1 + a), wider than the pixels; the grid is finer towards the ends."""
    model = tiny_model((1, 2, 1), dtype="float64")
    margin = 0.05 / 0.9
    y = np.linspace(-9, 9, 361)
    sigmoid = 1 / (1 + np.exp(-y))
    x = -margin + (1 + 2 * margin) * sigmoid
    width = (1 + 2 * margin) * sigmoid * (1 - sigmoid) * (y[1] - y[0])
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1).reshape(-1, 1, 2, 1)
    log_prob = tf.function(model.distribution.log_prob)(grid)
    total = np.sum(np.exp(log_prob) * np.outer(width, width).ravel())
    assert abs(total - 1) < 1e-3
    # The weights are no identity's: pixels depend on each other.
    table = np.exp(log_prob).reshape(361, 361) * np.outer(width, width)
    assert np.abs(table - np.outer(table.sum(1), table.sum(0))).sum() > 0.01


def test_log_prob_is_that_of_the_distribution(model):
    x = floats()
    log_prob = model.log_prob(x)
    assert log_prob.shape == (5,) and log_prob.dtype == tf.float32
    np.testing.assert_allclose(log_prob, model.distribution.log_prob(x), rtol=1e-5)
    assert model.distribution.event_shape == (4, 4, 2)
    # uint8 images are dequantised, with noise, first.
    noisy = model.dequantization(pixels())
    np.testing.assert_allclose(model.log_prob(pixels()), model.log_prob(noisy), rtol=1e-5)
    assert np.all(np.abs(model.log_prob(pixels() / LEVELS) - model.log_prob(pixels())) > 1e-3)


def test_the_distributions_own_samples_are_scored_and_encoded(model):
    """A few of their pixels lie a little outside of [0, 1], and some at the very ends."""
    distribution = model.distribution
    x = distribution.sample(64, seed=(0, 1))
    assert np.min(x) < 0 and np.max(x) > 1
    np.testing.assert_allclose(model.log_prob(x), distribution.log_prob(x), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(model.decode(model.encode(x)), x, atol=1e-3)
    ends = distribution.bijector.forward(tf.fill([1, 4, 4, 2], 1e4))
    assert np.isfinite(model.log_prob(ends)).all() and np.isfinite(model.encode(ends)).all()


def test_bits_per_dim_is_of_the_discrete_image(model):
    expected = -model.log_prob(pixels()) / (32 * math.log(2)) + 4
    np.testing.assert_allclose(model.bits_per_dim(pixels()), expected, rtol=1e-6)


def test_score_depends_on_neither_batch_nor_position(model):
    images = pixels()
    whole = model.bits_per_dim(images)
    np.testing.assert_allclose(model.bits_per_dim(images[::-1]), whole[::-1], rtol=1e-6)
    for i in (0, 3):
        np.testing.assert_allclose(model.bits_per_dim(images[i : i + 1])[0], whole[i], rtol=1e-6)


def test_importance_weighted_bound(model):
    """log of the mean density over draws, each by hand; K = 1 is the usual score."""
    images = pixels()
    draws = [
        model.distribution.log_prob(model.dequantization(images, draw=draw)) for draw in range(4)
    ]
    assert np.abs(draws[1] - draws[0]).min() > 1e-3
    expected = np.log(np.mean(np.exp(np.float64(draws)), axis=0))
    np.testing.assert_allclose(model.log_prob(images, samples=4), expected, rtol=1e-5)
    np.testing.assert_allclose(model.log_prob(images, samples=1), model.log_prob(images))
    bits = -expected / (32 * math.log(2)) + 4
    np.testing.assert_allclose(model.bits_per_dim(images, samples=4), bits, rtol=1e-5)
    # Jensen: it is above the mean of the bounds that it is made of.
    assert np.all(expected > np.mean(draws, axis=0))


def test_importance_weighted_bound_at_its_edges(model, refuses):
    x = floats()
    np.testing.assert_allclose(model.log_prob(x, samples=5), model.log_prob(x))
    assert model.log_prob(pixels(0), samples=3).shape == (0,)
    refuses(model.log_prob, pixels(), samples=0, match="samples=0")
    refuses(model.bits_per_dim, pixels() + 1, samples=2, match=r"0\.\.15")


def test_variables_are_those_of_the_distribution(deep, identities):
    for kind in ("trainable_variables", "variables"):
        own = set(identities(getattr(deep, kind)))
        of_distribution = set(identities(getattr(deep.distribution, kind)))
        if kind == "variables":
            own -= set(identities(deep.dequantization.variables + deep._bits_per_dim.variables))
            own -= set(identities(deep._loss.variables))
        assert own == of_distribution
    assert len(deep.trainable_variables) == len(set(identities(deep.trainable_variables)))


def test_each_conditioner_is_in_the_graph_once(deep, count_operations):
    """A network of one block has six convolutions; there are four couplings."""
    x = tf.constant(floats())

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            log_prob = deep.distribution.log_prob(x)
        return tape.gradient(log_prob, [x, *deep.distribution.trainable_variables])

    operations = count_operations(gradient, x)
    assert operations["Conv2D"] == 24
    assert operations["Conv2DBackpropInput"] == operations["Conv2DBackpropFilter"] == 24
    sampled = count_operations(lambda: deep.distribution.experimental_sample_and_log_prob(2))
    assert sampled["Conv2D"] == 24


def test_starts_as_the_logit_alone():
    """s = t = 0, and batch normalizations have seen nothing."""
    model = tfnvp.ImageRealNVP((4, 4, 1), 1, filters=4, residual_blocks=1)
    x = floats(shape=(4, 4, 1))
    z = model.encode(x)
    p = 0.05 + 0.9 * x
    np.testing.assert_allclose(z, np.log(p / (1 - p)), rtol=1e-3, atol=1e-3)


def test_architecture_is_that_of_the_paper():
    model = tfnvp.ImageRealNVP((8, 8, 3), 3, filters=4, residual_blocks=1)
    filters = [layer.filters for layer in model._flow_layers if hasattr(layer, "filters")]
    # At each scale three checkerboards and three channel couplings of twice the filters.
    assert sorted(filters) == sorted(3 * [4] + 3 * [8] + 3 * [8] + 3 * [16] + 4 * [16])


@pytest.mark.parametrize("training", [False, True])
def test_gradients_are_the_slopes_of_the_log_prob(tiny_model, training):
    """Along random directions, since many operations here have a gradient of their own."""
    distribution = tiny_model((4, 4, 2), levels=LEVELS, dtype="float64").distribution
    model = tfnvp.FlowModel(distribution, dtype="float64")

    @tf.function
    def log_prob(x):
        return tf.reduce_sum(model(x, training=training))

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = log_prob(x)
        return tape.gradient(value, [x, *[v.value for v in model.trainable_variables]])

    random = np.random.default_rng(2)
    x = tf.constant(random.uniform(0.1, 0.9, size=(5, 4, 4, 2)))
    of_x, *of_variables = gradients(x)

    def check(name, gradient, log_prob_at):
        direction = random.normal(size=gradient.shape)
        direction *= 1e-6 / np.linalg.norm(direction)
        slope = float(log_prob_at(direction) - log_prob_at(-direction)) / 2
        expected = np.sum(gradient * direction)
        tolerance = 1e-5 * 1e-6 * (1 + np.linalg.norm(gradient))
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=tolerance, err_msg=name)

    check("x", of_x, lambda step: log_prob(x + step))
    for variable, gradient in zip(model.trainable_variables, of_variables, strict=True):
        before = variable.numpy()

        def log_prob_at(step, variable=variable, before=before):
            variable.assign(before + step)
            return log_prob(x)

        check(variable.path, gradient, log_prob_at)
        variable.assign(before)


# Precision.


def _round_trip_error(model):
    x = floats(16)
    z = model.encode(x)
    assert z.dtype == tf.float32 and z.shape == x.shape
    return np.abs(model.decode(z) - x).max()


def test_encode_and_decode_meet_again(deep):
    assert _round_trip_error(deep) < 1e-4


def test_encode_and_decode_meet_again_under_a_mixed_policy(tiny_model):
    model = tiny_model((4, 4, 2), num_scales=2, levels=LEVELS, dtype="mixed_bfloat16")
    assert _round_trip_error(model) < 1e-4
    # Elsewhere conditioners still compute in bfloat16.
    computing = {layer.compute_dtype for layer in model._flatten_layers() if "conv" in layer.name}
    assert computing == {"bfloat16"}


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(floats()[:, :2], marks=pytest.mark.slow),
        np.full((4, 4, 4, 2), np.nan, "float32"),
    ],
)
def test_a_refused_fit_leaves_a_model_that_trains(bad, tiny_model, refuses):
    model = tiny_model((4, 4, 2))
    model.compile(optimizer="adam")
    before = [v.numpy() for v in model.trainable_variables]
    refuses(model.fit, bad, verbose=0, match="must have")
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    model.fit(floats(), verbose=0)
    assert any(
        (v.numpy() != b).any() for v, b in zip(model.trainable_variables, before, strict=True)
    )


def test_no_rows_are_no_rows(model):
    assert model.log_prob(pixels(0)).shape == (0,)
    assert model.encode(floats(0)).shape == model.decode(floats(0)).shape == (0, 4, 4, 2)


def test_latents_of_a_wrong_shape_are_refused(model, refuses):
    message = r"z must have the shape \[batch, 4, 4, 2\], got \(3, 4, 4, 1\)"
    refuses(model.decode, np.zeros((3, 4, 4, 1), "float32"), match=message)


def test_levels_are_decoded_exactly(model):
    """A uint8 image is encoded as the middle of its levels."""
    decoded = model.decode(model.encode(pixels())) * LEVELS
    np.testing.assert_allclose(decoded, pixels() + 0.5, atol=1e-2)


def test_mixed_precision_is_close_to_full(tiny_model, model):
    """The model's seed gives both the same weights."""
    mixed = tiny_model((4, 4, 2), levels=LEVELS, dtype="mixed_bfloat16")
    assert all("bfloat16" not in str(v.dtype) for v in mixed.variables)
    difference = np.abs(mixed.bits_per_dim(pixels()) - model.bits_per_dim(pixels()))
    assert mixed.log_prob(pixels()).dtype == tf.float32
    assert 0 < difference.max() < 0.03
    np.testing.assert_allclose(mixed.encode(floats()), model.encode(floats()), atol=1e-4)


def test_float64_is_float64_throughout(tiny_model, model):
    double = tiny_model((4, 4, 2), levels=LEVELS, dtype="float64")
    x = floats().astype("float64")
    assert double.log_prob(x).dtype == double.sample(1).dtype == tf.float64
    np.testing.assert_allclose(double.log_prob(x), model.log_prob(floats()), rtol=1e-4)
    np.testing.assert_allclose(double.decode(double.encode(x)), x, atol=1e-10)


# Samples.


def test_samples_are_images(model):
    samples = model.sample(7, seed=1)
    assert samples.shape == (7, 4, 4, 2) and samples.dtype == tf.float32
    assert np.min(samples) >= 0 and np.max(samples) <= 1
    assert model.sample(0).shape == (0, 4, 4, 2)
    # Without clipping the range is a little wider.
    unclipped = model.distribution.sample(200, seed=1)
    assert np.min(unclipped) < 0 and np.max(unclipped) > 1


def test_samples_of_a_seed_come_again(model):
    samples = model.sample(7, seed=1)
    np.testing.assert_array_equal(model.sample(7, seed=1), samples)
    np.testing.assert_allclose(model.sample(3, seed=1), samples[:3], atol=1e-5)
    assert np.any(model.sample(7, seed=2) != samples)
    assert np.any(model.sample(7) != model.sample(7))


def test_temperature_draws_latents_to_the_mean(model):
    mean = np.clip(model.decode(np.zeros((1, 4, 4, 2))), 0, 1)
    cold = model.sample(2, temperature=0.0)
    np.testing.assert_allclose(cold, np.repeat(mean, 2, axis=0), atol=1e-5)
    distance = [np.std(model.sample(50, temperature=t, seed=1)) for t in (0.2, 0.6, 1.0)]
    assert distance[0] < distance[1] < distance[2]


# Other sizes.


def test_the_same_weights_at_another_size(deep, identities):
    larger = deep.distribution_for((6, 8, 2))
    assert larger.event_shape == (6, 8, 2)
    assert identities(larger.variables) == identities(deep.distribution.variables)
    assert deep.distribution_for() is deep.distribution
    assert larger.log_prob(floats(3, (6, 8, 2))).shape == (3,)
    samples = deep.sample(2, image_shape=(6, 8, 2), seed=1)
    assert samples.shape == (2, 6, 8, 2)
    np.testing.assert_array_equal(deep.sample(2, image_shape=(6, 8, 2), seed=1), samples)
    np.testing.assert_array_equal(
        deep.distribution_for((4, 4, 2)).log_prob(floats()), deep.distribution.log_prob(floats())
    )


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ((5, 4, 2), r"multiples of 2 for num_scales=2, got image_shape=\(5, 4, 2\)"),
        ((4, 6, 3), r"2 channels, .*got image_shape=\(4, 6, 3\)"),
        ((4, 4), r"\(height, width, channels\), got image_shape=\(4, 4\)"),
        ((0, 4, 2), "positive integer, got each size of image_shape=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(deep, refuses, shape, match):
    refuses(deep.distribution_for, shape, match=match)
    refuses(deep.sample, 1, image_shape=shape, match=match)


# Evaluation.


def test_evaluation_is_reproducible_and_right_for_uneven_batches(model):
    images = pixels(10)
    expected = np.mean(model.bits_per_dim(images))
    scores = [
        model.evaluate(images, batch_size=size, verbose=0, return_dict=True) for size in (4, 4, 7)
    ]
    assert scores[0] == scores[1]
    for score in scores:
        np.testing.assert_allclose(score["bits_per_dim"], expected, rtol=2e-6)
    # The regularization of the weight-norm scales is in the loss alone.
    penalty = float(sum(model.losses))
    assert penalty > 1e-4
    np.testing.assert_allclose(scores[0]["loss"], expected + penalty, rtol=2e-6)


def test_labels_beside_the_images_are_left_aside(model):
    images = pixels()
    batches = tf.data.Dataset.from_tensors((images, np.arange(5)))
    assert model.evaluate(batches, verbose=0) == model.evaluate(images, verbose=0)

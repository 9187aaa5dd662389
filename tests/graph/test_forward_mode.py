"""Derivatives of a density beyond the gradient: forward mode, and of second order."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings

import tfnvp

MODELS = {
    "images": lambda: FewCouplings((4, 4, 1), 1, filters=4, residual_blocks=1),
    "images, mixing": lambda: FewCouplings((4, 4, 2), 1, filters=4, residual_blocks=1, mixing=True),
    "images of classes": lambda: FewCouplings(
        (4, 4, 1), 1, filters=4, residual_blocks=1, num_classes=3, label_dropout=0.1
    ),
    "vectors": lambda: tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4]),
}


# One of the image models is tried each time, and the others by `make test-all`.
SLOW = {"images, mixing": pytest.mark.slow, "images of classes": pytest.mark.slow}
CASES = [pytest.param(name, marks=SLOW.get(name, ())) for name in MODELS]


@pytest.fixture(scope="module", params=CASES)
def case(request, randomize):
    """A density, points, and a direction at each."""
    distribution = randomize(MODELS[request.param]()).distribution
    x = tf.clip_by_value(distribution.sample(3, seed=(0, 1)), 0.05, 0.95)
    return distribution.log_prob, x, tf.random.stateless_normal(x.shape, seed=(2, 3))


def forward(function, x, v):
    """The derivative of a function at x along v, in forward mode."""
    with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
        y = function(x)
    return accumulator.jvp(y)


def gradient(function):
    """The gradient of a function [B] by x."""

    def of(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    return of


# The ways differ in what is in a `tf.function`: nothing, all, the function that is differentiated.
WAYS = {
    "eager": forward,
    "around": lambda function, x, v: tf.function(forward)(function, x, v),
    "inside": lambda function, x, v: forward(tf.function(function), x, v),
}


# One of the two ways with a `tf.function` is tried each time, and both by `make test-all`.
@pytest.mark.parametrize("way", ["eager", "around", pytest.param("inside", marks=pytest.mark.slow)])
def test_forward_mode_is_the_gradient_along_the_direction(case, way):
    log_prob, x, v = case
    expected = tf.reduce_sum(gradient(log_prob)(x) * v, axis=range(1, x.shape.rank))
    assert np.all(np.abs(expected) > 1e-3)
    np.testing.assert_allclose(WAYS[way](log_prob, x, v), expected, rtol=1e-3, atol=1e-4)


def reverse_over_reverse(function, x, v):
    """The derivative of a function's gradient at x along v."""
    return gradient(lambda x: tf.reduce_sum(gradient(function)(x) * v))(x)


@pytest.fixture(scope="module")
def second(case):
    return reverse_over_reverse(*case)


# Traced whole and in part, the first derivatives are tried, and the second by `make test-all`.
@pytest.mark.parametrize(
    "way", ["eager", *(pytest.param(way, marks=pytest.mark.slow) for way in ("around", "inside"))]
)
def test_forward_over_reverse_is_reverse_over_reverse(case, second, way):
    log_prob, x, v = case
    assert np.any(np.abs(second) > 1e-2)
    np.testing.assert_allclose(WAYS[way](gradient(log_prob), x, v), second, rtol=1e-3, atol=2e-3)


def test_second_derivatives_are_the_slopes_of_the_first(randomize):
    """By finite differences, in float64, and in float32 the same."""
    sizes = {"num_scales": 1, "filters": 4, "residual_blocks": 1}
    models = [randomize(FewCouplings((4, 4, 1), **sizes, dtype=d)) for d in ("float64", None)]
    random = np.random.default_rng(0)
    x, v = random.uniform(0.2, 0.8, (2, 4, 4, 1)), random.normal(size=(2, 4, 4, 1))
    first = tf.function(gradient(models[0].distribution.log_prob))
    slopes = (first(tf.constant(x + 1e-6 * v)) - first(tf.constant(x - 1e-6 * v))) / 2e-6
    for model in models:
        dtype = model.variable_dtype
        arguments = [tf.constant(value, dtype) for value in (x, v)]
        product = reverse_over_reverse(model.distribution.log_prob, *arguments)
        np.testing.assert_allclose(product, slopes, rtol=1e-2, atol=1e-2)

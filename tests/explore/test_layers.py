"""A flow of two dimensions, step by step from latents to data."""

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.explore import figures, layers


@pytest.fixture(scope="module")
def flow(randomize):
    model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(8,))
    return randomize(model)


POINTS = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")


@pytest.fixture(scope="module")
def steps(flow):
    return layers.steps(flow, POINTS)


def test_a_step_for_each_layer(steps):
    assert [step.name for step in steps] == [
        "latents",
        "coupling 2 and matrix",
        "coupling 1 and matrix",
        "curves of the columns",
        "tails",
        "units of the data",
        "cells of common values",
    ]


def test_from_latents_to_data(steps, flow):
    first, last = steps[0], steps[-1]
    np.testing.assert_allclose(first.points, flow.encode(POINTS), atol=1e-3)
    np.testing.assert_allclose(last.points, POINTS, atol=1e-5)
    # The grid is straight in latents, and where the flow takes it in the end.
    assert np.all(np.ptp(first.lines, axis=1).min(axis=-1) == 0)
    decoded = flow.decode(first.lines.reshape(-1, 2)).numpy().reshape(first.lines.shape)
    np.testing.assert_allclose(last.lines, decoded, rtol=1e-3, atol=1e-3)


def middles(step):
    at = (np.arange(layers.CELLS) + 0.5) / layers.CELLS
    x, y = (a + (b - a) * at for a, b in zip(step.low, step.high, strict=True))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype("float32")


def test_the_densities_at_both_ends(steps, flow):
    last = middles(steps[-1])
    expected = np.exp(flow.log_prob(last)).reshape(layers.CELLS, layers.CELLS)
    np.testing.assert_allclose(steps[-1].density, expected, rtol=1e-3, atol=1e-5)
    normal = np.exp(-np.sum(middles(steps[0]) ** 2, axis=1) / 2) / (2 * np.pi)
    np.testing.assert_allclose(steps[0].density.ravel(), normal, rtol=1e-4)


@pytest.mark.parametrize("i", range(1, 4))
def test_a_step_between_is_the_change_of_variables(steps, flow, i):
    """By the Jacobian of what is left of the flow: p(step) = p(data) |d data / d step|."""
    step = steps[i]
    # The first two steps take two bijectors each, of eight.
    left = flow.distribution.bijector.bijectors[: (6, 4, 3)[i - 1]]
    at = tf.constant(middles(step)[:: layers.CELLS * 10 + 7])
    with tf.GradientTape() as tape:
        tape.watch(at)
        x = at
        for bijector in reversed(left):
            x = bijector.forward(x)
    jacobian = np.linalg.det(tape.batch_jacobian(x, at).numpy())
    expected = np.exp(flow.distribution.log_prob(x)) * np.abs(jacobian)
    shown = step.density.ravel()[:: layers.CELLS * 10 + 7]
    np.testing.assert_allclose(shown, expected, rtol=1e-2, atol=1e-5)


def test_a_class_has_its_own_flow(randomize):
    flow = randomize(tfnvp.VectorRealNVP(2, 1, (4,), num_classes=2))
    first, second = (layers.steps(flow, POINTS, label)[-1].density for label in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_other_sizes_are_refused(refuses):
    flow = tfnvp.VectorRealNVP(3, 1, (4,))
    refuses(layers.steps, flow, np.zeros([1, 3]), match="of 2 dimensions, .* vectors of 3")


def test_labels_that_are_vectors_are_refused_where_there_is_no_density_without_them(refuses):
    flow = tfnvp.VectorRealNVP(2, 1, (4,), context_size=3)
    refuses(layers.steps, flow, np.zeros([1, 2]), match="float vectors of 3 as labels")
    flow = tfnvp.VectorRealNVP(2, 1, (4,), context_size=3, label_dropout=0.1)
    assert len(layers.steps(flow, np.zeros([1, 2]))) > 1


def test_figures_are_of_one_size(steps):
    pictures = [figures.layer(step) for step in steps[:2]]
    assert pictures[0].shape == pictures[1].shape == (660, 660, 3)
    assert np.any(pictures[0] != pictures[1])


def test_a_histogram_marks_a_value_and_values_beyond_at_the_edge():
    histogram = figures.Histogram(np.random.default_rng(0).normal(3, 0.1, 200), "these")
    empty = histogram.marked(np.nan)
    marks = []
    for value in (2.8, 3.2, 50.0, -50.0):
        picture = histogram.marked(value).astype(int)
        red = (picture[..., 0] > 150) & (picture[..., 1:].max(axis=-1) < 110)
        marks.append(np.mean(np.nonzero(red)[1]))
    far_left, left, right, far_right = marks[3], marks[0], marks[1], marks[2]
    assert 0 < far_left < left < right < far_right < empty.shape[1]

"""The distance to the nearest row of the training, which is never the row itself."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import NearestNeighbors

from tfnvp.layers import NearestRow


def _layer(rows, count):
    layer = NearestRow(count)
    layer.build((None, 4))
    layer.take(rows)
    return layer


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(60, 4)).astype("float32")


def test_is_the_root_mean_square_difference_from_the_nearest_other_row(rows):
    layer = _layer(rows, count=80)
    index = NearestNeighbors(n_neighbors=2).fit(rows)
    new = np.random.default_rng(1).normal(size=(30, 4)).astype("float32")
    expected = index.kneighbors(new)[0][:, 0] / 2  # The root of four columns is 2.
    np.testing.assert_allclose(layer(tf.constant(new)), expected, rtol=1e-4)
    # Each row kept is nearest to itself, and the next one counts.
    expected = index.kneighbors(rows)[0][:, 1] / 2
    np.testing.assert_allclose(layer(tf.constant(rows)), expected, rtol=1e-4)


def test_far_from_all_is_finite_and_nothing_to_compare_with_is_zero(rows):
    far = _layer(rows, count=60)(tf.constant([[1e30] * 4, [-1e6] * 4])).numpy()
    assert far[0] > 1e14 and far[1] == pytest.approx(1e6, rel=1e-4)
    one = tf.constant(rows[:1])
    np.testing.assert_array_equal(_layer(rows[:0], count=3)(one), [0])
    np.testing.assert_array_equal(_layer(rows[:1], count=1)(one), [0])
    np.testing.assert_array_equal(_layer(rows[:1], count=1)(one + 2), [2])

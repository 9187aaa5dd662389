"""Cells of common values opened; the laws of every bijector are in test_laws.py."""

import numpy as np
import pytest
import tensorflow as tf

from tfnvp.bijectors import OpenedCells
from tfnvp.layers import CommonValues


def _opened(*cells, dtype="float64"):
    """A map of one dimension with cells (middle, width, width when open)."""
    values = CommonValues(len(cells), dtype=dtype)
    values.build((None, 1))
    values.take(np.transpose(cells)[:, np.newaxis])
    return OpenedCells(values)


def test_is_the_identity_until_it_has_cells():
    bijector, x = OpenedCells(), tf.constant([[-1e9, 0.25, 3.0]])
    np.testing.assert_array_equal(bijector.inverse(x), x)
    np.testing.assert_array_equal(bijector.forward(x), x)
    np.testing.assert_array_equal(bijector.inverse_log_det_jacobian(x, 1), [0])


@pytest.mark.parametrize(
    ("x", "z", "slope"),
    [(-1, -1, 1), (0, 0.45, 10), (0.2, 1.1, 1), (0.5, 1.5, 3), (2, 3.1, 1)],
)
def test_cells_are_stretched_and_what_is_above_moves_up(x, z, slope):
    bijector = _opened((0.0, 0.1, 1.0), (0.5, 0.1, 0.3))
    x, z = (tf.constant([value], tf.float64) for value in (x, z))
    np.testing.assert_allclose(bijector.inverse(x), z, rtol=1e-12)
    np.testing.assert_allclose(bijector.forward(z), x, rtol=1e-12, atol=1e-15)
    log_det = bijector.inverse_log_det_jacobian(x, 1)
    np.testing.assert_allclose(log_det, np.log(slope), atol=1e-12)


def test_a_narrow_cell_far_from_zero_has_its_value_in_the_middle():
    """float32 tells 1000 from 1000.0001, and no end of a cell of a width of 1e-5 from 1000."""
    bijector = _opened((1000.0, 1e-5, 2.0), dtype="float32")
    np.testing.assert_allclose(bijector.inverse([[999.0], [1000.0]]), [[999.0], [1001.0]])
    log_det = bijector.inverse_log_det_jacobian([[999.0], [1000.0]], 1)
    np.testing.assert_allclose(log_det, [0, np.log(2e5)], rtol=1e-6)

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors import FactorOut

tfb = tfp.bijectors
IMAGES = np.random.default_rng(0).normal(size=(2, 4, 6, 3))


def test_sub_pixels_that_leave_and_that_go_on():
    """(0,1) and (1,0) of each block leave; (0,0) and (1,1) become the channels of one pixel."""
    seen = []

    class Seeing(tfb.Bijector):
        def __init__(self):
            super().__init__(forward_min_event_ndims=3)

        def _inverse(self, y):
            seen.append(y)
            return y + 1

        def _inverse_log_det_jacobian(self, y):
            return tf.zeros([], y.dtype)

    z = FactorOut(Seeing()).inverse(IMAGES).numpy()
    kept = np.concatenate([IMAGES[:, 0::2, 0::2], IMAGES[:, 1::2, 1::2]], axis=-1)
    np.testing.assert_array_equal(seen[0], kept)
    np.testing.assert_array_equal(z[:, 0::2, 1::2], IMAGES[:, 0::2, 1::2])
    np.testing.assert_array_equal(z[:, 1::2, 0::2], IMAGES[:, 1::2, 0::2])
    np.testing.assert_array_equal(z[:, 0::2, 0::2], IMAGES[:, 0::2, 0::2] + 1)
    np.testing.assert_array_equal(z[:, 1::2, 1::2], IMAGES[:, 1::2, 1::2] + 1)


def test_log_det_is_that_of_the_half_that_goes_on():
    halved = FactorOut(tfb.Scale(np.float64(3)))
    half = 4 * 6 * 3 / 2
    np.testing.assert_allclose(halved.inverse_log_det_jacobian(IMAGES), -half * np.log(3))
    np.testing.assert_allclose(halved.forward_log_det_jacobian(IMAGES), half * np.log(3))


def test_nested_it_leaves_a_quarter():
    scaled = FactorOut(FactorOut(tfb.Scale(np.float64(2)))).forward(np.ones((4, 4, 1)))
    expected = np.ones((4, 4))
    # The corners (0,0) and (1,1) of the blocks (0,0) and (1,1).
    expected[[0, 1, 2, 3], [0, 1, 2, 3]] = 2
    np.testing.assert_array_equal(scaled[..., 0], expected)


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match=r"must be even.*3, 2, 1"):
        FactorOut(tfb.Identity()).inverse(tf.zeros([3, 2, 1]))

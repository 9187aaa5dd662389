import numpy as np

from tfnvp.layers import BoundedLogScale


def test_log_scales_are_a_tanh_times_a_scale_for_each_channel_and_shifts_stay():
    log_scale, shift = np.array([[0.3, -2.0], [50.0, 0.0]]), np.array([[0.7, -80.0], [0.0, 5.0]])
    x = np.concatenate([log_scale, shift], axis=-1)
    layer = BoundedLogScale(dtype="float64")
    np.testing.assert_allclose(layer(x)[:, :2], np.tanh(log_scale), rtol=1e-12)
    layer.scale.assign([0.5, 3.0])
    np.testing.assert_allclose(layer(x)[:, :2], np.tanh(log_scale) * [0.5, 3.0], rtol=1e-12)
    np.testing.assert_array_equal(layer(x)[:, 2:], shift)


def test_regularization_is_of_the_scale():
    layer = BoundedLogScale(regularizer="l2")
    layer.build((None, 4))
    layer.scale.assign([0.5, 3.0])
    np.testing.assert_allclose(layer.losses, [0.01 * (0.25 + 9)], rtol=1e-6)

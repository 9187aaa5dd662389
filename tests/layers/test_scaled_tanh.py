import numpy as np

from tfnvp.layers import ScaledTanh


def test_is_tanh_times_a_scale_for_each_channel():
    x = np.array([[0.3, -2.0], [50.0, 0.0]])
    layer = ScaledTanh(dtype="float64")
    np.testing.assert_allclose(layer(x), np.tanh(x), rtol=1e-12)
    layer.scale.assign([0.5, 3.0])
    np.testing.assert_allclose(layer(x), np.tanh(x) * [0.5, 3.0], rtol=1e-12)


def test_regularization_is_of_the_scale():
    layer = ScaledTanh(regularizer="l2")
    layer.build((None, 2))
    layer.scale.assign([0.5, 3.0])
    np.testing.assert_allclose(layer.losses, [0.01 * (0.25 + 9)], rtol=1e-6)

import numpy as np

from tfnvp.layers import DenseNetwork

VECTORS = np.random.default_rng(0).normal(size=(5, 3))


def test_starts_as_the_identity_coupling():
    layer = DenseNetwork(2, [8, 8])
    np.testing.assert_array_equal(layer(VECTORS), np.zeros((5, 4)))
    assert len(layer.trainable_variables) == 7


def test_is_a_perceptron_with_bounded_log_scales(randomize):
    layer = DenseNetwork(2, [6, 5], activation="relu", dtype="float64")
    layer(VECTORS)
    randomize(layer)
    h = VECTORS
    for dense in layer.hidden:
        h = np.maximum(h @ np.array(dense.kernel) + np.array(dense.bias), 0)
    h = h @ np.array(layer.output_layer.kernel) + np.array(layer.output_layer.bias)
    expected = np.concatenate([np.array(layer.log_scale.scale) * np.tanh(h[:, :2]), h[:, 2:]], -1)
    np.testing.assert_allclose(layer(VECTORS), expected, rtol=1e-10, atol=1e-12)


def test_no_hidden_layer_is_an_affine_map():
    layer = DenseNetwork(1, [])
    layer(VECTORS)
    assert [tuple(v.shape) for v in layer.trainable_variables] == [(3, 2), (2,), (1,)]


def test_dropout_thins_in_training_alone_and_keeps_the_mean(randomize):
    layer = DenseNetwork(2, [400], dropout=0.25, dtype="float64")
    layer(VECTORS)
    randomize(layer)
    outputs = np.stack([layer(VECTORS, training=True) for _ in range(200)])
    assert np.all(outputs.std(axis=0) > 0)
    # Shifts alone are compared, for they depend on the hidden units linearly.
    error = outputs.std(axis=0)[:, 2:] / np.sqrt(200)
    np.testing.assert_array_less(np.abs(outputs.mean(axis=0) - layer(VECTORS))[:, 2:], 5 * error)
    np.testing.assert_array_equal(layer(VECTORS), layer(VECTORS, training=False))


def test_a_seed_gives_the_same_weights_and_dropout():
    one, other = (DenseNetwork(2, [8], dropout=0.5, seed=3) for _ in range(2))
    one(VECTORS), other(VECTORS)
    np.testing.assert_array_equal(one.hidden[0].kernel, other.hidden[0].kernel)
    assert np.any(np.array(one.hidden[0].kernel) != 0)

import numpy as np
import pytest
import tensorflow as tf

from tfnvp.layers import RunningMoments

BATCHES = np.random.default_rng(0).normal(3, 2, size=(4, 6, 5, 5, 2))


def _train(layer, batches):
    for batch in batches:
        layer(batch, training=True)


def test_training_returns_the_moments_of_the_batch():
    layer = RunningMoments(dtype="float64")
    _train(layer, BATCHES[:2])
    mean, variance = layer(BATCHES[2], training=True)
    np.testing.assert_allclose(mean, BATCHES[2].mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, BATCHES[2].var(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.99])
def test_inference_returns_averages_that_weigh_batches_by_their_age(momentum):
    """momentum^(t - i) of batch i after t, normalised: there is no start value to forget."""
    layer = RunningMoments(momentum, dtype="float64")
    _train(layer, BATCHES)
    weights = momentum ** np.arange(3, -1, -1)
    weights = weights / weights.sum()
    for _ in range(2):
        mean, variance = layer(BATCHES[0])
        np.testing.assert_allclose(mean, weights @ BATCHES.mean(axis=(1, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(variance, weights @ BATCHES.var(axis=(1, 2, 3)), rtol=1e-12)


def test_before_any_training_they_are_zero_and_one():
    mean, variance = RunningMoments()(BATCHES[0])
    np.testing.assert_array_equal(mean, [0, 0])
    np.testing.assert_array_equal(variance, [1, 1])


def test_weights_say_which_positions_count():
    board = (np.indices((5, 5)).sum(0) % 2)[..., None].astype(float)
    mean, variance = RunningMoments(dtype="float64")(BATCHES[0], board, training=True)
    counted = BATCHES[0][:, board[..., 0] == 1].reshape(-1, 2)
    np.testing.assert_allclose(mean, counted.mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance, counted.var(0), rtol=1e-12)


def test_statistics_of_bfloat16_data_are_in_full_precision():
    layer = RunningMoments(dtype="mixed_bfloat16")
    mean, _ = layer(BATCHES[0].astype("float32"), training=True)
    assert mean.dtype == tf.float32
    np.testing.assert_allclose(mean, BATCHES[0].mean(axis=(0, 1, 2)), rtol=1e-5)


def test_gradient_passes_through_the_batch():
    layer = RunningMoments(dtype="float64")
    _train(layer, BATCHES[:1])
    x = tf.constant(BATCHES[1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        mean, variance = layer(x, training=True)
    # Each channel has 6 * 25 values.
    np.testing.assert_allclose(tape.gradient(mean, x), np.full(x.shape, 1 / 150), rtol=1e-12)
    slope = 2 / 150 * (BATCHES[1] - BATCHES[1].mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(tape.gradient(variance, x), slope, rtol=1e-9, atol=1e-15)


def test_no_rows_leave_finite_statistics():
    _, mean, variance = RunningMoments().of_batch(tf.zeros([0, 5, 5, 2]))
    np.testing.assert_array_equal(mean, [0, 0])
    np.testing.assert_array_equal(variance, [0, 0])


def test_variables_are_saved_and_not_trained():
    layer = RunningMoments()
    layer.build((None, 3))
    assert [v.name for v in layer.weights] == ["averages"]
    assert layer.trainable_variables == []
    layer(np.random.default_rng(0).normal(size=(5, 3)), training=True)
    state = {}
    layer.save_own_variables(state)
    parts = [layer.mean, layer.variance, layer.batches]
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(state[str(i)], part)
    other = RunningMoments()
    other.build((None, 3))
    other.load_own_variables(state)
    np.testing.assert_array_equal(other.averages, layer.averages)


@pytest.mark.parametrize("momentum", [-0.1, 1, 1.5])
def test_bad_momentum_is_named(momentum):
    message = rf"momentum must be in \[0, 1\), got momentum={momentum}"
    with pytest.raises(ValueError, match=message):
        RunningMoments(momentum)

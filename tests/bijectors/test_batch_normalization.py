"""Normalisation by running statistics; training is what Keras' call context says."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp import FlowDistribution
from tfnvp.bijectors import BatchNormalization
from tfnvp.layers import RunningMoments
from tfnvp.masks import ChannelHalves, Checkerboard

MASKS = {
    "none": None,
    "checkerboard 0": Checkerboard(0),
    "checkerboard 1": Checkerboard(1),
    "channels 0": ChannelHalves(0),
    "channels 1": ChannelHalves(1),
}
EPSILON = 1e-4


@pytest.fixture(params=MASKS.values(), ids=MASKS.keys())
def mask(request):
    return request.param


class InCall(keras.layers.Layer):
    """Calls a function in Keras' call context, which decides between training and inference."""

    def __init__(self, function):
        super().__init__(dtype="float64", autocast=False)
        self.function = function

    def call(self, x, training=None):
        return self.function(x)


def _normalization(mask, momentum=0.9):
    return BatchNormalization(mask, RunningMoments(momentum, dtype="float64"))


def _batches(count=3):
    return np.random.default_rng(0).normal(2, 3, size=(count, 4, 3, 3, 5))


def _changes(mask, images):
    """A boolean array of the images' shape: what the mask lets change."""
    where = np.ones(images.shape, bool)
    if isinstance(mask, Checkerboard):
        board = np.add.outer(np.arange(images.shape[-3]), np.arange(images.shape[-2]))
        where[:] = ((board + mask.parity) % 2 == 1)[..., None]
    elif mask is not None:
        where[..., slice(2, 5) if mask.parity else slice(0, 2)] = False
    return where


def _moments(mask, batch):
    """Mean and variance of each channel that changes, over the changed positions."""
    where = _changes(mask, batch)
    channels = [batch[..., c][where[..., c]] for c in range(batch.shape[-1])]
    channels = [channel for channel in channels if channel.size]
    return np.array([c.mean() for c in channels]), np.array([c.var() for c in channels])


def _expand(mask, values):
    """Values of the changed channels, [C'], as [C] with zeros for the others."""
    full = np.zeros(5)
    full[_changes(mask, np.zeros((1, 2, 2, 5))).any((0, 1, 2))] = values
    return full


def _in_training(normalization, batch):
    """Latents and log-det of a batch, as training computes them."""

    return InCall(normalization.inverse_and_log_det)(batch, training=True)


def test_training_normalises_the_changed_positions_by_the_batch(mask):
    """Whatever came before; log-det counts the changed positions."""
    earlier, batch, _ = _batches()
    normalization = _normalization(mask)
    _in_training(normalization, earlier)
    z, log_det = _in_training(normalization, batch)
    mean, variance = _moments(mask, batch)
    where = _changes(mask, batch)
    scale = 1 / np.sqrt(_expand(mask, variance) + EPSILON)
    expected = np.where(where, (batch - _expand(mask, mean)) * scale, batch)
    np.testing.assert_allclose(z, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(log_det, np.sum(where[0] * np.log(scale)), rtol=1e-10)


def test_running_average_forgets_its_start(mask):
    """The weight of batch i of t is momentum^(t - i), and the weights sum to one."""
    normalization = _normalization(mask, momentum=0.6)
    train = InCall(normalization.inverse)
    batches = _batches()
    for batch in batches:
        train(batch, training=True)
    weights = 0.6 ** np.arange(2, -1, -1)
    weights /= weights.sum()
    moments = [_moments(mask, batch) for batch in batches]
    mean = sum(w * m for w, (m, _) in zip(weights, moments, strict=True))
    variance = sum(w * v for w, (_, v) in zip(weights, moments, strict=True))
    np.testing.assert_allclose(normalization.moments.mean, mean, rtol=1e-10)
    np.testing.assert_allclose(normalization.moments.variance, variance, rtol=1e-10)


def test_inference_uses_the_running_average(mask):
    """Which with a momentum of 0 is the last batch: its numbers are those of training."""
    normalization = _normalization(mask, momentum=0.0)
    for batch in _batches():
        z, log_det = _in_training(normalization, batch)
    before = [np.array(weight) for weight in normalization.moments.weights]
    np.testing.assert_allclose(normalization.inverse(batch), z, rtol=1e-12, atol=1e-12)
    inferred = normalization.inverse_log_det_jacobian(tf.constant(batch))
    np.testing.assert_allclose(inferred, log_det, rtol=1e-12)
    for old, weight in zip(before, normalization.moments.weights, strict=True):
        np.testing.assert_array_equal(old, weight)


def test_a_batch_is_taken_in_once_by_log_prob():
    normalization = _normalization(Checkerboard(0), momentum=0.5)
    chain = tfp.bijectors.Chain([tfp.bijectors.Shift(np.float64(1)), normalization])
    base = tfp.distributions.Independent(tfp.distributions.Normal(np.zeros((3, 3, 5)), 1.0), 3)
    distribution = FlowDistribution(base, chain)
    train = InCall(distribution.log_prob)
    for batch in _batches(2):
        train(batch, training=True)
    assert float(normalization.moments.batches) == 0.5 * 1 + 1
    compiled = tf.function(lambda x: train(x, training=True))
    compiled(tf.constant(batch))
    assert float(normalization.moments.batches) == 0.5 * 1.5 + 1


def test_in_training_a_density_needs_one_pass():
    """TFP would take the batch in by `inverse` and the averages' log-det by `forward`."""
    normalization = _normalization(Checkerboard(0))
    base = tfp.distributions.Independent(tfp.distributions.Normal(np.zeros((3, 3, 5)), 1.0), 3)
    plain = tfp.distributions.TransformedDistribution(base, tfp.bijectors.Chain([normalization]))
    batch = _batches()[0]
    with pytest.raises(ValueError, match=r"in training .* use tfnvp\.FlowDistribution"):
        InCall(plain.log_prob)(batch, training=True)
    expected = FlowDistribution(base, normalization).log_prob(batch)
    np.testing.assert_allclose(InCall(plain.log_prob)(batch, training=False), expected)


def test_forward_infers_in_training_too(mask):
    normalization = _normalization(mask)
    train = InCall(normalization.inverse)
    batches = _batches()
    z = train(batches[0], training=True)
    before = [np.array(weight) for weight in normalization.moments.weights]
    x = InCall(normalization.forward)(tf.identity(z), training=True)
    np.testing.assert_allclose(x, batches[0], rtol=1e-10, atol=1e-10)
    for old, weight in zip(before, normalization.moments.weights, strict=True):
        np.testing.assert_array_equal(old, weight)


def test_gradient_passes_through_the_moments_of_the_batch(mask):
    """Against finite differences of the formula."""
    earlier, batch, weights = _batches()
    where = _changes(mask, batch)

    def loss(x):
        mean, variance = (_expand(mask, moment) for moment in _moments(mask, x))
        z = np.where(where, (x - mean) / np.sqrt(variance + EPSILON), x)
        return np.sum(weights * z) - 0.5 * np.sum(where[0] * np.log(variance + EPSILON))

    normalization = _normalization(mask)
    _in_training(normalization, earlier)
    x = tf.constant(batch)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z, log_det = _in_training(normalization, x)
        value = tf.reduce_sum(weights * z) + log_det
    gradient = tape.gradient(value, x)
    np.testing.assert_allclose(value, loss(batch), rtol=1e-10)
    for index in [(0, 0, 0, 0), (1, 0, 1, 1), (2, 2, 1, 3), (3, 1, 1, 4)]:
        step = np.zeros_like(batch)
        step[index] = 1e-5
        slope = (loss(batch + step) - loss(batch - step)) / 2e-5
        np.testing.assert_allclose(gradient[index], slope, rtol=1e-6, atol=1e-6)


def test_statistics_begin_with_the_identity():
    x = _batches()[0]
    np.testing.assert_allclose(BatchNormalization(epsilon=1e-12).inverse(x), x, rtol=1e-6)


def test_copy_shares_the_statistics():
    normalization = BatchNormalization(Checkerboard(0))
    InCall(normalization.inverse)(_batches()[0].astype("float32"), training=True)
    assert normalization.copy().moments is normalization.moments


def test_sizes_unknown_in_the_graph(mask):
    normalization = _normalization(mask)
    batch = _batches()[0]
    InCall(normalization.inverse)(batch, training=True)
    signature = [tf.TensorSpec([None, None, None, 5], tf.float64)]
    log_det = tf.function(normalization.inverse_log_det_jacobian, input_signature=signature)
    for size in (3, 2):
        x = tf.constant(batch[:, :size, :size])
        expected = normalization.inverse_log_det_jacobian(x)
        np.testing.assert_allclose(log_det(x), expected, rtol=1e-12)


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match=r"mask must be None, .*got mask=0"):
        BatchNormalization(0)
    with pytest.raises(ValueError, match="epsilon must be positive, got epsilon=0"):
        BatchNormalization(epsilon=0)

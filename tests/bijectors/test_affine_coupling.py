import keras
import numpy as np
import pytest
import tensorflow as tf

from tfnvp.bijectors import AffineCoupling
from tfnvp.masks import ChannelHalves, Checkerboard

RANDOM = np.random.default_rng(0)


def _outputs(shape):
    """A conditioner of fixed outputs, and its log-scales and shifts, each of the shape."""
    values = RANDOM.normal(size=(*shape[:-1], 2 * shape[-1]))
    return lambda stays: tf.constant(values), *np.split(values, 2, axis=-1)


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboard_coupling_by_the_formula(parity):
    conditioner, s, t = _outputs((2, 4, 3, 2))
    x = RANDOM.normal(size=(2, 4, 3, 2))
    b = (np.add.outer(np.arange(4), np.arange(3)) + parity) % 2 == 0
    b = b[..., None].astype(float)
    coupling = AffineCoupling(Checkerboard(parity), conditioner)
    z = coupling.inverse(x)
    np.testing.assert_allclose(z, b * x + (1 - b) * (x * np.exp(s) + t), rtol=1e-12)
    log_det = coupling.inverse_log_det_jacobian(x)
    np.testing.assert_allclose(log_det, np.sum((1 - b) * s, axis=(1, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("parity", [0, 1])
def test_channel_coupling_by_the_formula(parity):
    """An odd size is cut at n // 2; the parity says which part stays."""
    stays, changes = (slice(2, 5), slice(0, 2)) if parity else (slice(0, 2), slice(2, 5))
    x = RANDOM.normal(size=(3, 5))
    conditioner, s, t = _outputs((3, x[:, changes].shape[1]))
    coupling = AffineCoupling(ChannelHalves(parity, event_ndims=1), conditioner)
    z = coupling.inverse(x)
    np.testing.assert_array_equal(z[:, stays], x[:, stays])
    np.testing.assert_allclose(z[:, changes], x[:, changes] * np.exp(s) + t, rtol=1e-12)
    np.testing.assert_allclose(coupling.inverse_log_det_jacobian(x), s.sum(1), rtol=1e-12)


def test_conditioner_sees_what_stays_alone():
    """One batch dimension, whatever the rank; half of the channels, or zeros for what changes."""
    seen = []

    def conditioner(stays):
        seen.append(stays)
        return tf.zeros([*stays.shape[:-1], 4], stays.dtype)

    x = tf.constant(RANDOM.normal(size=(2, 3, 4, 4, 3)))
    AffineCoupling(ChannelHalves(0), conditioner).inverse(x)
    np.testing.assert_array_equal(seen[0], x[..., :1].numpy().reshape(6, 4, 4, 1))
    AffineCoupling(Checkerboard(1), conditioner).inverse(x[0, 0, :, :, :2])
    board = np.indices((4, 4)).sum(0) % 2
    np.testing.assert_array_equal(seen[1], board[None, ..., None] * x[:1, 0, :, :, :2])


def test_output_of_a_lower_precision_is_cast():
    coupling = AffineCoupling(
        ChannelHalves(0, event_ndims=1), keras.layers.Dense(2, dtype="mixed_bfloat16")
    )
    assert coupling.inverse(tf.ones([3, 2])).dtype == tf.float32


@pytest.mark.parametrize("compiled", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_validate_args_refuses_log_scales_that_are_not_finite(compiled):
    mask = ChannelHalves(0, event_ndims=1)
    arguments = (mask, lambda stays: tf.concat([stays / 0, stays], axis=-1))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        compiled(AffineCoupling(*arguments, validate_args=True).inverse)(tf.ones([3, 2]))
    assert np.isinf(AffineCoupling(*arguments).inverse(tf.ones([3, 2]))[0, 1])


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match=r"mask must be .*Checkerboard.*got mask='checkerboard'"):
        AffineCoupling("checkerboard", keras.layers.Dense(2))
    with pytest.raises(TypeError, match=r"conditioner must be .*got conditioner=3"):
        AffineCoupling(Checkerboard(0), 3)


@pytest.mark.parametrize(
    ("mask", "expected"), [(Checkerboard(0), 6), (ChannelHalves(0), 4), (ChannelHalves(1), 2)]
)
def test_output_of_a_wrong_size_is_refused(mask, expected):
    coupling = AffineCoupling(mask, keras.layers.Dense(5))
    message = rf"{expected} values on its last axis, for .*parity=\d.*got shape \(1, 2, 2, 5\)"
    with pytest.raises(ValueError, match=message):
        coupling.inverse(tf.ones([1, 2, 2, 3]))

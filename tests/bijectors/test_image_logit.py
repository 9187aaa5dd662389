import numpy as np
import pytest
import tensorflow as tf

from tfnvp.bijectors import ImageLogit


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.3])
def test_by_the_formula(alpha):
    x = np.linspace(0.01, 0.99, 7)
    p = alpha + (1 - 2 * alpha) * x
    logit = ImageLogit(alpha)
    np.testing.assert_allclose(logit.inverse(x), np.log(p) - np.log(1 - p), atol=1e-12)
    expected = np.log(1 - 2 * alpha) - np.log(p) - np.log(1 - p)
    np.testing.assert_allclose(logit.inverse_log_det_jacobian(x), expected, rtol=1e-12)


def test_black_and_white_are_finite_and_symmetric():
    black, white = ImageLogit().inverse([0.0, 1.0]).numpy()
    assert black == pytest.approx(np.log(0.05 / 0.95)) and white == pytest.approx(-black)
    assert np.isneginf(ImageLogit(alpha=0.0).inverse(0.0))


def test_range_is_a_little_wider_than_the_pixels():
    margin = 0.05 / 0.9
    lowest, highest = ImageLogit().forward(tf.constant([-200.0, 200.0], tf.float64)).numpy()
    assert lowest == pytest.approx(-margin) and highest == pytest.approx(1 + margin)


def test_far_latents_have_a_finite_log_det():
    log_det = ImageLogit().forward_log_det_jacobian([-300.0, 300.0])
    np.testing.assert_allclose(log_det, -300 - np.log(0.9), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_its_ends_are_within_and_beyond_them_is_no_density(alpha, dtype):
    """Values and gradients are finite everywhere, and the log-det is -inf beyond."""
    logit = ImageLogit(alpha)
    ends = logit.forward(tf.constant([-1e4, 1e4], dtype))
    np.testing.assert_allclose(ends, logit.range, rtol=1e-6)
    low, high = logit.range
    x = tf.constant([low - 0.01, high + 0.01, -1e30, 1e30, np.inf, -np.inf], dtype)
    for values, inside in ((ends, True), (x, False)):
        with tf.GradientTape() as tape:
            tape.watch(values)
            y, log_det = logit.inverse_and_log_det(values)
        assert np.isfinite(y).all() and np.isfinite(tape.gradient([y, log_det], values)).all()
        assert np.isfinite(log_det).all() if inside else np.isneginf(log_det).all()
        assert logit.contains(values).numpy().all() == inside
    y, _ = logit.inverse_and_log_det(tf.constant(np.nan, dtype))
    assert np.isnan(y) and not logit.contains(tf.constant(np.nan, dtype))


@pytest.mark.parametrize("compiled", [lambda f: f, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("bad", [-0.06, 1.06, np.nan])
def test_validate_args_refuses_data_beyond_the_range(compiled, bad):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"within \(-0.0555556, 1.05556\)"):
        compiled(ImageLogit(validate_args=True).inverse)(tf.constant([0.5, bad]))


@pytest.mark.parametrize("alpha", [-0.1, 0.5, 1.0, float("nan")])
def test_bad_alpha_is_named(alpha):
    with pytest.raises(ValueError, match=rf"alpha must be in \[0, 0.5\), got alpha={alpha}"):
        ImageLogit(alpha)

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp
from tfnvp import FlowDistribution
from tfnvp.bijectors import ElementwiseSpline, SplineCoupling
from tfnvp.masks import ChannelHalves, Checkerboard, Partition

tfb, tfd = tfp.bijectors, tfp.distributions
BINS, BOUND = 5, 3.0


def _outputs(shape, bins=BINS, size=1.0):
    """A conditioner of fixed outputs; its log-scales and shifts; and its splines, made by TFP."""
    values = np.random.default_rng(0).normal(
        scale=size, size=(*shape[:-1], 1 + 3 * bins, shape[-1])
    )
    s, t, parameters = values[..., 0, :], values[..., 1, :], values[..., 2:, :]
    widths, heights, slopes = np.split(np.moveaxis(parameters, -2, -1), [bins, 2 * bins], axis=-1)
    least = 1e-3

    def sizes(logits):
        return 2 * BOUND * (least + (1 - least * bins) * tf.nn.softmax(logits))

    # The softplus of this is the slope 1 of the tails, but for the least slope.
    slopes = least + tf.nn.softplus(slopes + np.log(np.expm1(1 - least)))
    spline = tfb.RationalQuadraticSpline(sizes(widths), sizes(heights), slopes, range_min=-BOUND)
    return lambda stays: tf.constant(values.reshape(*shape[:-1], -1)), s, t, spline


@pytest.mark.parametrize("parity", [0, 1])
def test_checkerboard_coupling_by_the_formula(parity):
    conditioner, s, t, spline = _outputs((2, 4, 3, 2))
    # Some values are beyond the bound.
    x = np.random.default_rng(1).normal(scale=2, size=(2, 4, 3, 2))
    b = (np.add.outer(np.arange(4), np.arange(3)) + parity) % 2 == 0
    b = b[..., None].astype(float)
    coupling = SplineCoupling(Checkerboard(parity), conditioner, BOUND)
    u = x * np.exp(s) + t
    z = coupling.inverse(x)
    np.testing.assert_allclose(z, b * x + (1 - b) * spline.forward(u), rtol=1e-10, atol=1e-12)
    log_slopes = s + spline.forward_log_det_jacobian(u, 0)
    expected = np.sum((1 - b) * log_slopes, axis=(1, 2, 3))
    np.testing.assert_allclose(coupling.inverse_log_det_jacobian(x), expected, rtol=1e-10)


@pytest.mark.parametrize("parity", [0, 1])
def test_channel_coupling_by_the_formula(parity):
    stays, changes = (slice(2, 5), slice(0, 2)) if parity else (slice(0, 2), slice(2, 5))
    x = np.random.default_rng(1).normal(scale=2, size=(30, 5))
    conditioner, s, t, spline = _outputs((30, x[:, changes].shape[1]))
    coupling = SplineCoupling(ChannelHalves(parity, event_ndims=1), conditioner, BOUND)
    u = x[:, changes] * np.exp(s) + t
    assert 0 < np.mean(np.abs(u) > BOUND) < 1
    z = coupling.inverse(x)
    np.testing.assert_array_equal(z[:, stays], x[:, stays])
    np.testing.assert_allclose(z[:, changes], spline.forward(u), rtol=1e-10, atol=1e-12)
    expected = np.sum(s + spline.forward_log_det_jacobian(u, 0), axis=1)
    np.testing.assert_allclose(coupling.inverse_log_det_jacobian(x), expected, rtol=1e-10)
    np.testing.assert_allclose(coupling.forward(z), x, rtol=1e-9, atol=1e-9)


def test_zeros_are_the_identity():
    coupling = SplineCoupling(Checkerboard(0), lambda x: tf.zeros([*x.shape[:-1], 2 * 25]))
    x = np.random.default_rng(1).normal(scale=3, size=(4, 3, 3, 2)).astype("float32")
    np.testing.assert_allclose(coupling.inverse(x), x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(coupling.inverse_log_det_jacobian(x), np.zeros(4), atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_splines_of_extreme_parameters_are_undone(dtype):
    """A spline's slopes, of bins of the least width and height, span six orders of magnitude."""
    conditioner, *_ = _outputs((400, 2), size=30.0)
    mask = ChannelHalves(0, event_ndims=1)

    def splines(stays):
        values = tf.cast(conditioner(stays), dtype)
        return tf.concat([values[:, :4] / 100, values[:, 4:]], axis=-1)

    coupling = SplineCoupling(mask, splines, BOUND)
    x = tf.constant(np.random.default_rng(1).uniform(-4, 4, size=(400, 4)), dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        z, log_det = coupling.inverse_and_log_det(x)
    assert np.all(np.isfinite(tape.gradient(log_det, x)))
    again, back = coupling.forward_and_log_det(z)
    assert np.all(np.isfinite(back))
    # Where the curve is steep, the rounding of x is a larger error of z.
    np.testing.assert_allclose(
        coupling.inverse(again), z, atol={"float32": 5e-3, "float64": 1e-11}[dtype]
    )
    # Where it is flat, the rounding of z is a larger error of x, in float32 one of a bin's width.
    if dtype == "float64":
        np.testing.assert_allclose(again, x, atol=1e-7)


def test_density_integrates_to_one():
    networks = [
        keras.Sequential([keras.layers.Dense(16, "tanh"), keras.layers.Dense(25)]) for _ in range(2)
    ]
    couplings = [
        SplineCoupling(ChannelHalves(p, event_ndims=1), network)
        for p, network in enumerate(networks)
    ]
    keras.utils.set_random_seed(0)
    dist = FlowDistribution(tfd.MultivariateNormalDiag(tf.zeros(2)), tfb.Chain(couplings))
    dist.log_prob(tf.zeros([1, 2]))
    for network in networks:
        # Splines are bent more than they begin with, and scales and shifts less.
        factors = np.where(np.arange(25) < 2, 0.3, 1.5)
        network.layers[1].kernel.assign(factors * network.layers[1].kernel)
    cell = 0.02
    axis = np.arange(-12, 12, cell, dtype="float32") + cell / 2
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    density = tf.function(dist.prob)(grid)
    np.testing.assert_allclose(np.sum(density) * cell**2, 1, atol=2e-3)
    # It is no normal density.
    moments = np.array([np.mean(np.array(dist.sample(20_000, seed=1)) ** k, 0) for k in (2, 4)])
    assert np.any(np.abs(moments[1] / moments[0] ** 2 - 3) > 0.1)


@pytest.mark.parametrize("values", [3, 12, 16, 3 * (1 + 3 * 201)])
def test_output_of_a_wrong_size_is_refused(values):
    coupling = SplineCoupling(ChannelHalves(0), lambda x: tf.zeros([*x.shape[:-1], values]))
    message = rf"3 \* \(1 \+ 3 K\) values .*ChannelHalves.*got shape \(1, 2, 2, {values}\)"
    with pytest.raises(ValueError, match=message):
        coupling.inverse(tf.ones([1, 2, 2, 5]))


@pytest.mark.parametrize(
    "make", [SplineCoupling, ElementwiseSpline], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("bound", [0, -1.0, math.nan, math.inf, 2e38, None, "4", [4], True])
def test_bound_is_a_positive_number(make, bound):
    arguments = [Checkerboard(0), keras.layers.Dense(25)] if make is SplineCoupling else []
    message = f"bound must be a number above 0 and below 1e30, got bound={bound!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        make(*arguments, bound=bound)


@pytest.mark.parametrize("spline_bins", [1, -2, 2.0, True, 201, None])
def test_number_of_bins_is_checked(spline_bins):
    message = f"spline_bins must be .*got spline_bins={spline_bins}"
    with pytest.raises(ValueError, match=message):
        tfnvp.ImageRealNVP((4, 4, 1), 1, 4, 1, spline_bins=spline_bins)
    with pytest.raises(ValueError, match=message):
        tfnvp.layers.ResidualNetwork(1, 4, 1, spline_bins=spline_bins)
    with pytest.raises(ValueError, match=message):
        tfnvp.layers.DenseNetwork(1, [4], spline_bins=spline_bins)
    with pytest.raises(ValueError, match="bins must be"):
        tfnvp.layers.SplineWeights(spline_bins)


def test_number_of_bins_may_be_of_numpy():
    model = tfnvp.VectorRealNVP(2, 1, (4,), spline_bins=np.int64(3))
    assert model.log_prob(np.zeros((2, 2), "float32")).shape == (2,)
    assert type(model.get_config()["spline_bins"]) is int


@pytest.mark.parametrize("bins", [2, 200])
def test_splines_of_few_and_of_many_bins_rise_and_are_undone(bins):
    conditioner, *_ = _outputs((1, 1), bins, size=3.0)
    coupling = SplineCoupling(ChannelHalves(0, event_ndims=1), conditioner, BOUND)
    x = np.linspace(-4, 4, 3001)
    z = [coupling.inverse(tf.constant([[0.0, v]], tf.float64))[0, 1].numpy() for v in x[::100]]
    assert np.all(np.diff(z) > 0)
    for v in x[::100]:
        event = tf.constant([[0.0, v]], tf.float64)
        again = coupling.forward(coupling.inverse(event))
        np.testing.assert_allclose(again, event, atol=1e-9)


def test_half_precision_works_in_functions():
    coupling = SplineCoupling(ChannelHalves(0, event_ndims=1), lambda x: tf.zeros([3, 13], x.dtype))
    z = tf.function(coupling.inverse)(tf.ones([3, 2], tf.float16))
    assert z.dtype == tf.float16 and np.all(np.isfinite(z))


def test_a_mask_that_cannot_pick_is_refused():
    class Rows(Partition):
        event_ndims = 1

        def split(self, x):
            return x * (1 - self.changing(x)), x, lambda changed: changed

        def changing(self, changes):
            return tf.constant([0.0, 1.0], changes.dtype)

    coupling = SplineCoupling(Rows(0), lambda x: tf.zeros([*x.shape[:-1], 2 * 13]))
    with pytest.raises(NotImplementedError, match="Rows must define pick and put"):
        coupling.inverse(tf.ones([3, 2]))

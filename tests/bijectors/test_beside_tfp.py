"""Flows beside bijectors of TFP's own: fresh and connected, also where TFP would keep answers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp
from tfnvp.bijectors import AffineCoupling, forward_and_log_det, inverse_and_log_det
from tfnvp.layers import DenseNetwork
from tfnvp.masks import ChannelHalves

tfb, tfd = tfp.bijectors, tfp.distributions


def _coupling(parity, randomize):
    network = DenseNetwork(1, [4])
    network.build((None, 1))
    randomize(network, seed=parity)
    return AffineCoupling(ChannelHalves(parity, event_ndims=1), network)


BESIDE = {
    "shift": lambda one, other: tfb.Chain([tfb.Shift([1.0, -1.0]), one, other]),
    "scale": lambda one, other: tfb.Chain([tfb.Scale(2.0), one, other]),
    "exp": lambda one, other: tfb.Chain([tfb.Exp(), one, other]),
    "reshape": lambda one, other: tfb.Chain([tfb.Reshape([2], [2]), one, other]),
    "last": lambda one, other: tfb.Chain([one, other, tfb.Shift([1.0, -1.0])]),
    "inverted": lambda one, other: tfb.Invert(tfb.Chain([one, other, tfb.Shift([1.0, -1.0])])),
    "nested": lambda one, other: tfb.Chain([tfb.Chain([tfb.Exp(), one]), tfb.Invert(other)]),
}


@pytest.fixture(params=BESIDE)
def flow(request, randomize):
    return BESIDE[request.param](_coupling(0, randomize), _coupling(1, randomize))


@pytest.mark.parametrize("make", [tfd.TransformedDistribution, tfnvp.FlowDistribution])
@pytest.mark.parametrize("compiled", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_the_density_is_connected_to_its_own_samples(flow, compiled, make):
    distribution = make(tfd.MultivariateNormalDiag([0.0, 0.0]), flow)

    def score_of_samples():
        x = distribution.sample(4, seed=(0, 1))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            log_prob = distribution.log_prob(x)
            afresh = distribution.log_prob(tf.identity(x))
        return tape.gradient(log_prob, x), tape.gradient(afresh, x)

    found, expected = compiled(score_of_samples)()
    assert found is not None and np.any(found)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_there_and_back_is_connected(flow):
    for there, back in ((flow.forward, flow.inverse), (flow.inverse, flow.forward)):
        x = tf.constant([[0.5, 0.25], [1.5, 0.75]])
        with tf.GradientTape() as tape:
            tape.watch(x)
            again = back(there(x))
        np.testing.assert_allclose(again, x, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(tape.gradient(again, x), np.ones((2, 2)), rtol=1e-3, atol=1e-4)


def test_a_scale_of_a_layers_weight_is_of_its_value_now(randomize):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    layer.build((None, 1))
    kernel = tfp.util.DeferredTensor(layer.kernel.value, lambda value: value[0, 0], shape=[])
    scale = tfb.Scale(kernel)
    flow = tfb.Chain([scale, _coupling(0, randomize)])
    base = tfd.MultivariateNormalDiag([0.0, 0.0])
    makers = (tfd.TransformedDistribution, tfnvp.FlowDistribution)
    distributions = [make(base, flow) for make in makers]
    drawn = [distribution.sample(3, seed=(0, 1)) for distribution in distributions]
    for distribution, x in zip(distributions, drawn, strict=True):
        distribution.log_prob(x)
    layer.kernel.assign([[2.0]])
    for distribution, x in zip(distributions, drawn, strict=True):
        for method in (distribution.log_prob, distribution.bijector.inverse):
            np.testing.assert_allclose(method(x), method(tf.identity(x)), rtol=1e-6)


def test_joint_maps_stay_connected(randomize):
    joint = tfb.JointMap([_coupling(0, randomize), tfb.Exp()])
    z = [tf.constant([[0.5, 0.25]]), tf.constant([[0.5]])]
    x = joint.forward(z)
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_det = joint.inverse_log_det_jacobian(x, [1, 1])
    first, second = tape.gradient(log_det, x)
    assert np.any(first)
    np.testing.assert_allclose(second, -1 / x[1], rtol=1e-5)


PARTS = {
    "with a flow": lambda randomize: _coupling(0, randomize),
    "without": lambda randomize: tfb.Chain([tfb.Exp(), tfb.Scale([2.0, 3.0])]),
}


@pytest.mark.parametrize("name", PARTS)
def test_chains_of_several_tensors_are_left_to_tfp(name, randomize):
    part = PARTS[name](randomize)
    joint = tfb.JointMap([part, tfb.Scale(2.0)])
    chain = tfb.Chain([tfb.Invert(tfb.Split(2)), joint, tfb.Split(2)])
    x = tf.constant([[0.5, 0.25, 1.5, 0.75], [1.0, 2.0, 3.0, 4.0]])
    z, log_det = inverse_and_log_det(chain, x)
    value, of_part = inverse_and_log_det(part, x[:, :2], 1)
    np.testing.assert_allclose(z, np.concatenate([value, x[:, 2:] / 2], axis=1), rtol=1e-5)
    np.testing.assert_allclose(log_det, of_part - 2 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(chain.inverse_log_det_jacobian(x, 1), log_det, rtol=1e-5)
    again, back = forward_and_log_det(chain, z)
    np.testing.assert_allclose(again, x, rtol=1e-4)
    np.testing.assert_allclose(back, -log_det, rtol=1e-4)
    base = tfd.MultivariateNormalDiag(tf.zeros(4))
    for make in (tfd.TransformedDistribution, tfnvp.FlowDistribution):
        np.testing.assert_allclose(
            make(base, chain).log_prob(x), base.log_prob(z) + log_det, rtol=1e-5
        )
    # Several tensors at the ends, too.
    latents, log_det = inverse_and_log_det(joint, [x[:, :2], x[:, 2:]], [1, 1])
    np.testing.assert_allclose(latents[0], value, rtol=1e-5)
    np.testing.assert_allclose(log_det, of_part - 2 * np.log(2), rtol=1e-5)

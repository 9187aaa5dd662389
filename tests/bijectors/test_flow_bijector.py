"""One pass a direction, and the tie between TFP and Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp import FlowDistribution
from tfnvp.bijectors import (
    AffineCoupling,
    FactorOut,
    FlowBijector,
    forward_and_log_det,
    inverse_and_log_det,
)
from tfnvp.bijectors.flow_bijector import keras_layers
from tfnvp.layers import ResidualNetwork
from tfnvp.masks import ChannelHalves, Checkerboard

tfb, tfd = tfp.bijectors, tfp.distributions


class Counting(keras.layers.Layer):
    """A conditioner that counts how often it runs."""

    def __init__(self, changes):
        super().__init__()
        self.dense = keras.layers.Dense(
            2 * changes, activation="tanh", bias_initializer=keras.initializers.RandomNormal(seed=1)
        )
        self.runs = 0

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        self.runs += 1
        return self.dense(x)


def _over_normal(bijector, *event_shape):
    base = tfd.Independent(tfd.Normal(tf.zeros(event_shape), 1.0), len(event_shape))
    return FlowDistribution(base, bijector)


@pytest.fixture
def counted():
    """A distribution over [4, 4, 2] of two couplings, one in a factored-out half, and a counter."""
    networks = [Counting(1), Counting(4)]
    inner = tfb.Chain([tfb.Shift(0.1), AffineCoupling(Checkerboard(0), networks[1])])
    flow = tfb.Chain([AffineCoupling(ChannelHalves(0), networks[0]), FactorOut(inner)])
    distribution = _over_normal(flow, 4, 4, 2)
    distribution.log_prob(tf.zeros([1, 4, 4, 2]))

    def runs(function, *args):
        for network in networks:
            network.runs = 0
        function(*args)
        return [network.runs for network in networks]

    return distribution, runs


@pytest.mark.parametrize("compiled", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_each_network_runs_once(counted, compiled):
    distribution, runs = counted
    flow = distribution.bijector
    x = tf.random.stateless_normal([3, 4, 4, 2], seed=(1, 2))

    def encode_and_log_det(x):
        return inverse_and_log_det(flow, x)

    def inverted(x):
        return forward_and_log_det(tfb.Invert(flow), x)

    for function in (distribution.log_prob, encode_and_log_det, inverted):
        assert runs(compiled(function), tf.identity(x)) == [1, 1], function
    for function in (distribution.sample, distribution.experimental_sample_and_log_prob):
        assert runs(compiled(lambda f=function: f(3))) == [1, 1], function
    # In TFP's own class, and by TFP's two calls, twice at most.
    plain = tfd.TransformedDistribution(distribution.distribution, flow)
    assert runs(compiled(plain.log_prob), x) == [2, 2]
    assert runs(compiled(plain.experimental_sample_and_log_prob), 3) == [2, 2]
    assert runs(compiled(flow.inverse_log_det_jacobian), x) == [1, 1]
    assert runs(compiled(flow.forward_log_det_jacobian), x) == [1, 1]


def test_log_det_follows_the_weights(counted):
    """In eager code TFP's cache would keep a log-det for as long as its argument lives."""
    distribution, _ = counted
    flow = distribution.bijector
    coupling = flow.bijectors[0]
    x = tf.random.stateless_normal([3, 4, 4, 2], seed=(1, 2))
    functions = [
        distribution.log_prob,
        flow.inverse_log_det_jacobian,
        coupling.inverse_log_det_jacobian,
        coupling.forward_log_det_jacobian,
        lambda x: (coupling.inverse(x), coupling.inverse_log_det_jacobian(x))[1],
    ]
    for function in functions:
        before = function(x).numpy()
        for variable in distribution.trainable_variables:
            variable.assign_add(0.2 * tf.ones_like(variable))
        after = function(x).numpy()
        assert np.all(np.abs(after - before) > 1e-3)
        np.testing.assert_array_equal(after, function(tf.identity(x)))


def test_convolutions_are_computed_once(count_operations):
    """In the value, and in the gradient by the argument and by the weights."""
    networks = [ResidualNetwork(1, 4, 1, checkerboard_parity=p) for p in (0, 1)]
    couplings = [AffineCoupling(Checkerboard(p), networks[p]) for p in (0, 1)]
    distribution = _over_normal(tfb.Chain(couplings), 4, 4, 1)
    x = tf.ones([2, 4, 4, 1])
    distribution.log_prob(x)
    # A network with one block has six: the first, two in the block, two skips and the last.
    once = 2 * 6

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            log_prob = distribution.log_prob(x)
        return tape.gradient(log_prob, [x, *distribution.trainable_variables])

    assert count_operations(distribution.log_prob, x)["Conv2D"] == once
    assert count_operations(lambda: distribution.sample(2))["Conv2D"] == once
    sampling = count_operations(lambda: distribution.experimental_sample_and_log_prob(2))
    assert sampling["Conv2D"] == once
    operations = count_operations(gradient, x)
    assert operations["Conv2D"] == once
    assert operations["Conv2DBackpropInput"] == once
    assert operations["Conv2DBackpropFilter"] == once


def test_layer_is_tied_when_it_is_built(identities):
    network = keras.layers.Dense(4)
    coupling = AffineCoupling(ChannelHalves(0, event_ndims=1), network)
    chain = tfb.Chain([tfb.Shift(1.0), coupling])
    distribution = _over_normal(chain, 4)
    owners = [coupling, chain, tfb.Invert(chain), distribution]
    assert all(owner.variables == () for owner in owners)
    distribution.sample()
    for owner in owners:
        assert identities(owner.trainable_variables) == identities(network.trainable_variables)
    assert len(coupling.variables) == 2
    # A built layer is tied from the start.
    again = AffineCoupling(ChannelHalves(1, event_ndims=1), network)
    assert identities(again.variables) == identities(network.variables)


def test_frozen_layer_is_not_trainable(identities):
    network = ResidualNetwork(1, 4, 0, checkerboard_parity=0)
    network.build((None, 4, 4, 1))
    coupling = AffineCoupling(Checkerboard(0), network)
    assert identities(coupling.variables) == identities(network.variables)
    trainable = set(identities(coupling.trainable_variables))
    # Running statistics, and the factors of a batch normalization that has none.
    assert (
        trainable
        == set(identities(network.trainable_variables))
        < set(identities(coupling.variables))
    )


class Held(FlowBijector):
    """Scales by exp of a layer's output; its layers are in a list and a dictionary."""

    def __init__(self, layers, name="held"):
        parameters = dict(locals())
        self.in_list = [layers[0], "no layer"]
        self.in_dict = {"a": layers[1], "again": layers[0]}
        super().__init__(0, parameters, name=name)

    def _forward_and_log_det(self, z):
        log_scale = sum(
            layer(tf.ones([1, 1]))[0, 0] for layer in (*self.in_list[:1], self.in_dict["a"])
        )
        return z * tf.exp(log_scale), log_scale * tf.ones_like(z)


def test_layers_in_containers_are_found_once(identities):
    layers = [keras.layers.Dense(1), keras.layers.Dense(1)]
    held = Held(layers)
    wrapped = tfb.Chain([held, tfb.Invert(held)])
    assert sorted(map(id, keras_layers(wrapped))) == sorted(map(id, layers))
    held.forward(1.0)
    assert sorted(identities(held.variables)) == sorted(
        identities([*layers[0].variables, *layers[1].variables])
    )


def test_a_subclass_may_know_one_direction_alone():
    held = Held([keras.layers.Dense(1), keras.layers.Dense(1)])
    x = held.forward(tf.constant([1.0, 2.0]))
    np.testing.assert_allclose(np.exp(held.forward_log_det_jacobian(2.0)), x[0], rtol=1e-6)
    with pytest.raises(NotImplementedError, match="Held must define _inverse_and_log_det"):
        held.inverse(tf.constant(3.0))
    with pytest.raises(NotImplementedError, match="FlowBijector must define _forward_and_log_det"):
        FlowBijector(0, {}).forward(1.0)

"""FlowDistribution: one pass of each network, of the current weights, connected to its argument."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from helpers.few_couplings import FewCouplings

import tfnvp
from tfnvp import FlowDistribution
from tfnvp.bijectors import AffineCoupling, ImageLogit
from tfnvp.layers import DenseNetwork
from tfnvp.masks import ChannelHalves

tfb, tfd = tfp.bijectors, tfp.distributions


def _own_flow():
    """A user's own chain of a plain Keras network and bijectors of TFP."""
    network = keras.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dense(2, "tanh")])
    coupling = AffineCoupling(ChannelHalves(0, event_ndims=1), network)
    chain = tfb.Chain([tfb.Shift([0.5, 0.0]), coupling, tfb.Permute([1, 0])])
    return tfnvp.FlowModel(
        tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), chain)
    )


MODELS = {
    "images": lambda: FewCouplings((4, 4, 1), 1, filters=4, residual_blocks=1),
    "mixing": lambda: FewCouplings((4, 4, 2), 1, filters=4, residual_blocks=1, mixing=True),
    "images of classes": lambda: FewCouplings(
        (4, 4, 1), 1, filters=4, residual_blocks=1, num_classes=3
    ),
    "vectors": lambda: tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4]),
    "vectors of classes": lambda: tfnvp.VectorRealNVP(
        3, 2, [4], num_classes=3, conditional_base=True
    ),
    "own flow": _own_flow,
}


# `make test-all` tries what they add to the others.
SLOW = ("mixing", "vectors of classes")
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS]


@pytest.fixture(scope="module", params=PARAMS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def flow(model, randomize):
    """A function that gives the model's distribution, anew at each call, and the model."""
    randomize(model)
    options = {"labels": [0, 1, 2, 0, 1, 2]} if model.num_classes else {}
    return lambda: model.distribution_for(**options), model


def _sample(distribution):
    return distribution.sample([] if distribution.batch_shape.rank else 6, seed=(1, 2))


def _move(model):
    for variable in model.trainable_variables:
        variable.assign_add(0.01 * tf.ones_like(variable))


def _jacobian(distribution, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = distribution.bijector.inverse(x)
    return tape.gradient(z, x)


# A program may have asked for these, and still hold them, before the weights change.
HELD = (
    lambda distribution, x: distribution.log_prob(x),
    lambda distribution, x: distribution.bijector.inverse(x),
    lambda distribution, x: distribution.bijector.inverse_log_det_jacobian(x),
    _jacobian,
)


def test_log_prob_is_of_the_current_weights(flow):
    make, model = flow
    distribution, same = make(), make()
    x = _sample(distribution)
    kept = [held(distribution, x) for held in HELD]
    before = distribution.log_prob(x), distribution.bijector.inverse(x)
    _move(model)
    for one in (distribution, same, make()):
        after = one.log_prob(x), one.bijector.inverse(x)
        for new, fresh, old in zip(
            after,
            (one.log_prob(tf.identity(x)), one.bijector.inverse(tf.identity(x))),
            before,
            strict=True,
        ):
            np.testing.assert_allclose(new, fresh, rtol=1e-5, atol=1e-6)
            assert np.any(np.abs(new - old) > 1e-5)
    del kept


def test_log_prob_is_of_the_current_weights_in_a_function(flow):
    make, model = flow
    distribution = make()

    @tf.function
    def before_and_after(x):
        before = distribution.log_prob(x)
        _move(model)
        return before, distribution.log_prob(x), distribution.log_prob(tf.identity(x))

    before, after, fresh = before_and_after(_sample(distribution))
    np.testing.assert_allclose(after, fresh, rtol=1e-6)
    assert np.all(np.abs(after - before) > 1e-5)


@pytest.mark.parametrize("compiled", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_log_prob_is_connected_to_samples_and_weights(flow, compiled):
    make, model = flow
    distribution = make()

    def gradients():
        with tf.GradientTape() as tape:
            x = _sample(distribution)
            tape.watch(x)
            log_prob = distribution.log_prob(x)
        return tape.gradient(log_prob, [x, *distribution.trainable_variables])

    of_x, *of_variables = compiled(gradients)()
    assert np.any(of_x != 0)
    assert len(of_variables) == len(model.trainable_variables)
    for gradient, variable in zip(of_variables, model.trainable_variables, strict=True):
        assert gradient is not None and np.any(gradient != 0), variable.path


def test_samples_are_connected_to_weights(flow):
    """By the reparameterisation, for a reverse KL divergence."""
    make, _ = flow
    distribution = make()
    with tf.GradientTape() as tape:
        x, log_prob = distribution.experimental_sample_and_log_prob(
            [] if distribution.batch_shape.rank else 6, seed=(1, 2)
        )
        loss = tf.reduce_sum(x**2) + tf.reduce_sum(log_prob)
    gradients = tape.gradient(loss, distribution.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


def test_figures_are_those_of_tfps_own_class(flow):
    make, _ = flow
    distribution = make()
    plain = tfd.TransformedDistribution(distribution.distribution, distribution.bijector)
    assert isinstance(distribution, tfd.TransformedDistribution)
    assert distribution.event_shape == plain.event_shape
    assert distribution.batch_shape == plain.batch_shape
    x = _sample(distribution)
    np.testing.assert_allclose(_sample(plain), x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distribution.log_prob(x), plain.log_prob(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distribution.prob(x), np.exp(distribution.log_prob(x)), rtol=1e-5)
    samples, log_prob = distribution.experimental_sample_and_log_prob(
        [] if distribution.batch_shape.rank else 6, seed=(1, 2)
    )
    np.testing.assert_allclose(distribution.log_prob(samples), log_prob, rtol=1e-3, atol=2e-3)


def test_log_dets_of_bijectors_of_smaller_events_are_summed_over_the_event():
    """An elementwise one, a constant one, one of vectors, and one that changes the rank."""
    base = tfd.Sample(tfd.Normal(tf.zeros([], tf.float64), 1), [12])
    shift = tf.constant([0.1, 0.2, 0.3], tf.float64)
    chain = tfb.Chain(
        [
            ImageLogit(),
            tfb.Scale(np.float64(0.5)),
            tfb.Invert(tfb.Chain([tfb.Shift(shift), tfb.Scale(np.float64(3.0))])),
            tfb.Reshape([2, 2, 3]),
        ]
    )
    flow, plain = FlowDistribution(base, chain), tfd.TransformedDistribution(base, chain)
    x = np.random.default_rng(0).uniform(size=(5, 2, 2, 3))
    np.testing.assert_allclose(flow.log_prob(x), plain.log_prob(x), rtol=1e-10)
    samples, log_prob = flow.experimental_sample_and_log_prob(4, seed=(1, 2))
    np.testing.assert_allclose(plain.log_prob(samples), log_prob, rtol=1e-8)
    assert flow.log_prob(x[0]).shape == ()


def test_a_scale_has_a_log_det_for_each_dimension_of_the_event():
    flow = FlowDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), tfb.Scale(2.0))
    expected = -np.log(2 * np.pi) - 2 * np.log(2)
    np.testing.assert_allclose(flow.log_prob([0.0, 0.0]), expected, rtol=1e-6)


def test_events_of_several_parts_are_left_to_tfp():
    base = tfd.JointDistributionSequential([tfd.Normal(0.0, 1.0), tfd.Normal(1.0, 1.0)])
    maps = tfb.JointMap([tfb.Exp(), tfb.Scale(2.0)])
    flow, plain = FlowDistribution(base, maps), tfd.TransformedDistribution(base, maps)
    np.testing.assert_allclose(flow.log_prob([1.0, 2.0]), plain.log_prob([1.0, 2.0]), rtol=1e-6)


def test_it_goes_where_distributions_go():
    network = DenseNetwork(1, [4])
    network.build((None, 1))
    coupling = AffineCoupling(ChannelHalves(0, event_ndims=1), network)
    flow = FlowDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), coupling)
    x = tf.zeros([3, 2])
    expected = flow.log_prob(x)
    for same in (
        flow.copy(),
        flow.copy(name="other"),
        tfd.Independent(flow, 0),
        tfd.BatchReshape(flow, []),
    ):
        np.testing.assert_allclose(same.log_prob(x), expected, rtol=1e-6)
    assert tf.function(lambda distribution: distribution.log_prob(x))(flow).shape == (3,)
    batch = tfd.MultivariateNormalDiag(tf.zeros([2, 2]))
    mixture = tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]), FlowDistribution(batch, coupling))
    np.testing.assert_allclose(mixture.log_prob(x), expected, rtol=1e-5)


def test_variables_are_found_in_whatever_holds_it(randomize, identities):
    model = randomize(tfnvp.VectorRealNVP(2, 2, [4], num_classes=2, conditional_base=True))
    flow = model.distribution_for(labels=[0, 1])
    expected = set(identities(model.trainable_variables))
    holders = [
        flow,
        tfd.Independent(flow, 1),
        tfd.BatchReshape(flow, [2, 1]),
        tfd.TransformedDistribution(flow, tfb.Scale(2.0)),
        FlowDistribution(flow, tfb.Scale(2.0)),
        tfd.MixtureSameFamily(tfd.Categorical([0.0, 0.0]), flow),
        tfd.JointDistributionNamed({"x": flow}),
    ]
    for holder in holders:
        assert set(identities(holder.trainable_variables)) == expected, holder


def test_it_integrates_to_one(randomize):
    model = randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=[8]))
    axis = np.linspace(-7, 7, 1495, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    # Its tails are heavy and its middle is narrow: the steps grow outwards.
    x, log_det = tfnvp.bijectors.LogTails().forward_and_log_det(grid)
    # Within narrow cells steps are as narrow.
    x, of_cells = tfnvp.bijectors.OpenedCells(model.common_values).forward_and_log_det(x)
    volume = tf.exp(log_det + of_cells)
    density = (model.distribution.prob(x) * volume).numpy().sum(dtype="float64")
    np.testing.assert_allclose(density * (axis[1] - axis[0]) ** 2, 1, atol=2e-3)

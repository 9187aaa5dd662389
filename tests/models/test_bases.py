"""Base distributions of every kind: samples, temperatures, and parameters that train."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp
from tfnvp.bijectors import AffineCoupling, ContextShift
from tfnvp.layers import DenseNetwork
from tfnvp.masks import ChannelHalves

tfb, tfd = tfp.bijectors, tfp.distributions

WITHOUT_MEAN = {
    "Student's t of one degree": lambda: tfd.Sample(tfd.StudentT(1.0, 0.0, 1.0), [2]),
    "Cauchy": lambda: tfd.Sample(tfd.Cauchy(0.0, 1.0), [2]),
    "Cauchy that raises": lambda: tfd.Sample(tfd.Cauchy(0.0, 1.0, allow_nan_stats=False), [2]),
    "LogitNormal": lambda: tfd.Sample(tfd.LogitNormal(0.0, 1.0), [2]),
    "Exp of a normal": lambda: tfb.Exp()(tfd.Sample(tfd.Normal(0.0, 1.0), [2])),
}
WITH_MEAN = {
    "normal": lambda: tfd.MultivariateNormalDiag([1.0, -2.0]),
    "uniform": lambda: tfd.Sample(tfd.Uniform(0.0, 1.0), [2]),
    "mixture": lambda: tfd.MixtureSameFamily(
        tfd.Categorical([0.0, 0.0]), tfd.MultivariateNormalDiag(tf.constant([[0.0, 1], [2, 3]]))
    ),
}


def _coupling():
    return AffineCoupling(ChannelHalves(0, event_ndims=1), DenseNetwork(1, [4]))


def _model(base, randomize):
    return randomize(tfnvp.FlowModel(tfd.TransformedDistribution(base, _coupling())))


@pytest.mark.parametrize("name", WITHOUT_MEAN | WITH_MEAN)
def test_at_temperature_one_samples_are_the_distributions(name, randomize):
    model = _model((WITHOUT_MEAN | WITH_MEAN)[name](), randomize)
    expected = model.distribution.sample(5, seed=[0, 3])
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(model.sample(5, seed=3), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.sample(5, temperature=1, seed=3), expected, rtol=1e-5)


@pytest.mark.parametrize("name", WITHOUT_MEAN)
def test_another_temperature_of_a_base_without_a_mean_is_refused(name, randomize, refuses):
    model = _model(WITHOUT_MEAN[name](), randomize)
    match = r"temperature must be 1 where the base distribution, here \w+, has no mean, got .*0\.5"
    refuses(model.sample, 3, temperature=0.5, match=match)


@pytest.mark.parametrize("name", WITH_MEAN)
def test_temperature_is_the_distance_from_the_mean(name, randomize):
    base = WITH_MEAN[name]()
    model = _model(base, randomize)
    noise = base.sample(5, seed=[0, 3])
    expected = model.decode(base.mean() + 0.5 * (noise - base.mean()))
    cold = model.sample(5, temperature=0.5, seed=3)
    np.testing.assert_allclose(cold, expected, rtol=1e-4, atol=1e-5)


# Parameters of the base in Keras layers.


class Location(keras.layers.Layer):
    """A learned vector [2]."""

    def build(self, shape=None):
        self.location = self.add_weight((2,), "zeros", name="location")

    def call(self, context):
        return context[..., :1] * tf.convert_to_tensor(self.location)


def _held_by_a_bijector():
    """The base is a flow of its own."""
    shift = ContextShift(Location(), tf.ones([1]), event_ndims=1)
    base = tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), shift)
    return tfnvp.FlowModel(tfd.TransformedDistribution(base, _coupling())), shift.layer


class HeldByTheModel(tfnvp.FlowModel):
    """The base is made of a variable in a layer of the model's."""

    def build_distribution(self):
        self.prior = Location()
        self.prior.build()
        base = tfd.MultivariateNormalDiag(self.prior.location.value)
        return tfd.TransformedDistribution(base, _coupling())


def _held_by_the_model():
    model = HeldByTheModel()
    model.build()
    return model, model.prior


@pytest.mark.parametrize("make", [_held_by_a_bijector, _held_by_the_model])
def test_a_base_with_parameters_in_keras_layers_trains(make, identities):
    model, layer = make()
    expected = sorted(identities(model.trainable_variables))
    assert sorted(identities(model.distribution.trainable_variables)) == expected
    assert id(layer.location.value) in expected and len(set(expected)) == len(expected)
    model.compile(optimizer=keras.optimizers.Adam(0.1))
    x = np.random.default_rng(0).normal([3.0, 0.0], size=(256, 2)).astype("float32")
    model.fit(x, epochs=20, verbose=0)
    # The half that the coupling leaves as it is tells where the base has gone.
    np.testing.assert_allclose(layer.location[0], 3.0, atol=0.3)
    np.testing.assert_allclose(model.log_prob(x), model.distribution.log_prob(x), rtol=1e-4)
    layer.trainable = False
    assert sorted(identities(model.distribution.trainable_variables)) == sorted(
        identities(model.trainable_variables)
    )
    assert len(model.trainable_variables) == len(expected) - 1


def test_a_base_made_of_a_keras_variable_is_refused(refuses):
    """TFP would take its value of that moment, and never see it change."""
    layer = Location()
    layer.build()
    base = tfd.MultivariateNormalDiag(layer.location)
    distribution = tfd.TransformedDistribution(base, _coupling())
    match = r"loc of \w+ must not be a keras\.Variable, .* pass the tf\.Variable .*location\.value"
    refuses(tfnvp.FlowModel, distribution, match=match)

"""Any transformed distribution as a Keras model: the tie, training, metrics, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp
from tfnvp.bijectors import AffineCoupling
from tfnvp.layers import DenseNetwork
from tfnvp.masks import ChannelHalves

tfb, tfd = tfp.bijectors, tfp.distributions
# Keras warns that a data set is not shuffled by `fit`.
pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")


def _data(rows=10):
    """Vectors [rows, 2] on a noisy parabola."""
    random = np.random.default_rng(0)
    x = random.normal(size=rows)
    return np.stack([x, x**2 + 0.2 * random.normal(size=rows)], axis=-1).astype("float32")


def _over_normal(bijector, size=2):
    return tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros(size)), bijector)


def _plain_chain():
    """A user's own chain: plain Keras networks, not built yet, and bijectors of TFP."""

    def network():
        layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(2)]
        return keras.Sequential([*layers, keras.layers.Rescaling(0.5)])

    couplings = [AffineCoupling(ChannelHalves(p, event_ndims=1), network()) for p in (0, 1)]
    return tfb.Chain([tfb.Shift([0.5, 0.0]), couplings[0], tfb.Permute([1, 0]), couplings[1]])


class ShiftAndLogScale(keras.layers.Layer):
    """A network as `tfb.RealNVP` asks for it; Keras wants what is no tensor by name."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(16, activation="relu")
        self.out = keras.layers.Dense(2)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.out.build((*input_shape[:-1], 16))

    def __call__(self, x, output_units):
        return super().__call__(x, output_units=output_units)

    def call(self, x, output_units):
        assert output_units == 1
        return tf.split(self.out(self.hidden(x)), 2, axis=-1)


def _tfp_real_nvp():
    couplings = [
        tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=ShiftAndLogScale()) for _ in range(2)
    ]
    return tfb.Chain([couplings[0], tfb.Permute([1, 0]), couplings[1]])


def _coupling(network=None):
    network = DenseNetwork(1, [8]) if network is None else network
    return AffineCoupling(ChannelHalves(0, event_ndims=1), network)


@pytest.fixture
def model(randomize):
    couplings = [
        AffineCoupling(ChannelHalves(p, event_ndims=1), DenseNetwork(1, [8])) for p in (0, 1)
    ]
    return randomize(tfnvp.FlowModel(_over_normal(tfb.Chain(couplings))))


@pytest.mark.parametrize("chain", [_plain_chain, _tfp_real_nvp])
def test_a_users_own_chain_trains(chain, identities):
    model = tfnvp.FlowModel(_over_normal(chain()))
    variables = model.trainable_variables
    assert len(variables) == 8
    assert sorted(identities(variables)) == sorted(
        identities(model.distribution.trainable_variables)
    )
    before = [np.array(v) for v in variables]
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(_data(256), batch_size=64, epochs=12, verbose=0).history
    assert set(history) == {"loss", "bits_per_dim"}
    assert history["loss"][-1] < history["loss"][0] - 0.3
    assert not any(map(np.array_equal, before, variables))
    # The distribution that the user holds is the one that has been trained.
    log_prob = model.distribution.log_prob(_data(256))
    bits = -np.mean(log_prob) / (2 * np.log(2))
    np.testing.assert_allclose(bits, history["loss"][-1], atol=0.1)


def test_loss_is_bits_per_dimension_and_regularization(randomize):
    """And right for a last batch that is smaller, in `fit` and in `evaluate`."""
    dense = keras.layers.Dense(2, kernel_regularizer="l2")
    model = randomize(tfnvp.FlowModel(_over_normal(_coupling(dense))))
    data = _data(10)
    rows = -model.distribution.log_prob(data) / (2 * np.log(2))
    np.testing.assert_allclose(model.bits_per_dim(data), rows, rtol=1e-6)
    penalty = 0.01 * np.sum(np.square(dense.kernel))
    expected = {"loss": np.mean(rows) + penalty, "bits_per_dim": np.mean(rows)}
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    fitted = model.fit(data, batch_size=4, verbose=0, validation_data=data).history
    evaluated = model.evaluate(data, batch_size=4, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(fitted[name][0], value, rtol=2e-6)
        np.testing.assert_allclose(fitted[f"val_{name}"][0], value, rtol=2e-6)
        np.testing.assert_allclose(evaluated[name], value, rtol=2e-6)


def test_a_step_goes_down_the_gradient_of_the_loss(randomize):
    dense = keras.layers.Dense(2, kernel_regularizer="l2")
    model = randomize(tfnvp.FlowModel(_over_normal(_coupling(dense))))
    data = tf.constant(_data(5))
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        bits = -tf.reduce_mean(model.distribution.log_prob(data)) / (2 * np.log(2))
        loss = bits + 0.01 * tf.reduce_sum(tf.square(dense.kernel))
    gradients = tape.gradient(loss, [v.value for v in variables])
    expected = [v.numpy() - 0.1 * g for v, g in zip(variables, gradients, strict=True)]
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    model.train_on_batch(data)
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_steps_are_traced_once(as_dataset, randomize, monkeypatch):
    """Not again for a smaller last batch, another epoch, nor after an evaluation."""
    traces = []
    for name in ("optimize", "_penalty"):
        original = getattr(tfnvp.FlowModel, name)

        def traced(self, *args, name=name, original=original):
            traces.append(name)
            return original(self, *args)

        monkeypatch.setattr(tfnvp.FlowModel, name, traced)
    model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=[4])
    model.compile(optimizer="adam")
    x = np.random.default_rng(0).normal(size=(10, 2)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices(x).batch(4) if as_dataset else x
    options = {} if as_dataset else {"batch_size": 4}
    for _ in range(2):
        model.fit(data, validation_data=data, epochs=2, shuffle=False, verbose=0, **options)
        model.evaluate(data, verbose=0, **options)
    assert traces.count("optimize") == 1
    # A training step and a test step have one each.
    assert traces.count("_penalty") == 2


def test_labels_are_left_aside(model):
    model.compile(optimizer="sgd")
    data = _data()
    labelled = tf.data.Dataset.from_tensor_slices((data, np.arange(10))).batch(4)
    with pytest.warns(UserWarning, match="left aside"):
        evaluated = model.evaluate(labelled, verbose=0)
    assert evaluated == model.evaluate(data, batch_size=4, verbose=0)


def test_predict_is_log_prob(model):
    predicted = model.predict(_data(), batch_size=4, verbose=0)
    np.testing.assert_allclose(predicted, model.log_prob(_data()), rtol=1e-6)
    np.testing.assert_allclose(predicted, model.distribution.log_prob(_data()), rtol=1e-6)


def test_log_prob_follows_the_weights(model, randomize):
    """Compiled functions are kept, but not what they computed."""
    before = model.log_prob(_data())
    randomize(model, seed=1)
    after = model.log_prob(_data())
    assert np.all(np.abs(after - before) > 1e-4)
    np.testing.assert_allclose(after, model.distribution.log_prob(_data()), rtol=1e-5)


def test_encode_and_decode_are_the_bijector(model):
    z = model.encode(_data())
    np.testing.assert_allclose(z, model.distribution.bijector.inverse(_data()), rtol=1e-5)
    np.testing.assert_allclose(model.decode(z), _data(), rtol=1e-5, atol=1e-5)


def test_samples(model):
    samples = model.sample(6, seed=1)
    assert samples.shape == (6, 2)
    np.testing.assert_array_equal(model.sample(6, seed=1), samples)
    np.testing.assert_allclose(model.sample(2, seed=1), samples[:2], rtol=1e-5, atol=1e-6)
    assert np.all(model.sample(6, seed=2) != samples)
    assert np.all(model.sample(6) != model.sample(6))
    mean = model.decode(np.zeros((1, 2)))
    np.testing.assert_allclose(model.sample(1, temperature=0.0), mean, rtol=1e-5, atol=1e-6)
    z = model.encode(samples)
    halved = model.decode(0.5 * z)
    cold = model.sample(6, temperature=0.5, seed=1)
    np.testing.assert_allclose(cold, halved, rtol=1e-4, atol=1e-5)


def test_samples_are_of_the_distribution(model):
    """The mean log-density of samples is minus the entropy, known by the change of variables."""
    samples = model.sample(4000, seed=0)
    log_det = model.distribution.bijector.inverse_log_det_jacobian(samples, 1)
    entropy = 1 + np.log(2 * np.pi) - np.mean(log_det)
    np.testing.assert_allclose(-np.mean(model.log_prob(samples)), entropy, atol=0.06)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.zeros((4, 3), "float32"), r"shape \[batch, 2\], got \(.*3\)"),
        (np.zeros(4, "float32"), r"shape \[batch, 2\], got"),
        (np.zeros((4, 2, 1), "float32"), r"shape \[batch, 2\], got"),
        (np.zeros((4, 2), "int32"), "float dtype, got dtype int32"),
        (np.full((4, 2), "a"), "float dtype, got dtype string"),
    ],
)
def test_bad_data_is_refused(model, refuses, data, match):
    for function in (model.log_prob, model.bits_per_dim, model.encode):
        refuses(function, data, match=match)
    model.compile(optimizer="sgd")
    dataset = tf.data.Dataset.from_tensors(data)
    for function in (model.fit, model.evaluate, model.predict):
        refuses(function, dataset, verbose=0, match=match)


def test_data_of_unknown_shape_is_checked_when_it_comes(model, refuses):
    """A data set made by a generator says nothing of its shapes before."""
    model.compile(optimizer="sgd")
    dataset = tf.data.Dataset.from_generator(
        lambda: iter([np.zeros((4, 3), "float32")]), output_signature=tf.TensorSpec(None)
    )
    refuses(model.evaluate, dataset, verbose=0, match=r"shape .*2\], got .*4,3")


def test_bad_arguments_of_sample_are_named(model, refuses):
    for n in (-1, 1.5, True, "3", 2**31, 2**32 + 4):
        refuses(model.sample, n, match=f"n must be an integer .*got n={n!r}")
    for temperature in (-1.0, float("nan"), float("inf"), "1", None):
        wanted = f"a finite number .* got temperature={temperature!r}"
        refuses(model.sample, 1, temperature=temperature, match=wanted)
    refuses(model.sample, 1, seed=2**63, match="seed must be an integer of 64 bits, got seed=9")


def test_no_seed_is_cut_down_to_another(model):
    drawn = [model.sample(2, seed=seed).numpy().tolist() for seed in (7, 2**32 + 7, 7 - 2**32)]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


def test_data_of_no_rows_is_refused_where_nothing_can_be_said(model, refuses):
    none = np.zeros((0, 2), "float32")
    assert model.predict(none, verbose=0).shape == (0,)
    for method in (model.evaluate, model.fit):
        refuses(method, none, verbose=0, match=r"x must have rows, got shape \(0, 2\)")


def test_bad_distributions_are_refused():
    with pytest.raises(TypeError, match=r"must be a .*TransformedDistribution, got"):
        tfnvp.FlowModel(tfd.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match=r"bijector that holds a keras\.Layer"):
        tfnvp.FlowModel(_over_normal(tfb.Shift([1.0, 2.0])))
    hidden = tfb.Inline(forward_fn=lambda x: keras.layers.Dense(2)(x), forward_min_event_ndims=1)
    with pytest.raises(ValueError, match="hidden in a function"):
        tfnvp.FlowModel(_over_normal(hidden))
    loose = tfd.MultivariateNormalDiag(tf.Variable([0.0, 0.0], name="loose"))
    with pytest.raises(ValueError, match=r"in keras\.Layers, .* got tf\.Variable loose:0"):
        tfnvp.FlowModel(tfd.TransformedDistribution(loose, _coupling()))
    with pytest.raises(NotImplementedError, match=r"define build_distribution\(\)"):
        _ = tfnvp.FlowModel().distribution


# Saving.


@keras.saving.register_keras_serializable(package="tests")
class OwnFlow(tfnvp.FlowModel):
    """A user's own model, as the docstring of FlowModel shows."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build_distribution(self):
        couplings = [
            _coupling(keras.Sequential([keras.layers.Dense(self.units), keras.layers.Dense(2)])),
            tfb.Permute([1, 0]),
            _coupling(DenseNetwork(1, [self.units])),
        ]
        return _over_normal(tfb.Chain(couplings))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_a_users_subclass_is_saved_whole(tmp_path, identities):
    model = OwnFlow(5)
    model.compile(optimizer="adam")
    model.fit(_data(), verbose=0)
    model.save(tmp_path / "own.keras")
    again = keras.saving.load_model(tmp_path / "own.keras")
    assert isinstance(again, OwnFlow) and again.units == 5 and again.name == model.name
    np.testing.assert_array_equal(again.log_prob(_data()), model.log_prob(_data()))
    assert sorted(identities(again.trainable_variables)) == sorted(
        identities(again.distribution.trainable_variables)
    )
    # Training goes on where it stopped.
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 1
    again.fit(_data(), verbose=0)
    assert np.any(again.log_prob(_data()) != model.log_prob(_data()))


@pytest.mark.parametrize("first", ["fit", "evaluate", "predict", "train_on_batch", "log_prob"])
def test_a_subclass_is_built_by_its_first_use(first):
    """Also by a step that Keras is tracing."""
    model = OwnFlow(3)
    model.compile(optimizer="sgd")
    getattr(model, first)(_data())
    assert len(model.trainable_variables) == 4 + 5
    assert model.distribution.sample(2).shape == (2, 2)
    assert model.built


def test_a_subclass_saved_before_it_ran(tmp_path):
    model = OwnFlow(3)
    model.build()
    model.save(tmp_path / "own.keras")
    again = keras.saving.load_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(again.log_prob(_data()), model.log_prob(_data()))


def test_a_bare_model_refuses_to_be_saved_whole_and_says_why(model, tmp_path, refuses):
    refuses(model.save, tmp_path / "bare.keras", match=r"subclass it .*or use save_weights\(\)")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_a_bare_model_are_saved(model, tmp_path):
    model.save_weights(tmp_path / "bare.weights.h5")
    couplings = [
        AffineCoupling(ChannelHalves(p, event_ndims=1), DenseNetwork(1, [8])) for p in (0, 1)
    ]
    again = tfnvp.FlowModel(_over_normal(tfb.Chain(couplings)))
    assert np.any(again.log_prob(_data()) != model.log_prob(_data()))
    again.load_weights(tmp_path / "bare.weights.h5")
    np.testing.assert_array_equal(again.log_prob(_data()), model.log_prob(_data()))

"""The vector model: density, round trip, training, saving, what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.integral import integral
from sklearn.datasets import make_moons

import tfnvp

# Keras warns that a data set is not shuffled by `fit`.
pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")
SIZES = {"num_couplings": 4, "hidden_units": (8,), "seed": 0}


def _data(rows=20, size=5):
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, size)) * np.arange(1, size + 1) + 3
    return x.astype("float32")


def _moons(rows=2000, seed=0):
    return make_moons(rows, noise=0.1, random_state=seed)[0].astype("float32")


@pytest.fixture(scope="module")
def model(randomize):
    """A model of five dimensions, an odd number; its standardisation is random too."""
    model = randomize(tfnvp.VectorRealNVP(5, **SIZES))
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    model.fit(_data(), verbose=0)
    return model


@pytest.fixture(scope="module")
def fitted():
    """A model that has seen the moons for a short while, and its losses."""
    keras.utils.set_random_seed(0)
    model = tfnvp.VectorRealNVP(2, num_couplings=6, hidden_units=(32, 32))
    model.adapt(_moons())
    # Clipped, as recipes are: without, the loss at the end is a matter of luck (of eight seeds one
    # ended above 1.07), with it 0.94 to 1.04.
    model.compile(optimizer=keras.optimizers.Adam(5e-3, global_clipnorm=1.0))
    history = model.fit(_moons(), batch_size=100, epochs=15, verbose=0).history
    return model, history


# The density.


def test_density_integrates_to_one(randomize):
    model = randomize(tfnvp.VectorRealNVP(2, **SIZES))
    assert abs(integral(model) - 1) < 1e-2
    # The weights are no identity's.
    samples = model.sample(1000, seed=0).numpy()
    log_det = model.distribution.bijector.inverse_log_det_jacobian(samples, 1)
    assert np.std(log_det) > 0.1


def test_density_of_a_fitted_model_integrates_to_one(fitted):
    model, _ = fitted
    assert abs(integral(model) - 1) < 1e-2


def test_density_of_fitted_splines_integrates_to_one():
    keras.utils.set_random_seed(0)
    model = tfnvp.VectorRealNVP(2, **SIZES, spline_bins=8)
    model.adapt(_moons())
    model.compile(optimizer=keras.optimizers.Adam(5e-3, global_clipnorm=1.0))
    losses = model.fit(_moons(), batch_size=100, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.2
    assert abs(integral(model) - 1) < 1e-2


def test_log_prob_is_that_of_the_distribution(model):
    log_prob = model.log_prob(_data())
    assert log_prob.shape == (20,) and log_prob.dtype == tf.float32
    np.testing.assert_allclose(log_prob, model.distribution.log_prob(_data()), rtol=1e-5)
    assert model.distribution.event_shape == (5,) and model.event_size == 5
    z, log_det = model.encode(_data()), model.distribution.bijector.inverse_log_det_jacobian
    normal = -0.5 * np.sum(np.square(z), axis=1) - 2.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_prob, normal + log_det(_data(), 1), rtol=1e-4)


def test_unusualness_leaves_out_volumes_and_what_curves_say_for_a_row(model):
    x = tf.constant(_data())
    cells = model.common_values.cells.numpy()
    closed = cells.copy()
    closed[2, 1:] = closed[1, 1:]
    model.common_values.take(closed)
    opened, standardization, tails, spline, *_ = model.distribution.bijector.bijectors
    standardized = standardization.inverse(opened.inverse(x))
    inner = tails.inverse(standardized)
    with tf.GradientTape() as tape:
        tape.watch(inner)
        outer = spline.inverse(inner)
    # The gradient of curves, column by column, is the slopes; columns of opened cells have none.
    slopes = np.log(tape.gradient(outer, inner))[:, 1:]
    assert slopes.max() > 0.5
    volume = tails.inverse_log_det_jacobian(standardized, 1) + np.minimum(slopes, 0.5).sum(axis=1)
    z = model.encode(x)
    # A standard logistic density is 1 / (exp(z / 2) + exp(-z / 2))^2.
    expected = 2 * np.sum(np.logaddexp(z / 2, np.negative(z) / 2), axis=1) - volume
    np.testing.assert_allclose(model.unusualness(x), expected, rtol=1e-4)
    model.common_values.take(cells)


def test_unusualness_has_a_part_of_the_nearest_row_kept(tmp_path):
    kept, x = _data(30), _data(40)[20:]
    model = tfnvp.VectorRealNVP(5, 1, (4,), kept_rows=50, seed=0)
    without = tfnvp.VectorRealNVP(5, 1, (4,), seed=0)
    for one in (model, without):
        one.adapt(kept)
    off = (x[:, np.newaxis] - kept) / kept.std(axis=0)
    distance = np.sqrt(np.mean(np.square(off), axis=2))
    distance = np.where(distance < 1e-4, np.inf, distance).min(axis=1)
    added = model.unusualness(x) - without.unusualness(x)
    np.testing.assert_allclose(added, 5 * np.log1p(distance), rtol=1e-3)
    np.testing.assert_array_equal(model.log_prob(x), without.log_prob(x))
    # It is saved with the model.
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.unusualness(x), model.unusualness(x))


def test_other_rows_are_kept_or_refused():
    model = tfnvp.VectorRealNVP(5, 1, (4,), kept_rows=50, seed=0)
    model.adapt(_data(30))
    others = _data(12)[4:]
    model.keep_rows(others)
    before = model.nearest_row.rows.numpy()
    kept = np.sort(model._standardized(np.float32(others)), axis=0)
    np.testing.assert_allclose(np.sort(before[:8], axis=0), kept, rtol=1e-6)
    assert int(model.nearest_row.kept) == 8
    with pytest.raises(ValueError, match="row 1, column 2"):
        model.keep_rows(np.where(np.arange(10).reshape(2, 5) == 7, np.nan, 0.0))
    with pytest.raises(ValueError, match="got weights and rows 2 3"):
        model.keep_rows(_data(3), [1.0, 2.0])
    np.testing.assert_array_equal(model.nearest_row.rows, before)
    with pytest.raises(ValueError, match="the model keeps no rows: make it with kept_rows"):
        tfnvp.VectorRealNVP(5, 1, (4,)).keep_rows(others)


def test_unusualness_of_one_dimension_and_of_far_rows():
    line = tfnvp.VectorRealNVP(1)
    expected = 2 * np.log([2.0, np.exp(0.5) + np.exp(-0.5)])
    np.testing.assert_allclose(line.unusualness(np.array([[0], [1]], "float32")), expected, 1e-5)
    far = tfnvp.VectorRealNVP(3, **SIZES).unusualness(np.full((1, 3), 1e30, "float32"))
    # The tail of each dimension has a logarithm, and the logistic density another.
    np.testing.assert_allclose(far, [3 * (3 + 2 * np.log(1e30))], 1e-5)
    with pytest.raises(ValueError, match=r"unusualness is of models of p\(x\), this one is of"):
        tfnvp.VectorRealNVP(2, num_classes=3).unusualness([[0.0, 1.0]])


def test_bits_per_dim_has_no_levels(model):
    expected = -model.log_prob(_data()) / (5 * np.log(2))
    np.testing.assert_allclose(model.bits_per_dim(_data()), expected, rtol=1e-6)


def test_log_prob_depends_on_the_row_alone(model):
    whole = model.log_prob(_data())
    np.testing.assert_allclose(model.log_prob(_data()[3:4])[0], whole[3], rtol=1e-5)
    assert model.log_prob(_data()[:0]).shape == (0,)


def test_starts_as_the_identity_in_another_order():
    model = tfnvp.VectorRealNVP(3, **SIZES)
    x = np.clip(_data(size=3), -3, 3)  # Values far out are drawn in.
    np.testing.assert_allclose(np.sort(model.encode(x)), np.sort(x), rtol=1e-5, atol=1e-6)
    normal = -0.5 * np.sum(np.square(x), axis=1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(model.log_prob(x), normal, rtol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_every_dimension_changes_and_depends_on_others(size, randomize):
    model = randomize(tfnvp.VectorRealNVP(size, **SIZES))
    x = tf.constant(_data(3, size))
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = model.distribution.bijector.inverse(x)
    jacobian = tape.batch_jacobian(z, x)
    assert np.all(np.any(jacobian != 0, axis=0)), "four couplings reach everywhere"


def test_variables_are_those_of_the_distribution(model, identities):
    trainable = identities(model.trainable_variables)
    assert sorted(trainable) == sorted(identities(model.distribution.trainable_variables))
    assert len(set(trainable)) == len(trainable) == 4 * (5 + 3) + 1
    own = set(identities(model.variables))
    own -= {id(v.value) for metric in model.metrics for v in metric.variables}
    # The steps of rounded columns, and the seed of their noise, are no part of the density.
    own -= set(identities(model.rounding.variables))
    assert own == set(identities(model.distribution.variables))


def test_each_conditioner_is_in_the_graph_once(model, count_operations):
    """A network of one hidden layer has two products, a matrix two; there are four of each."""
    x = tf.constant(_data())

    def gradient(x):
        with tf.GradientTape() as tape:
            log_prob = model.distribution.log_prob(x)
        return tape.gradient(log_prob, model.distribution.trainable_variables)

    assert count_operations(model.distribution.log_prob, x)["MatMul"] == 16
    # Backwards, two for each.
    assert count_operations(gradient, x)["MatMul"] <= 16 + 32
    sampled = count_operations(lambda: model.distribution.experimental_sample_and_log_prob(2))
    assert sampled["MatMul"] == 12  # A triangular matrix is no product.


# Round trips and precision.


@pytest.mark.parametrize(("dtype", "tolerance"), [("mixed_bfloat16", 1e-4), ("float64", 1e-10)])
def test_encode_and_decode_meet_again(dtype, tolerance, randomize, model):
    single = model
    model = randomize(tfnvp.VectorRealNVP(5, **SIZES, dtype=dtype))
    x = _data().astype("float64")
    z = model.encode(x)
    assert z.dtype == model.sample(1).dtype == model.log_prob(x).dtype == model.variable_dtype
    np.testing.assert_allclose(model.decode(z), x, rtol=tolerance, atol=tolerance)
    # The model `single` has the same weights in float32.
    np.testing.assert_allclose(single.decode(single.encode(x)), x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.encode(x), single.encode(x), rtol=1e-4, atol=1e-4)
    rtol = 0.1 if dtype == "mixed_bfloat16" else 1e-5
    np.testing.assert_allclose(model.log_prob(x), single.log_prob(x), rtol=rtol)


def test_samples(model):
    samples = model.sample(6, seed=1)
    assert samples.shape == (6, 5) and samples.dtype == tf.float32
    np.testing.assert_array_equal(model.sample(6, seed=1), samples)
    np.testing.assert_allclose(model.sample(2, seed=1), samples[:2], rtol=1e-4, atol=1e-5)
    assert np.all(model.sample(6, seed=2) != samples)
    mean = model.decode(np.zeros((1, 5)))
    np.testing.assert_allclose(model.sample(1, temperature=0.0), mean, rtol=1e-4, atol=1e-5)
    assert model.sample(0).shape == (0, 5)


def test_one_dimension_given_another_integrates_to_one(randomize):
    """A conditional density of y given x, whose spread depends on x."""
    model = randomize(tfnvp.VectorRealNVP(1, **SIZES, context_size=1, dtype="float64"))
    for label in (-1.0, 2.0):
        # Five random curves in a row have narrow peaks, and long tails.
        assert integral(model, 200_001, reach=60, labels=[label]) == pytest.approx(1, abs=1e-3)
    x = np.linspace(-3, 3, 50)[:, np.newaxis]
    change = model.log_prob(x, labels=[-1.0]) - model.log_prob(x, labels=[2.0])
    assert np.abs(change).max() > 0.1
    y = model.sample(5, labels=[2.0], seed=0)
    z = model.encode(y, labels=[2.0])
    np.testing.assert_allclose(model.decode(z, labels=[2.0]), y, rtol=1e-6, atol=1e-6)


# Training.


def test_training_lowers_the_loss(fitted):
    model, history = fitted
    assert set(history) == {"loss", "bits_per_dim"}
    # The moons' own entropy is near 0.69 bits/dim.
    assert history["loss"][0] > 1.2 and history["loss"][-1] < 1.05
    test = _moons(seed=1)
    evaluated = model.evaluate(test, verbose=0, return_dict=True)["bits_per_dim"]
    assert evaluated < 1.1
    np.testing.assert_allclose(evaluated, np.mean(model.bits_per_dim(test)), rtol=1e-5)


def test_training_leaves_the_standardisation(fitted):
    x = _moons()
    np.testing.assert_allclose(fitted[0].standardizer.mean, x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(fitted[0].standardizer.scale, x.std(axis=0), rtol=1e-5)


def test_a_gradient_reaches_every_weight(model):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(tf.constant(_data()), training=True))
    for gradient in tape.gradient(loss, [v.value for v in model.trainable_variables]):
        assert np.all(np.isfinite(gradient)) and np.any(gradient != 0)


# Saving.


@pytest.mark.parametrize(
    ("dtype", "spline_bins"),
    [("float32", 0), ("mixed_bfloat16", 0), ("float64", 0), ("float32", 4)],
)
def test_saved_whole_it_scores_the_same_to_the_bit(tmp_path, randomize, dtype, spline_bins):
    model = randomize(tfnvp.VectorRealNVP(5, **SIZES, dtype=dtype, spline_bins=spline_bins))
    model.adapt(_data(), steps=np.arange(5))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(again, tfnvp.VectorRealNVP)
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again.rounding.step, np.arange(5))
    np.testing.assert_array_equal(again.standardizer.mean, model.standardizer.mean)
    np.testing.assert_array_equal(again.standardizer.scale, model.standardizer.scale)
    np.testing.assert_array_equal(again.log_prob(_data()), model.log_prob(_data()))


def test_a_fitted_model_goes_on_where_it_stopped(fitted, tmp_path):
    model, _ = fitted
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) == 300
    np.testing.assert_array_equal(again.log_prob(_moons()), model.log_prob(_moons()))
    np.testing.assert_array_equal(again.sample(5, seed=0), model.sample(5, seed=0))


def test_saved_weights_are_the_same_to_the_bit(model, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    again = tfnvp.VectorRealNVP(5, **SIZES)
    again.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(again.log_prob(_data()), model.log_prob(_data()))


# Bad vectors and arguments are refused.

# By name where shapes are known before, or as TensorFlow finds it once it has traced other shapes.
_SHAPE = r"shape \[(batch, 5\], got \(|\?,5\], got \[)"
_FINITE = "vectors must be finite, got NaN or infinity"
BAD_VECTORS = {
    "rank": (np.zeros(5, "float32"), _SHAPE),
    "size": (np.zeros((3, 4), "float32"), _SHAPE),
    "strings": (np.full((3, 5), "a"), "got dtype string"),
    "nan": (np.where(_data() > 10, np.nan, _data()), _FINITE),
    "infinity": (np.where(_data() > 10, -np.inf, _data()), _FINITE),
    "overflow": (_data().astype("float64") * 1e300, _FINITE),
}


@pytest.mark.parametrize("kind", BAD_VECTORS)
def test_bad_vectors_are_refused_and_leave_the_weights(model, refuses, kind):
    """In one line, in every way that vectors come in, also from within Keras' loops."""
    x, match = BAD_VECTORS[kind]
    for function in (model.log_prob, model.bits_per_dim, model.encode):
        refuses(function, x, match=match)
    before = [np.array(v) for v in model.trainable_variables]
    batches = tf.data.Dataset.from_tensors(x)
    for function in (model.fit, model.evaluate, model.predict):
        refuses(function, batches, verbose=0, match=match)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"event_size": 0}, "event_size must be a positive integer, got event_size=0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got dropout=1\.0"),
        ({"event_size": 1, "dropout": "a"}, r"dropout must be in \[0, 1\), got dropout='a'"),
        ({"event_size": 2.0}, r"event_size must be a positive integer, got event_size=2\.0"),
        ({"kept_rows": 0}, "kept_rows must be a positive integer or None, got kept_rows=0"),
        ({"spline_bins": 1}, "spline_bins must be .* got spline_bins=1"),
        ({"num_couplings": 0}, "num_couplings must be a positive integer, got num_couplings=0"),
        ({"hidden_units": ()}, r"hidden_units must be a list .*got hidden_units=\(\)"),
        ({"hidden_units": 64}, "hidden_units must be a list .*got hidden_units=64"),
        ({"hidden_units": (8, -1)}, "got each of hidden_units=-1"),
    ],
)
def test_bad_arguments_are_named(refuses, arguments, match):
    refuses(tfnvp.VectorRealNVP, **{"event_size": 2, **SIZES, **arguments}, match=match)

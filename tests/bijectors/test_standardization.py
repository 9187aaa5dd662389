"""Data standardised by its own statistics; the laws of every bijector are in test_laws.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfnvp.bijectors import Standardization
from tfnvp.layers import Standardizer


def _data(rows=100):
    random = np.random.default_rng(0)
    return random.normal([1000.0, -3.0, 0.0], [2.0, 1e-3, 50.0], (rows, 3))


@pytest.fixture
def adapted():
    standardizer = Standardizer(dtype="float64")
    standardizer.adapt([_data()])
    return Standardization(standardizer)


def test_is_the_identity_until_it_has_seen_data():
    bijector, x = Standardization(), tf.constant(_data(), tf.float32)
    np.testing.assert_array_equal(bijector.inverse(x), x)
    np.testing.assert_array_equal(bijector.forward(x), x)
    assert bijector.inverse_log_det_jacobian(x, 1) == 0


def test_data_comes_out_with_mean_zero_and_variance_one(adapted):
    z = adapted.inverse(_data())
    np.testing.assert_allclose(np.mean(z, axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.std(z, axis=0), 1, rtol=1e-9)
    log_det = adapted.inverse_log_det_jacobian(_data(), 1)
    np.testing.assert_allclose(log_det, -np.log(_data().std(axis=0)).sum(), rtol=1e-9)


def test_batches_of_any_sizes_give_the_statistics_of_the_whole():
    x = _data()
    standardizer = Standardizer(dtype="float64")
    standardizer.adapt(iter([x[:1], x[1:1], x[1:70], x[70:]]))
    np.testing.assert_allclose(standardizer.mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(standardizer.scale, x.std(axis=0), rtol=1e-12)


def test_a_large_mean_does_not_drown_the_scale():
    x = np.random.default_rng(0).normal(1e6, 1, (1000, 1)).astype("float32")
    standardizer = Standardizer()
    standardizer.adapt(np.split(x, 10))
    np.testing.assert_allclose(standardizer.scale, x.astype("float64").std(axis=0), rtol=1e-6)


def test_new_data_takes_the_place_of_the_old(adapted):
    """Also where TFP has kept what the old came to."""
    x, new = tf.constant(_data()), 2 * _data() + 5
    before = adapted.inverse(x), adapted.inverse_log_det_jacobian(x, 1)
    adapted.standardizer.adapt([new])
    del before
    np.testing.assert_allclose(adapted.inverse(x), (x - new.mean(axis=0)) / new.std(axis=0))
    log_det = adapted.inverse_log_det_jacobian(x, 1)
    np.testing.assert_allclose(log_det, -np.log(new.std(axis=0)).sum())


def test_statistics_are_tied_and_not_trained(adapted, identities):
    assert adapted.trainable_variables == ()
    held = adapted.standardizer.variables
    assert [v.name for v in held] == ["mean", "scale"]
    assert identities(adapted.variables) == identities(held)


def test_weights_are_repetitions():
    x, weights = _data(), np.arange(100) % 4
    weighted, repeated = Standardizer(dtype="float64"), Standardizer(dtype="float64")
    weighted.adapt([(x[:30], weights[:30]), (x[30:], weights[30:])])
    repeated.adapt([np.repeat(x, weights, axis=0)])
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-12)


def test_a_constant_dimension_keeps_its_scale():
    standardizer = Standardizer()
    standardizer.adapt([_data() * [1, 0, 1]])
    assert float(standardizer.scale[1]) == 1


BAD = {
    "none": ([], "must have rows, got none"),
    "empty": ([np.zeros((0, 3))], "must have rows, got none"),
    "nan": ([_data(), np.full((2, 3), np.nan)], "must be finite, got NaN in row 100, column 0"),
    "infinity": ([np.full((2, 3), np.inf)], "must be finite, got inf in row 0, column 0"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_has_no_statistics_is_refused_and_changes_nothing(adapted, refuses, kind):
    batches, match = BAD[kind]
    before = [np.array(v) for v in adapted.variables]
    refuses(adapted.standardizer.adapt, batches, match=match)
    for variable, value in zip(adapted.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_overflow_of_the_dtype_is_refused(refuses):
    refuses(Standardizer(dtype="float32").adapt, [np.full((2, 1), 1e300)], match="must be finite")


def test_layer_from_its_configuration_and_weights(adapted, tmp_path):
    layer = adapted.standardizer
    inputs = keras.Input((3,), dtype="float64")
    keras.Model(inputs, layer(inputs)).save(tmp_path / "m.keras")
    mean, scale = keras.saving.load_model(tmp_path / "m.keras")(_data())
    np.testing.assert_array_equal(mean, layer.mean)
    np.testing.assert_array_equal(scale, layer.scale)

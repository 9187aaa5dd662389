"""Histogram equalization; the laws of every bijector are in test_laws.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.bijectors import Equalization
from tfnvp.layers import IntensityHistogram


def _equalization(*counts):
    histogram = IntensityHistogram(len(counts), spread=1e-9, dtype="float64")
    histogram.build(())
    histogram.take(np.array(counts))
    return Equalization(histogram)


@pytest.mark.parametrize(
    ("x", "y", "slope"),
    [(-1, -1, 1), (0.1, 0.24, 2.4), (0.25, 0.6, 0.4), (0.5, 0.7, 0.8), (1, 1, 0.4), (2, 2, 1)],
)
def test_a_cell_is_as_wide_as_it_is_common(x, y, slope):
    bijector = _equalization(6, 1, 2, 1)
    x, y = tf.constant(x, tf.float64), tf.constant(y, tf.float64)
    np.testing.assert_allclose(bijector.inverse(x), y, rtol=1e-7)
    np.testing.assert_allclose(bijector.forward(y), x, rtol=1e-7)
    np.testing.assert_allclose(bijector.inverse_log_det_jacobian(x, 0), np.log(slope), atol=1e-7)


def test_is_the_identity_until_it_has_counts():
    bijector, x = Equalization(), tf.constant([-0.1, 0.0, 0.3, 1.0, 7.0])
    np.testing.assert_allclose(bijector.inverse(x), x, atol=1e-6)
    np.testing.assert_allclose(bijector.inverse_log_det_jacobian(x, 0), np.zeros(5), atol=1e-5)


def test_its_own_distribution_is_made_uniform():
    random = np.random.default_rng(0)
    values = random.choice(8, 4000, p=[0.6, 0.02, 0.02, 0.02, 0.02, 0.02, 0.1, 0.2])
    bijector = _equalization(*np.bincount(values, minlength=8))
    y = np.sort(bijector.inverse((values + random.uniform(size=4000)) / 8))
    assert np.abs(y - (np.arange(4000) + 0.5) / 4000).max() < 0.02


def test_levels_survive_a_round_trip_in_float32():
    """Also those that were never seen, which share a twentieth of the mass with all others."""
    bijector = Equalization(IntensityHistogram())
    bijector.inverse(0.5)
    bijector.histogram.take(np.array([10**9, *[0] * 254, 10**6]))
    middles = (tf.range(256, dtype=tf.float32) + 0.5) / 256
    again = bijector.forward(bijector.inverse(middles))
    np.testing.assert_allclose(again, middles, atol=3e-6)


@pytest.mark.parametrize(
    ("argument", "value"), [("cells", 1), ("cells", 2.5), ("spread", 0), ("spread", 1.5)]
)
def test_bad_histograms_are_refused(refuses, argument, value):
    refuses(IntensityHistogram, **{argument: value}, match=f"{argument} must")


# The image model.

IMAGES = np.random.default_rng(0).choice([0, 9, 15], size=(6, 4, 4, 1), p=[0.7, 0.1, 0.2])
IMAGES = IMAGES.astype("uint8")


@pytest.mark.parametrize("kind", ["array", "data set", "weighted", "floats"])
def test_a_model_counts_the_intensities(tiny_model, kind):
    model = tiny_model(equalized=True)
    weights = np.array([0.0, 1, 1, 2, 1, 1])
    data = {
        "array": (IMAGES,),
        "data set": (tf.data.Dataset.from_tensor_slices((IMAGES, [1] * 6)).batch(4),),
        "weighted": (IMAGES, weights),
        "floats": ((IMAGES + 0.5) / 16,),
    }[kind]
    model.adapt(*data)
    rows = IMAGES.reshape(6, 16).repeat(weights.astype(int), 0) if kind == "weighted" else IMAGES
    shares = np.bincount(rows.ravel(), minlength=16) / rows.size
    spread = model.histogram.spread
    masses = np.array(model.histogram(()))
    expected = (1 - spread) * shares + spread / 16
    np.testing.assert_allclose(masses[[0, 9, 15]], expected[[0, 9, 15]], rtol=0.1)
    assert masses[[0, 9, 15]].sum() > 0.8 and np.sum(masses) == pytest.approx(1)


def test_a_model_is_refused_what_it_cannot_count(tiny_model, refuses):
    model = tiny_model(equalized=True)
    before = model.get_weights()
    refuses(model.adapt, IMAGES[..., 0], match="shape")
    refuses(model.adapt, 17 + IMAGES, match="values 0..15")
    refuses(model.adapt, np.full((2, 4, 4, 1), np.nan, "float32"), match="no NaN")
    refuses(model.adapt, IMAGES[:0], match="must have images")
    refuses(model.adapt, IMAGES, np.zeros(6), match="must have images")
    refuses(model.adapt, IMAGES, -np.ones(6), match="weight")
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    refuses(tiny_model().adapt, IMAGES, match="equalized=True")


def test_drawings_have_fewer_bits(tiny_model):
    model = tiny_model(equalized=True, seed=1)
    plain = tiny_model(seed=1)
    plain.set_weights([w for w in model.get_weights() if w.shape != (16,)])
    model.histogram.take(np.ones(16))
    np.testing.assert_allclose(model.log_prob(IMAGES), plain.log_prob(IMAGES), rtol=1e-4)
    model.adapt(IMAGES)
    gain = plain.bits_per_dim(IMAGES) - model.bits_per_dim(IMAGES)
    assert np.mean(gain) > 0.2


def test_it_is_saved_with_its_counts(tiny_model, tmp_path):
    model = tiny_model(equalized=True)
    model.adapt(IMAGES)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.log_prob(IMAGES), model.log_prob(IMAGES))
    assert isinstance(loaded, tfnvp.ImageRealNVP) and loaded.equalized

"""Training compiled by XLA is training without it, in one compilation."""

import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings

import tfnvp

RANDOM = np.random.default_rng(0)
FLOATS = RANDOM.uniform(size=(11, 4, 4, 1)).astype("float32")
TWO_CHANNELS = RANDOM.uniform(size=(11, 4, 4, 2)).astype("float32")
VECTORS = RANDOM.normal(size=(11, 3)).astype("float32")
LABELS = np.arange(11) % 3


def _images(channels=1, **options):
    return FewCouplings((4, 4, channels), 1, 4, 1, levels=16, **options)


def _vectors(**options):
    return tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(4,), **options)


def _scaled(rate):
    adam = tfnvp.optimizers.Adam(rate, global_clipnorm=0.5)
    return keras.optimizers.LossScaleOptimizer(adam)


ADAM = tfnvp.optimizers.Adam
# A model, its data, and its optimizer.
CASES = {
    "vectors": (_vectors, (VECTORS,), ADAM),
    "labelled vectors": (lambda: _vectors(num_classes=3), (VECTORS, LABELS), ADAM),
    "float images": (_images, (FLOATS,), ADAM),
    "conditional": (lambda: _images(num_classes=3), (FLOATS, LABELS), ADAM),
    "remat": (lambda: _images(remat=True), (FLOATS,), ADAM),
    "mixing": (lambda: _images(2, mixing=True), (TWO_CHANNELS,), ADAM),
    "mixed_bfloat16": (lambda: _images(dtype="mixed_bfloat16"), (FLOATS,), ADAM),
    "mixed_float16": (lambda: _images(dtype="mixed_float16"), (FLOATS,), _scaled),
    "Muon": (_images, (FLOATS,), tfnvp.optimizers.Muon),
    "Keras' Adam": (_images, (FLOATS,), keras.optimizers.Adam),
}
# One compilation of an image model takes half a minute.
SLOW = {name: pytest.mark.slow for name in CASES if name != "labelled vectors"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in CASES])
def test_losses_are_those_without(name, randomize):
    """Three steps, of which the last has fewer rows, and an evaluation."""
    make, (x, *y), optimizer = CASES[name]
    figures = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)  # Permutations are drawn.
        model = randomize(make())
        if isinstance(model, tfnvp.VectorRealNVP):
            model.rounding.set_steps(np.zeros(3))  # XLA draws other noise.
        model.compile(optimizer=optimizer(1e-2), jit_compile=jit)
        options = {"batch_size": 4, "verbose": 0}
        history = model.fit(x, *y, shuffle=False, **options).history
        evaluation = model.evaluate(x, *y, **options)
        figures.append([history["loss"][0], history["bits_per_dim"][0], *evaluation])
    # The two round in other places: in half precision by so much.
    tolerance = {"mixed_bfloat16": 2e-3, "mixed_float16": 5e-4}.get(name, 1e-4)
    np.testing.assert_allclose(figures[1], figures[0], rtol=tolerance)


@pytest.mark.slow
def test_uint8_images_train_to_about_the_same(randomize):
    """XLA draws other noise: the figures are those of another draw."""
    pixels = RANDOM.integers(0, 16, (64, 4, 4, 1)).astype("uint8")
    figures = []
    for jit in (False, True):
        model = randomize(_images())
        model.compile(optimizer=ADAM(1e-2), jit_compile=jit)
        figures.append(model.fit(pixels, batch_size=32, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(figures[1], figures[0], rtol=0.02)


PROGRAM = """
import numpy as np, tfnvp
x = np.random.default_rng(0).normal(size=(11, 2)).astype("float32")
model = tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,))
model.compile(optimizer="adam", jit_compile=True)
model.fit(x, batch_size=4, epochs=3, validation_data=(x[:7], None), verbose=0)
model.evaluate(x[:7], batch_size=4, verbose=0)
"""


def test_a_fit_and_an_evaluation_compile_once_each():
    """Over epochs, with last batches of fewer rows."""
    environment = {"TF_CPP_VMODULE": "device_compilation_profiler=2", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    )
    compiled = re.findall(r"Compiled (\S+) (\d+) times", done.stderr)
    assert [times for _, times in compiled] == ["1", "1"], compiled
    assert compiled[0][0] != compiled[1][0]


@pytest.mark.slow
def test_answers_are_those_without(randomize, tmp_path):
    """By `predict`, in functions of the user's, from a file, and from an export."""
    model = randomize(_vectors())
    model.compile(optimizer="adam", jit_compile=True)
    distribution = model.distribution
    expected = distribution.log_prob(VECTORS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    served = tf.saved_model.load(str(tfnvp.export_saved_model(model, tmp_path / "export")))
    for found in (
        model.predict(VECTORS, batch_size=4, verbose=0),
        tf.function(distribution.log_prob, jit_compile=True)(VECTORS),
        loaded.log_prob(VECTORS),
        served.signatures["log_prob"](vectors=tf.constant(VECTORS))["log_prob"],
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # XLA draws other samples than TensorFlow for a seed, and the same ones for it each time.
    sample = tf.function(lambda: distribution.sample(1000, seed=(0, 1)), jit_compile=True)
    x = sample()
    np.testing.assert_array_equal(x, sample())
    usual = distribution.sample(1000, seed=(0, 1))
    for quantile in (25, 50, 75):
        one, other = (np.percentile(drawn, quantile, axis=0) for drawn in (x, usual))
        np.testing.assert_allclose(one, other, atol=0.25)

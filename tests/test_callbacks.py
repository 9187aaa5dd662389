"""Pictures that are drawn as a model trains."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfnvp import callbacks, latent, plotting


@pytest.fixture(scope="module")
def model(tiny_model):
    model = tiny_model((4, 4, 1))
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 16, (20, 4, 4, 1)).astype("uint8")


@pytest.mark.filterwarnings("ignore:.*shuffle=True")
def test_the_same_latents_are_drawn_over_the_epochs(model, images, tmp_path):
    watch = callbacks.Watch({"grid": callbacks.samples(4)}, tmp_path, tmp_path / "logs", every=2)
    model.fit(images, epochs=4, verbose=0, callbacks=[watch])
    frames = sorted((tmp_path / "grid").iterdir())
    assert [path.name for path in frames] == ["epoch_0002.png", "epoch_0004.png"]
    first, last = (np.asarray(Image.open(path)) for path in frames)
    assert np.any(first != last)
    np.testing.assert_array_equal(last, plotting.image_grid(model.sample(4, seed=0)))
    assert Image.open(tmp_path / "grid.gif").n_frames == 2

    # TensorBoard has the same pictures.
    events = tf.data.TFRecordDataset([str(path) for path in (tmp_path / "logs").iterdir()])
    summaries = {}
    for record in events:
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            summaries[value.tag, event.step] = value.tensor.string_val[2]
    assert set(summaries) == {("grid", 2), ("grid", 4)}
    np.testing.assert_array_equal(tf.io.decode_png(summaries["grid", 4]), last)


def test_interpolations_are_of_the_same_latents(model):
    z = np.random.default_rng(3).normal(size=(4, 4, 4, 1)).astype("float32")
    grid = tf.reshape(latent.interpolate(*z, steps=3), [-1, 4, 4, 1])
    expected = plotting.image_grid(model.decode(grid), 3)
    np.testing.assert_array_equal(callbacks.interpolation(3, seed=3)(model), expected)


def test_histograms_are_of_the_models_scores(model, images):
    bits = model.bits_per_dim(images).numpy()
    expected = plotting.pixels(plotting.bits_histogram({"mine": bits}))
    np.testing.assert_array_equal(callbacks.bits_per_dim({"mine": images})(model), expected)

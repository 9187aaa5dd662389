"""Images and arguments that the image model refuses, and how it says so."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.small_images import LEVELS, floats, pixels

import tfnvp

# Keras warns that a data set is not shuffled by `fit`.
pytestmark = pytest.mark.filterwarnings("ignore:.*shuffle=True")

# By name where shapes are known before, or as TensorFlow finds it once it has traced other shapes.
_SHAPE = r"(images must have the shape \[batch, 4, 4, 2\], got \(|shape \[\?,4,4,2\], got \[)"
_RANGE = (
    r"float images must have values in \[0, 1\], from -0\.0556 to 1\.0556 at most, and no NaN, "
    r"got values from, to "
)
BAD_IMAGES = {
    "rank": (np.zeros((4, 4, 2), "uint8"), _SHAPE),
    "channels": (np.zeros((3, 4, 4, 1), "uint8"), _SHAPE),
    "size": (np.zeros((3, 6, 4, 2), "float32"), _SHAPE),
    "odd size": (np.zeros((3, 5, 5, 2), "uint8"), _SHAPE),
    "dtype": (np.zeros((3, 4, 4, 2), "int32"), r"uint8 with values 0\.\.15 or float .*dtype int32"),
    "strings": (np.full((3, 4, 4, 2), "a"), "got dtype string"),
    "level": (pixels(levels=18), r"uint8 images must have values 0\.\.15, got up to 17"),
    "above": (floats() + 0.5, _RANGE + r"0\.5 1\.5"),
    "below": (floats() - 0.25, _RANGE + r"-0\.25 0\.75"),
    "nan": (np.where(floats() == 0, np.nan, floats()).astype("float32"), _RANGE),
}


class OneCoupling(tfnvp.ImageRealNVP):
    """A model that takes what ImageRealNVP takes, and is quickly traced."""

    def build_distribution(self):
        mask = tfnvp.masks.ChannelHalves(0)
        coupling = tfnvp.bijectors.AffineCoupling(mask, keras.layers.Dense(2))
        return self._over(self.image_shape, coupling)


@pytest.fixture(scope="module")
def one_coupling():
    model = OneCoupling((4, 4, 2), 1, filters=1, residual_blocks=1, levels=LEVELS)
    model.compile(optimizer="sgd")
    return model


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_refused(one_coupling, refuses, kind):
    """In one line, in every way that images come in, also from within Keras' loops."""
    images, match = BAD_IMAGES[kind]
    for function in (one_coupling.log_prob, one_coupling.bits_per_dim, one_coupling.encode):
        refuses(function, images, match=match)
    batches = tf.data.Dataset.from_tensor_slices(images).batch(64)
    for function in (one_coupling.fit, one_coupling.evaluate, one_coupling.predict):
        refuses(function, batches, verbose=0, match=match)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"image_shape": (6, 6, 1), "num_scales": 3}, r"multiples of 4 for num_scales=3, got .*6"),
        ({"image_shape": (4, 4)}, r"must be \(height, width, channels\), got image_shape=\(4, 4\)"),
        ({"image_shape": (4, 4, 0)}, "positive integer, got .*=0"),
        ({"num_scales": 0}, "num_scales must be a positive integer, got num_scales=0"),
        ({"filters": -3}, "filters must be a positive integer, got filters=-3"),
        ({"residual_blocks": 1.0}, r"residual_blocks must be a positive integer, got .*=1\.0"),
        ({"levels": 300}, "levels must be an integer from 2 to 256, got levels=300"),
        ({"alpha": 0.5}, r"alpha must be in \[0, 0\.5\), got alpha=0\.5"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got momentum=1\.0"),
    ],
)
def test_bad_arguments_are_named(refuses, arguments, match):
    sizes = {"image_shape": (4, 4, 1), "num_scales": 1, "filters": 4, "residual_blocks": 1}
    refuses(tfnvp.ImageRealNVP, **{**sizes, **arguments}, match=match)


def test_unknown_preset_lists_the_known_ones(refuses):
    refuses(
        tfnvp.ImageRealNVP.from_preset, "digit", match="unknown preset 'digit'; known: .*digits"
    )


def test_preset_with_a_change():
    model = tfnvp.ImageRealNVP.from_preset("digits", filters=4, residual_blocks=1)
    assert model.image_shape == (8, 8, 1) and model.levels == 17 and model.filters == 4

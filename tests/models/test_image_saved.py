"""The image model in files: the same densities to the bit."""

import keras
import numpy as np
import pytest
from helpers.small_images import LEVELS, pixels

import tfnvp


@pytest.fixture(scope="module")
def model(tiny_model):
    """Two scales: four couplings, a squeeze and a factor-out."""
    return tiny_model((4, 4, 2), num_scales=2, levels=LEVELS)


def test_saved_whole_it_scores_the_same_to_the_bit(model, tmp_path):
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(again, tfnvp.ImageRealNVP)
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again.log_prob(pixels()), model.log_prob(pixels()))


def test_saved_weights_are_the_same_to_the_bit(model, tmp_path):
    model.save_weights(tmp_path / "m.weights.h5")
    config = model.get_config()
    again = type(model).from_config(config)
    assert np.all(again.log_prob(pixels()) != model.log_prob(pixels()))
    again.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(again.log_prob(pixels()), model.log_prob(pixels()))


@keras.saving.register_keras_serializable(package="tests")
class OneScale(tfnvp.ImageRealNVP):
    """A user's subclass with arguments of its own."""

    def __init__(self, size, **kwargs):
        super().__init__((size, size, 1), 1, filters=4, residual_blocks=1, **kwargs)
        self.size = size

    def get_config(self):
        ours = {"image_shape", "num_scales", "filters", "residual_blocks"}
        rest = {k: v for k, v in super().get_config().items() if k not in ours}
        return {**rest, "size": self.size}


def test_a_users_subclass_is_saved_whole(tmp_path, randomize):
    model = randomize(OneScale(2, levels=LEVELS, dtype="mixed_bfloat16"))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert isinstance(again, OneScale) and again.dtype_policy.name == "mixed_bfloat16"
    images = pixels(4, (2, 2, 1))
    np.testing.assert_array_equal(again.log_prob(images), model.log_prob(images))

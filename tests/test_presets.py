"""Presets make models."""

import pytest

import tfnvp


@pytest.mark.parametrize("name", tfnvp.presets.names())
def test_a_preset_makes_a_model_of_its_data_set(name):
    model = tfnvp.ImageRealNVP.from_preset(name, filters=4, residual_blocks=1)
    info = tfnvp.data.info("cifar10" if name == "cifar10_small" else name)
    assert model.image_shape == info.image_shape
    assert model.levels == info.levels


def test_cifar10_small_has_about_as_many_parameters_as_it_says():
    model = tfnvp.ImageRealNVP.from_preset("cifar10_small")
    assert 1.2e6 < sum(v.numpy().size for v in model.trainable_variables) < 1.4e6


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'nosuch'; known: cifar10_small, digits"):
        tfnvp.ImageRealNVP.from_preset("nosuch")


def test_a_preset_is_the_callers_own_to_change():
    tfnvp.presets.get("digits")["levels"] = 3
    assert tfnvp.presets.get("digits")["levels"] == 17

"""Recipes name data and architecture that fit together."""

import pytest

from train import recipe


def test_the_recipes():
    assert recipe.names() == ["cifar10_small", "digits", "folder", "photos"]


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown recipe 'x'; known: cifar10_small, digits"):
        recipe.get("x")


def test_folder_needs_a_directory():
    with pytest.raises(ValueError, match="--data DIR"):
        recipe.get("folder")
    assert recipe.get("folder", data="d", image_size=16).overrides == {"image_shape": (16, 16, 3)}

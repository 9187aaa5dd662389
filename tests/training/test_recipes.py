"""Recipes name data and architecture that fit together."""

import dataclasses

import numpy as np
import pytest

import tfnvp
from tfnvp.training import recipes

#: The paper's table 1: test bits/dim.
PAPER = {
    "cifar10": 3.49,
    "imagenet32": 4.28,
    "imagenet64": 3.98,
    "lsun_bedroom": 2.72,
    "lsun_tower": 2.81,
    "lsun_church_outdoor": 3.08,
    "celeb_a": 3.02,
}


def test_the_recipes():
    small = [
        "cifar10_plus",
        "cifar10_small",
        "digits",
        "folder",
        "imagenet32_plus",
        "mnist",
        "mnist_best",
        "moons",
        "photos",
        "table",
    ]
    conditional = ["cifar10_conditional", "digits_conditional", "mnist_conditional"]
    assert recipes.names() == sorted([*PAPER, *small, *conditional])


@pytest.mark.parametrize("name", PAPER)
def test_recipes_of_the_paper_are_as_published(name):
    """Section 4.1: Adam at 1e-3, batches of 64; flips but for ImageNet."""
    published = recipes.get(name)
    assert published.preset == name and not published.overrides
    assert (published.learning_rate, published.batch_size) == (1e-3, 64)
    assert (published.warmup_steps, published.decay, published.weight_decay) == (0, False, 0)
    assert not published.muon
    assert published.flip == (not name.startswith("imagenet"))
    assert published.paper_bits_per_dim == PAPER[name]
    shape = tfnvp.data.info(name).image_shape
    assert tfnvp.presets.get(published.preset)["image_shape"] == shape


def test_equalized_models_have_counted_the_training_images():
    small = {"num_scales": 1, "filters": 2, "equalized": True}
    recipe = dataclasses.replace(recipes.get("digits"), overrides=small)
    images = np.concatenate(list(recipe.load("train", 100, shuffle=False)))
    shares = np.bincount(images.ravel(), minlength=17) / images.size
    histogram = recipe.model().histogram
    spread = histogram.spread
    np.testing.assert_allclose(histogram(()), (1 - spread) * shares + spread / 17, rtol=1e-4)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown recipe 'x'; known: celeb_a, cifar10, cifar10_c"):
        recipes.get("x")


def test_folder_needs_a_directory():
    with pytest.raises(ValueError, match="--data DIR"):
        recipes.get("folder")
    assert recipes.get("folder", data="d", image_size=16).overrides == {"image_shape": (16, 16, 3)}


def test_options_of_other_recipes_are_named():
    with pytest.raises(ValueError, match="--data is an option of the recipe folder or table"):
        recipes.get("digits", data="d")
    with pytest.raises(ValueError, match="--image-size is an option of the recipe folder, got"):
        recipes.get("table", data="x.csv", image_size=3)
    with pytest.raises(ValueError, match="the recipe 'table' needs --data FILE"):
        recipes.get("table")

"""The recipes, a table: which model is trained on which data, and how.

A new recipe is an entry of a table below, under the name that the command line takes. Only a
recipe with code of its own has a file beside this one, as `moons` has.
"""

import functools
import inspect
from pathlib import Path
from typing import Any

from tfnvp import data
from tfnvp.checks import check_choice
from tfnvp.data import load_folder
from tfnvp.models import presets
from tfnvp.training.recipes import moons, table
from tfnvp.training.recipes.recipe import Recipe

__all__ = ["Recipe", "get", "names"]


# A row of the paper's table has data, epochs and test bits/dim. The epochs are ours, for the paper
# does not say how long it trained: about 200,000 steps, which take hours to days on a GPU.
_PAPER = {
    "cifar10": ("CIFAR-10, 32x32 colour", 270, 3.49),
    "imagenet32": ("ImageNet at 32x32", 10, 4.28),
    "imagenet64": ("ImageNet at 64x64", 10, 3.98),
    "lsun_bedroom": ("LSUN bedrooms, 64x64 crops", 4, 2.72),
    "lsun_tower": ("LSUN towers, 64x64 crops", 18, 2.81),
    "lsun_church_outdoor": ("LSUN churches, 64x64 crops", 100, 3.08),
    "celeb_a": ("CelebA, central 148x148 at 64x64", 80, 3.02),
}

# There are 1,297 digits to train on, so that most of the recipe is against overfitting.
_DIGITS = {"epochs": 10, "batch_size": 64, "learning_rate": 4e-3, "warmup_steps": 50}
_DIGITS |= {"muon": True, "weight_decay": 0.5, "averaged": 0.05}
# This is for the paper's architecture at 1.3M parameters, which two cores train in 17 minutes.
_SMALL = {"epochs": 7, "batch_size": 16, "learning_rate": 4e-3, "muon": True, "flip": True}
_SMALL |= {"mixed_precision": True}
_MNIST = {"epochs": 5, "batch_size": 32, "learning_rate": 4e-3, "muon": True}
_MNIST |= {"mixed_precision": True}
_PHOTOS = {"epochs": 5, "batch_size": 32, "learning_rate": 4e-3, "flip": True}
_PLUS = {"epochs": 10, "batch_size": 64, "warmup_steps": 2000, "muon": True}
_PLUS |= {"mixed_precision": True}

_CIFAR10 = "CIFAR-10, 32x32 colour (TFDS cifar10), a small model"
# A row has the data set of the preset, how the model is trained, and a description.
_OURS = {
    "digits": ("digits", _DIGITS, "8x8 handwritten digits, 17 levels (scikit-learn)"),
    "digits_conditional": (
        "digits",
        _DIGITS,
        "8x8 handwritten digits given their class, 17 levels (scikit-learn)",
    ),
    "mnist": ("mnist", _MNIST, "MNIST, 28x28 handwritten digits (TFDS mnist)"),
    "mnist_conditional": (
        "mnist",
        _MNIST,
        "MNIST given the class, 28x28 handwritten digits (TFDS mnist)",
    ),
    "photos": ("photos", _PHOTOS, "32x32 colour patches of two photographs (scikit-learn)"),
    "cifar10_small": ("cifar10", _SMALL, _CIFAR10),
    "cifar10_plus": ("cifar10", _SMALL, f"{_CIFAR10} beyond the paper"),
    "cifar10_conditional": (
        "cifar10",
        _SMALL,
        "CIFAR-10 given the class, 32x32 colour (TFDS cifar10), a small model",
    ),
    "imagenet32_plus": (
        "imagenet32",
        _PLUS,
        "ImageNet at 32x32 (TFDS downsampled_imagenet/32x32 2.0.0), beyond the paper",
    ),
}


def _of_the_paper(name: str) -> Recipe:
    """A row of the paper's table, trained as its section 4.1 says.

    Adam at a constant 1e-3, batches of 64, gradients clipped to a norm of 100, flips of all but
    ImageNet, and an L2 of 5e-5 on the weight-norm scales, which is the model's default.
    """
    what, epochs, bits_per_dim = _PAPER[name]
    how = {"epochs": epochs, "batch_size": 64, "warmup_steps": 0, "decay": False}
    how |= {"flip": not name.startswith("imagenet"), "paper_bits_per_dim": bits_per_dim}
    return _recipe(name, name, how, f"{what} ({data.info(name).source}), the paper's model")


def _recipe(preset: str, data_set: str, how: dict[str, Any], description: str) -> Recipe:
    # A conditional model is given the labels of its data.
    load = functools.partial(data.load, data_set, labels="num_classes" in presets.get(preset))
    return Recipe(description, preset, load, **how)


def _folder(data: Path | None = None, image_size: int = 32) -> Recipe:
    """The images under a directory, cut square and resized to image_size x image_size."""
    if data is None:
        raise ValueError("the recipe 'folder' needs --data DIR, a directory of PNG and JPEG files")
    how = _SMALL | {"epochs": 20, "batch_size": 32, "flip": False}
    how["overrides"] = {"image_shape": (image_size, image_size, 3)}
    load = functools.partial(load_folder, data, image_size)
    return Recipe(
        f"{image_size}x{image_size} colour images of {data}", "cifar10_small", load, **how
    )


def _table(data: Path | None = None) -> Recipe:
    """The rows of a CSV file."""
    if data is None:
        raise ValueError("the recipe 'table' needs --data FILE.csv, a header and rows of numbers")
    return table.recipe(data)


# These recipes are made from options of the command line; those below take none.
_OF_OPTIONS = {"folder": _folder, "table": _table}
# This one is of a larger model than its preset's, for two hours.
_BEST = {"epochs": 7, "overrides": {"filters": 48, "residual_blocks": 3}}
_RECIPES = {
    "moons": moons.RECIPE,
    "mnist_best": _recipe(
        "mnist",
        "mnist",
        _MNIST | _BEST,
        "MNIST, 28x28 handwritten digits, a larger model for two hours",
    ),
    **{name: _recipe(name, *row) for name, row in _OURS.items()},
    **{name: _of_the_paper(name) for name in _PAPER},
}


def names() -> list[str]:
    """The names of the recipes, sorted."""
    return sorted([*_RECIPES, *_OF_OPTIONS])


def get(name: str, **options: Any) -> Recipe:
    """Looks a recipe up.

    The options are `data`, of the recipes `folder` and `table`, and `image_size` of `folder`; None
    is none.

    Raises:
        ValueError: for an unknown name, listing the known ones, and for options that the recipe
            does not take or needs.
    """
    check_choice("recipe", name, names())
    options = {key: value for key, value in options.items() if value is not None}
    takers = {key: inspect.signature(make).parameters for key, make in _OF_OPTIONS.items()}
    for option in options:
        if option not in takers.get(name, ()):
            known = " or ".join(key for key, parameters in takers.items() if option in parameters)
            flag = "--" + option.replace("_", "-")
            raise ValueError(f"{flag} is an option of the recipe {known}, got it with {name}")
    return _OF_OPTIONS[name](**options) if name in _OF_OPTIONS else _RECIPES[name]

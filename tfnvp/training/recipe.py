"""What a recipe is, and the list of them."""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np

import tfnvp
from tfnvp import callbacks
from tfnvp.checks import check_choice
from tfnvp.training import recipes
from tfnvp.training.schedules import make_optimizer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained on what, and how.

    Attributes:
        description: one line.
        preset: name of the architecture in `tfnvp.presets`; None where `model` makes another.
        load: takes a split ("train", "validation" or "test"), a batch size and the keyword
            arguments shuffle, seed, flip, epochs and indices, as `tfnvp.data.load` does.
        epochs: of training.
        batch_size: images a step.
        learning_rate: the peak, warmed up to from zero and, with `decay`, left by a cosine to zero.
        warmup_steps: optimizer steps of the warm-up.
        decay: whether the learning rate falls after the warm-up.
        weight_decay: decoupled, as in AdamW; 0 for none.
        muon: whether the kernels of conditioners get Muon's steps, or Adam's as all the rest.
        flip: whether training images are mirrored left to right at random.
        mixed_precision: whether conditioners compute in bfloat16 where the hardware has it.
        overrides: constructor arguments of the model in place of the preset's.
        steps_per_execution: steps that Keras runs at a time, if they divide an epoch: more than
            one for steps of milliseconds, around which its loop would take as long.
        paper_bits_per_dim: the paper's test figure for the same data and architecture, if any.
    """

    description: str
    preset: str | None
    load: Callable[..., Any]
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay: bool = True
    weight_decay: float = 0.0
    muon: bool = False
    flip: bool = False
    mixed_precision: bool = False
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    paper_bits_per_dim: float | None = None
    steps_per_execution: int = 1

    def model(self, remat=False, dtype="float32"):
        """The model, yet to be trained; arguments as those of `ImageRealNVP`."""
        return tfnvp.ImageRealNVP.from_preset(
            self.preset, **self.overrides, remat=remat, dtype=dtype
        )

    def pictures(self):
        """What is drawn as the model trains and in the end, for `tfnvp.callbacks.Watch`."""
        scored = {}
        for split in ("train", "validation"):
            batches = list(self.load(split, 100, shuffle=False).take(2))
            # Of pairs with labels, the images.
            scored[split] = np.concatenate([b[0] if isinstance(b, tuple) else b for b in batches])
        return {
            "samples": callbacks.samples(),
            "interpolation": callbacks.interpolation(),
            "bits_per_dim": callbacks.bits_per_dim(scored),
        }

    def report(self, model):
        """Further lines of the table that ends a run: a dictionary from names to strings."""
        if self.paper_bits_per_dim:
            return {"the paper's test": f"{self.paper_bits_per_dim:.2f}"}
        return {}

    def optimizer(self, steps, learning_rate):
        """The optimizer of a training of so many steps, with a learning rate of that peak."""
        return make_optimizer(
            steps, learning_rate, self.warmup_steps, self.decay, self.weight_decay, self.muon
        )


def of_the_paper(name, description, epochs, bits_per_dim, flip=True):
    """A row of the paper's table, trained as its section 4.1 says.

    Adam at a constant 1e-3, batches of 64, gradients clipped to a norm of 100, and the L2 of 5e-5
    on the weight-norm scales, which is the model's default; the paper does not say for how long.

    Args:
        name: of the data set in `tfnvp.data` and of the preset.
        description: one line.
        epochs: of training; the recipes of the paper take about 200,000 steps.
        bits_per_dim: the paper's test figure.
        flip: whether training images are mirrored at random: all but ImageNet's.
    """
    return Recipe(
        description=description,
        preset=name,
        load=functools.partial(tfnvp.data.load, name),
        epochs=epochs,
        batch_size=64,
        learning_rate=1e-3,
        warmup_steps=0,
        decay=False,
        flip=flip,
        paper_bits_per_dim=bits_per_dim,
    )


def names():
    """The names of the recipes, sorted: the files of `train/recipes`."""
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def get(name, **options):
    """The recipe of a name.

    Args:
        name: one of `names()`.
        **options: of the recipe itself: `folder` takes `data` and `image_size`.

    Raises:
        ValueError: for an unknown name, listing the known ones, and for options that the recipe
            does not take or needs.
    """
    check_choice("recipe", name, names())
    return importlib.import_module(f"tfnvp.training.recipes.{name}").recipe(**options)

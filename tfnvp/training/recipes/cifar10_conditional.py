"""CIFAR-10 given the class, at the size of `cifar10_small`."""

import dataclasses
import functools

import tfnvp
from tfnvp.training.recipe import Recipe
from tfnvp.training.recipes import cifar10_small


def recipe() -> Recipe:
    """CIFAR-10 with labels, trained as `cifar10_small` without."""
    return dataclasses.replace(
        cifar10_small.recipe(),
        description="CIFAR-10 given the class, 32x32 colour (TFDS cifar10), a small model",
        preset="cifar10_conditional",
        load=functools.partial(tfnvp.data.load, "cifar10", labels=True),
    )

"""CIFAR-10 with what pays beyond the paper, at the size of `cifar10_small` and for two cores."""

import dataclasses

from tfnvp.training.recipes import cifar10_small


def recipe():
    """CIFAR-10, small and beyond the paper."""
    return dataclasses.replace(
        cifar10_small.recipe(),
        description="CIFAR-10, 32x32 colour (TFDS cifar10), a small model beyond the paper",
        preset="cifar10_plus",
    )

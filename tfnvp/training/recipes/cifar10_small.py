"""CIFAR-10 with the paper's architecture at 1.3M parameters, for two cores."""

import functools

import tfnvp
from tfnvp.training.recipe import Recipe


def recipe():
    """CIFAR-10, small."""
    return Recipe(
        description="CIFAR-10, 32x32 colour (TFDS cifar10), a small model",
        preset="cifar10_small",
        load=functools.partial(tfnvp.data.load, "cifar10"),
        epochs=7,
        batch_size=16,
        learning_rate=4e-3,
        muon=True,
        flip=True,
        mixed_precision=True,
    )

"""32 x 32 colour patches of scikit-learn's two photographs: colour images without a download."""

import functools

import tfnvp
from tfnvp.training.recipe import Recipe


def recipe():
    """Patches of two photographs."""
    return Recipe(
        description="32x32 colour patches of two photographs (scikit-learn)",
        preset="photos",
        load=functools.partial(tfnvp.data.load, "photos"),
        epochs=5,
        batch_size=32,
        learning_rate=4e-3,
        flip=True,
    )

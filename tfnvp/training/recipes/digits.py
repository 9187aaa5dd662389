"""The 8 x 8 digits of scikit-learn: 1,297 images to train on, so that overfitting is the matter."""

import functools

import tfnvp
from tfnvp.training.recipe import Recipe


def recipe():
    """The digits; a few minutes on two cores."""
    return Recipe(
        description="8x8 handwritten digits, 17 levels (scikit-learn)",
        preset="digits",
        load=functools.partial(tfnvp.data.load, "digits"),
        epochs=20,
        batch_size=64,
        learning_rate=4e-3,
        warmup_steps=50,
        weight_decay=0.1,
    )

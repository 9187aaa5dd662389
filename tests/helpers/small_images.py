"""Small images, of pixels and of floats."""

import numpy as np

LEVELS = 16


def pixels(rows=5, shape=(4, 4, 2), levels=LEVELS):
    """Pixels of so many levels, uint8."""
    random = np.random.default_rng(0)
    return random.integers(0, levels, size=(rows, *shape)).astype("uint8")


def floats(rows=5, shape=(4, 4, 2)):
    """Values in [0, 1], black and white pixels among them."""
    x = np.random.default_rng(1).uniform(size=(rows, *shape)).astype("float32")
    x[:, 0, 0], x[:, 1, 1] = 0, 1
    return x

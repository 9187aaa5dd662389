"""The values of pixels: their range, how common they are, and whether floats are pixels at all."""

import numpy as np
import tensorflow as tf

from tfnvp.bijectors import ImageLogit
from tfnvp.checks import assert_all


def assert_in_range(x: tf.Tensor, levels: int, logit: ImageLogit) -> tf.Operation | None:
    """Asserts that images have values in 0..levels-1, or floats within the logit's range."""
    if x.dtype == tf.uint8:
        top = levels - 1
        if top == 255:
            return None
        message = f"uint8 images must have values 0..{top}, got up to"
        return assert_all(x <= top, message, tf.reduce_max(tf.cast(x, tf.int32)))
    # The distribution's own samples leave [0, 1] by a little.
    low, high = logit.range
    message = (
        f"float images must have values in [0, 1], from {low:.4f} to {high:.4f} at most, "
        "and no NaN, got values from, to"
    )
    return assert_all(logit.contains(x), message, tf.reduce_min(x), tf.reduce_max(x))


def doubt_of_floats(x: np.ndarray, levels: int) -> str | None:
    """Says where float images are pixels: all values are k / (levels - 1) or k / levels."""
    if x.dtype.kind != "f":
        return None
    for steps in (levels - 1, levels):
        error = 4 * steps * np.finfo(x.dtype).eps
        if len(x) and np.all(np.abs(x * steps - np.rint(x * steps)) <= error):
            return (
                f"all values of these float images are multiples of 1 / {steps}: such pixels "
                "have no density, and bits/dim that mean nothing; pass uint8 images, "
                f'np.rint(x * {steps}).astype("uint8"), to which the model adds noise'
            )
    return None


def count(images: tf.Tensor, levels: int, weights: tf.Tensor | None = None) -> np.ndarray:
    """Counts the intensities of images, uint8 levels or floats in [0, 1].

    Args:
        images: [N, H, W, C].
        levels: how many equal cells of [0, 1] are counted.
        weights: those of the images, [N]; None for equal ones.

    Returns:
        [levels].
    """
    cells = images.numpy()
    if cells.dtype != np.uint8:
        cells = np.clip(np.floor(cells * levels), 0, levels - 1).astype("int64")
    if weights is not None:
        weights = np.repeat(weights.numpy(), cells[0].size)
    return np.bincount(cells.ravel(), weights, levels).astype("float64")

"""Images and figures for people to look at."""

import math
import os
import tempfile
from pathlib import Path

import numpy as np


def image_grid(images, columns=None, least_size=32):
    """Tiles images into one, row by row.

    Args:
        images: [N, H, W, C] with C 1 or 3, float in [0, 1].
        columns: images a row; None makes the grid square.
        least_size: pixels that an image has at least in the grid; smaller ones are magnified by a
            whole number.

    Returns:
        uint8 array [rows * height, columns * width, 3], one pixel of grey between images.

    Raises:
        ValueError: for no images, or another number of channels.

    Example:
        >>> import numpy as np
        >>> image_grid(np.zeros((4, 32, 32, 3))).shape
        (67, 67, 3)
    """
    images = np.asarray(images, "float32")
    if images.ndim != 4 or not len(images) or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must have the shape [N, H, W, 1 or 3] with N > 0, got {images.shape}"
        )
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    zoom = max(1, math.ceil(least_size / min(images.shape[1:3])))
    pixels = np.floor(np.clip(images, 0, 1) * 255 + 0.5).astype("uint8")
    pixels = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    height, width = pixels.shape[1:3]
    grid = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 128, "uint8")
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        grid[top : top + height, left : left + width] = image
    return grid


def save_png(image, path):
    """Writes an image, whole or not at all.

    Args:
        image: uint8 array [H, W, 3].
        path: of the PNG file; its directory must exist.
    """
    from PIL import Image

    path = Path(path)
    handle, written = tempfile.mkstemp(suffix=".png", dir=path.parent)
    os.close(handle)
    try:
        Image.fromarray(image).save(written)
        os.chmod(written, 0o644)
        os.replace(written, path)
    except BaseException:
        os.unlink(written)
        raise


def training_curves(history, axes=None):
    """Draws bits/dim of training and validation over the epochs.

    Args:
        history: a dictionary with lists under "bits_per_dim" and "val_bits_per_dim", such as the
            `history` of what `fit` returns.
        axes: matplotlib's, to draw into; None for a new figure.

    Returns:
        The matplotlib figure.

    Example:
        >>> curves = {"bits_per_dim": [5.0, 4.2, 4.0], "val_bits_per_dim": [4.6, 4.1, 4.0]}
        >>> training_curves(curves).axes[0].get_xlabel()
        'epoch'
    """
    from matplotlib.figure import Figure

    if axes is None:
        axes = Figure(figsize=(6, 4), dpi=110, layout="constrained").add_subplot()
    for name, label in (("bits_per_dim", "training"), ("val_bits_per_dim", "validation")):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, [float(value) for value in history[name]], label=label)
    axes.set(xlabel="epoch", ylabel="bits/dim")
    axes.legend()
    return axes.figure

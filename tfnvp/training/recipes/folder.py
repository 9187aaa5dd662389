"""A directory of the user's own PNG and JPEG files."""

import functools

import tfnvp
from tfnvp.training.recipe import Recipe


def recipe(data=None, image_size=32):
    """The images under `data`, cut square and resized to image_size x image_size."""
    if data is None:
        raise ValueError("the recipe 'folder' needs --data DIR, a directory of PNG and JPEG files")
    return Recipe(
        description=f"{image_size}x{image_size} colour images of {data}",
        preset="cifar10_small",
        overrides={"image_shape": (image_size, image_size, 3)},
        load=functools.partial(tfnvp.data.load_folder, data, image_size),
        epochs=20,
        batch_size=32,
        learning_rate=4e-3,
        muon=True,
        mixed_precision=True,
    )

"""Images and vectors in and out of files, for the command line."""

import numpy as np

from tfnvp import plotting
from tfnvp.checks import check_choice

_SUFFIXES = (".png", ".npy", ".npz")


def check_suffix(path):
    """Raises a ValueError unless `write` knows what to do with the path's suffix."""
    check_choice(f"suffix of {path}:", path.suffix.lower(), _SUFFIXES)
    if not path.parent.is_dir():
        raise ValueError(f"no such directory: {path.parent}")


def write(path, array, figure):
    """Writes an array, or a figure of it.

    Args:
        path: its suffix decides: .npy, .npz (under the name `array`) or .png.
        array: for the first two.
        figure: a function without arguments that gives a matplotlib figure or uint8 [H, W, 3].
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez_compressed(path, array=array)
    else:
        drawn = figure()
        plotting.save_png(drawn if isinstance(drawn, np.ndarray) else plotting.pixels(drawn), path)


def write_images(path, images, columns=None):
    """Writes images [N, H, W, C] in [0, 1], as `write` does: a PNG has them in a grid."""
    images = np.asarray(images, "float32")
    write(path, images, lambda: plotting.image_grid(images, columns))


def read_vectors(path, size):
    """Reads vectors of a size from a file as `write` writes it.

    Args:
        path: of a .npy file, or a .npz file of one array.
        size: D.

    Returns:
        float32 [N, D]; a single vector [D] is one row.

    Raises:
        ValueError: for another kind of file, or an array of another shape.
    """
    if path.suffix.lower() not in (".npy", ".npz"):
        raise ValueError(f"vectors are read from .npy and .npz files, got {path}")
    x = np.load(path)
    if isinstance(x, np.lib.npyio.NpzFile):
        if len(x.files) != 1:
            raise ValueError(f"{path} must hold one array, got {', '.join(x.files)}")
        x = x[x.files[0]]
    if x.shape[-1:] != (size,) or x.ndim > 2:
        raise ValueError(f"{path} must hold vectors [N, {size}], got {x.shape}")
    return x.reshape(-1, size).astype("float32")


def read_images(paths, model):
    """Reads image files in the shape and the levels of a model.

    They are cut to the model's proportions about the middle and averaged over areas to its size; a
    value v of 0..255 becomes the level floor(v * levels / 256).

    Args:
        paths: of PNG or JPEG files.
        model: with `image_shape` and `levels`.

    Returns:
        uint8 [N, H, W, C].

    Raises:
        ValueError: for a file that is no such image, or a model of neither 1 nor 3 channels.
    """
    height, width, channels = model.image_shape
    mode = {1: "L", 3: "RGB"}.get(channels)
    if mode is None:
        raise ValueError(f"image files have 1 or 3 channels, the model's images have {channels}")
    images = np.stack([_read(path, mode, (width, height)) for path in paths])
    levels = images.astype("int32") * model.levels // 256
    return levels.astype("uint8").reshape(-1, height, width, channels)


def _read(path, mode, size):
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            image = ImageOps.exif_transpose(file).convert(mode)
    except UnidentifiedImageError:
        raise ValueError(f"not a PNG or JPEG file: {path}") from None
    return np.asarray(ImageOps.fit(image, size, Image.Resampling.BOX))

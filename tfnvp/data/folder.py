"""A directory of the user's own PNG and JPEG files."""

import functools
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from tfnvp.checks import check_choice, check_positive_int
from tfnvp.data import pipeline

_SUFFIXES = (".png", ".jpg", ".jpeg")
_WHAT_WOULD_DO = "give a directory that holds PNG or JPEG files, at any depth"


def load_folder(
    directory: str | os.PathLike,
    image_size: int,
    split: str = "train",
    batch_size: int | None = None,
    *,
    shuffle: bool | None = None,
    seed: int = 0,
    flip: bool = False,
    epochs: range | None = None,
    indices: bool = False,
) -> tf.data.Dataset:
    """A directory of PNG and JPEG files as a pipeline of uint8 images.

    The directory is searched recursively for `.png`, `.jpg` and `.jpeg` (upper or lower case);
    hidden files and directories are passed over, and links to directories are not followed. An
    image is turned as its EXIF orientation says, laid on white where it is transparent, made
    RGB (of 16 bits the upper 8 remain), cut to its central square and averaged over areas to
    `image_size` x `image_size`.

    Of the readable images, in an order that depends on their number alone and is applied to
    their sorted paths, 10% (at least one) validate, 10% (at least one) test and the rest train.

    All images are decoded at the first call and kept in memory as uint8, `3 * image_size**2`
    bytes each; calls for the other splits use them again for as long as the files are unchanged.

    Args:
        directory: the directory.
        image_size: height and width of the images, in pixels.
        split, batch_size, shuffle, seed, flip, epochs, indices: as `tfnvp.data.load` has them.

    Returns:
        A `tf.data.Dataset` of known cardinality, of uint8 [image_size, image_size, 3], or
        [B, image_size, image_size, 3] with a batch size; 256 levels.

    Raises:
        ValueError: if an argument is not one that is described here, the directory cannot be
            read or holds no PNG or JPEG file, or fewer than 3 of them are readable.

    Warns:
        UserWarning: once, if some of the files could not be read: how many and, for up to five
            of them, which and why.

    Example:
        >>> import tempfile, numpy as np, PIL.Image
        >>> directory = tempfile.mkdtemp()
        >>> for i in range(10):
        ...     grey = np.full([48, 64, 3], 20 * i, np.uint8)
        ...     PIL.Image.fromarray(grey).save(f"{directory}/{i}.png")
        >>> images = tfnvp.data.load_folder(directory, image_size=32, batch_size=4)
        >>> [batch.shape[0] for batch in images]
        [4, 4]
    """
    check_positive_int("image_size", image_size)
    check_choice("split", split, pipeline.SPLITS)
    check_positive_int("batch_size", batch_size, optional=True)
    directory = os.fspath(directory)
    # The times and sizes make a changed directory a new one to the cache.
    files = tuple((path, *_stamp(path)) for path in _find(directory))
    if not files:
        raise ValueError(f"directory: no PNG or JPEG file in {directory!r}; {_WHAT_WOULD_DO}")
    images = _read_all(directory, files, int(image_size))
    held_out = max(1, round(len(images) / 10))
    order = np.random.RandomState(0).permutation(len(images))
    validation, test, train = np.split(order, [held_out, 2 * held_out])
    rows = {"train": train, "validation": validation, "test": test}[split]
    dataset = tf.data.Dataset.from_tensor_slices(images[rows])
    return pipeline.feed(
        dataset,
        split,
        batch_size,
        shuffle=shuffle,
        seed=seed,
        flip=flip,
        epochs=epochs,
        indices=indices,
    )


def _find(directory: str) -> list[str]:
    """The image files below a directory, sorted by their path inside it."""
    if not os.path.isdir(directory):
        problem = "not a directory" if os.path.exists(directory) else "no such directory"
        raise ValueError(f"directory: {problem}: {directory!r}; {_WHAT_WOULD_DO}")

    def refuse(error: OSError):
        raise ValueError(
            f"directory: cannot read {error.filename!r} ({error.strerror}); {_WHAT_WOULD_DO}"
        ) from error

    found = []
    for parent, directories, names in os.walk(directory, onerror=refuse):
        # Hidden ones are thumbnails, notebook checkpoints and macOS' "._name.jpg" companions.
        directories[:] = [name for name in directories if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in names
            if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a dangling link: reading it says so
        return 0, 0
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)
def _read_all(directory: str, files: tuple[tuple[str, int, int], ...], size: int) -> np.ndarray:
    """The readable images of a directory, uint8 [N, size, size, 3], in the order of `files`."""
    paths = [path for path, *_ in files]
    # Pillow decodes outside Python's lock, so threads do share the work.
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda path: _try_read(path, size), paths))
    images = [image for image in results if isinstance(image, np.ndarray)]
    skipped = [
        f"{path} ({reason})"
        for path, reason in zip(paths, results, strict=True)
        if isinstance(reason, str)
    ]
    summary = f"skipped {len(skipped)} of {len(paths)} images that could not be read: "
    summary += ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
    if len(images) < 3:
        raise ValueError(
            f"directory: {directory!r} holds {len(images)} readable images, and train, validation "
            "and test need at least 3" + (f"; {summary}" if skipped else "")
        )
    if skipped:
        warnings.warn(summary, stacklevel=3)
    return np.stack(images)


def _try_read(path: str, size: int) -> np.ndarray | str:
    """The image, or the reason why it could not be read."""
    from PIL import UnidentifiedImageError

    try:
        return _read(path, size)
    except UnidentifiedImageError:
        return "not a PNG or JPEG file"
    except Exception as error:  # Pillow raises a dozen types, down to struct.error, on bad files
        return " ".join(str(error).split()) or type(error).__name__


def _read(path: str, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    # Of the formats named: Pillow would run Ghostscript on an EPS file that is called .png.
    with Image.open(path, formats=("PNG", "JPEG")) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))

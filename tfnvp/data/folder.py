"""A directory of the user's own PNG and JPEG files."""

import functools
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import numpy as np
import tensorflow as tf

from tfnvp.checks import check_choice, check_positive_int
from tfnvp.data import image_files, pipeline

_SUFFIXES = (".png", ".jpg", ".jpeg")
# These are pictures too, which somebody may miss, and not notes or sums that lie about.
_OTHER_SUFFIXES = (".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe")
_OTHER_SUFFIXES += (".jxl", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_REMEDY = "give a directory that holds PNG or JPEG files, at any depth"


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
    hidden files and directories are passed over, and links to directories are not followed. Each
    file becomes an image as by `tfnvp.data.read_images`: turned by EXIF, laid on white, cut to its
    central square and averaged over areas to `image_size` x `image_size`.

    Of the readable images, in an order that depends on their number alone and is applied to
    their sorted paths, 10% (at least one) validate, 10% (at least one) test and the rest train.

    All images are decoded at the first call and kept in memory as uint8, `3 * image_size**2`
    bytes each; calls for the other splits use them again for as long as the files are unchanged.

    Args:
        image_size: height and width of the images, in pixels.
        split, batch_size, shuffle, seed, flip, epochs, indices: see `tfnvp.data.load`.

    Returns:
        A `tf.data.Dataset` of known cardinality, of uint8 [image_size, image_size, 3], or
        [B, image_size, image_size, 3] with a batch size; 256 levels.

    Raises:
        ValueError: if an argument is not one that is described here, the directory cannot be
            read or holds no PNG or JPEG file, or fewer than 3 of them are readable.

    Warns:
        UserWarning: once, if some of the files could not be read: how many and, for up to five
            of them, which and why. Once, if there are pictures of other suffixes, such as .webp:
            how many of each.

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
    # The cache takes a directory for another one when the times or sizes of its files change.
    found, passed_over = find_pictures(directory)
    files = tuple((path, *_stamp(path)) for path in found)
    images = _read_all(directory, files, passed_over, int(image_size))
    held_out = max(1, round(len(images) / 10))
    order = np.random.RandomState(0).permutation(len(images))
    validation, test, train = np.split(order, [held_out, 2 * held_out])
    rows = {"train": train, "validation": validation, "test": test}[split]
    dataset = tf.data.Dataset.from_tensor_slices(images[rows])
    return pipeline.feed(dataset, split, batch_size, None, shuffle, seed, flip, epochs, indices)


def find_pictures(directory: str) -> tuple[list[str], str]:
    """Lists the PNG and JPEG files below a directory, sorted by their path inside it.

    Returns:
        The files, and a text of which other pictures are there: how many of each suffix.

    Raises:
        ValueError: if the directory cannot be read or holds no PNG or JPEG file.
    """
    if not os.path.isdir(directory):
        problem = "not a directory" if os.path.exists(directory) else "no such directory"
        raise ValueError(f"directory: {problem}: {directory!r}; {_REMEDY}")

    def refuse(error: OSError) -> NoReturn:
        problem = f"cannot read {error.filename!r} ({error.strerror})"
        raise ValueError(f"directory: {problem}; {_REMEDY}") from error

    found, others = [], Counter()
    for parent, directories, names in os.walk(directory, onerror=refuse):
        # Hidden files are thumbnails, notebook checkpoints and macOS' "._name.jpg" companions.
        directories[:] = [name for name in directories if not name.startswith(".")]
        shown = [name for name in names if not name.startswith(".")]
        found += [os.path.join(parent, n) for n in shown if n.lower().endswith(_SUFFIXES)]
        suffixes = [os.path.splitext(name)[1].lower() for name in shown]
        others.update(suffix for suffix in suffixes if suffix in _OTHER_SUFFIXES)
    passed_over = ", ".join(f"{n} {suffix}" for suffix, n in sorted(others.items()))
    if not found:
        but = f", but {passed_over}" if others else ""
        raise ValueError(f"directory: no PNG or JPEG file in {directory!r}{but}; {_REMEDY}")
    return sorted(found), passed_over


def warn_of(passed_over: str, directory: str, stacklevel: int) -> None:
    """Warns of the other pictures that `find_pictures` found, if there are any."""
    if passed_over:
        told = f"passed over {passed_over} in {directory}: PNG and JPEG files are read"
        warnings.warn(told, stacklevel=stacklevel + 1)


def _stamp(path: str) -> tuple[int, int]:
    """When a file was changed, in nanoseconds, and its size in bytes."""
    try:
        status = os.stat(path)
    except OSError:  # The link dangles, and reading it will say so.
        return 0, 0
    return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)
def _read_all(
    directory: str, files: tuple[tuple[str, int, int], ...], passed_over: str, size: int
) -> np.ndarray:
    """The readable images of a directory, uint8 [N, size, size, 3], in the order of `files`.

    What was passed over is told here, where it is told once.
    """
    images, skipped = read_readable([path for path, *_ in files], (size, size, 3))
    if len(images) < 3:
        raise ValueError(
            f"directory: {directory!r} holds {len(images)} readable images, and train, validation "
            "and test need at least 3" + (f"; {skipped}" if skipped else "")
        )
    if skipped:
        warnings.warn(skipped, stacklevel=3)
    warn_of(passed_over, directory, stacklevel=3)
    return np.stack(list(images.values()))


def read_readable(
    paths: list[str], image_shape: tuple[int, int, int]
) -> tuple[dict[str, np.ndarray], str]:
    """Reads the files that can be read.

    Returns:
        The images by path, uint8 of 256 levels; and a text of which files were skipped, and why,
        empty where none was.
    """

    def read(path: str) -> np.ndarray | str:
        try:
            return image_files.read(path, image_shape)
        except image_files.ImageFileError as error:
            return f"{path} ({error.reason})"

    # Pillow decodes outside Python's lock, so threads do share the work.
    with ThreadPoolExecutor() as pool:
        results = dict(zip(paths, pool.map(read, paths), strict=True))
    images = {path: result for path, result in results.items() if isinstance(result, np.ndarray)}
    skipped = [result for result in results.values() if isinstance(result, str)]
    if not skipped:
        return images, ""
    summary = f"skipped {len(skipped)} of {len(paths)} images that could not be read: "
    return images, summary + ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")

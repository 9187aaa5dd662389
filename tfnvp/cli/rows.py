"""The rows that a command reads and writes: images or vectors, and the labels that go with them."""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tfnvp import atomic_file, data, plotting
from tfnvp.checks import check_choice, one_line
from tfnvp.cli.loading import Flow, is_of_images
from tfnvp.columns import check_finite
from tfnvp.data.csv_table import read_csv
from tfnvp.data.folder import find_pictures, read_readable, warn_of
from tfnvp.data.image_files import in_levels

DEFAULT_SPLIT = "test"


def read(
    flow: Flow,
    paths: Sequence[Path] | None = None,
    dataset: str | None = None,
    split: str | None = None,
    n: int | None = None,
    default_n: int = -1,
) -> tuple[list[str], np.ndarray]:
    """Reads the rows that a model is to see: from files, or the first n of a data set's split.

    A directory stands for the PNG and JPEG files that it holds, at any depth. None for the split
    and n is the test split and `default_n` rows, of which -1 is all.

    Returns:
        A name for each row, and the rows: uint8 [N, H, W, C] of levels, or float32 [N, D].

    Raises:
        ValueError: unless one of `paths` and `dataset` is given and fits the model; for a split or
            n beside files.
    """
    if bool(paths) == bool(dataset):
        raise ValueError("give files or --dataset, one of them")
    if dataset:
        check_set(flow, dataset)
        split = split or DEFAULT_SPLIT
        images = data.load(dataset, split, shuffle=False).take(n or default_n)
        x = np.concatenate(list(images.batch(100)))
        return [f"{dataset}/{split}/{i}" for i in range(len(x))], x
    for option, value in {"--split": split, "-n": n}.items():
        if value is not None:
            raise ValueError(f"{option} is for --dataset, and files are read whole; got {value}")
    if is_of_images(flow):
        # A file may be named twice.
        read = [item for path in paths for item in _pictures(path, flow.image_shape).items()]
        names, images = zip(*read, strict=True)
        return list(names), in_levels(np.stack(images), flow.levels)
    vectors = [_read_vectors(path, flow.event_size) for path in paths]
    names = [f"{path}/{i}" for path, x in zip(paths, vectors, strict=True) for i in range(len(x))]
    return names, np.concatenate(vectors)


def _pictures(path: Path, image_shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Reads the file that a path names, or the PNG and JPEG files below a directory, by name.

    A file that is named must be readable; of a directory the others are passed over, and told.
    """
    if not path.is_dir():
        return {str(path): data.read_images([path], image_shape)[0]}
    found, passed_over = find_pictures(str(path))
    warn_of(passed_over, str(path), stacklevel=2)
    images, skipped = read_readable(found, image_shape)
    if not images:
        raise ValueError(f"{path} holds no picture that can be read: {skipped}")
    if skipped:
        warnings.warn(skipped, stacklevel=2)
    return images


def _read_vectors(path: Path, size: int) -> np.ndarray:
    """Reads vectors [N, size], or one [size], from a .csv, .npy or one-array .npz file."""
    if path.suffix.lower() not in (".csv", ".npy", ".npz"):
        raise ValueError(f"vectors are read from .csv, .npy and .npz files, got {path}")
    x = read_csv(path)[1] if path.suffix.lower() == ".csv" else _read_array(path)
    if x.shape[-1:] != (size,) or x.ndim > 2 or not len(x):
        raise ValueError(f"{path} must hold vectors [N, {size}], got {x.shape}")
    with np.errstate(over="ignore"):
        x = x.reshape(-1, size).astype("float32")
    check_finite(x, what=path)
    return x


def _read_array(path: Path) -> np.ndarray:
    """Reads numbers from a .npy file or a .npz file of one array."""
    try:
        # The file is mapped, so that it is not read before its size is found to fit its header.
        x = np.load(path, mmap_mode="r")
        names = x.files if isinstance(x, np.lib.npyio.NpzFile) else None
        if names is not None and len(names) == 1:
            x = x[names[0]]
    # NumPy, zipfile and zlib raise many types of error for damaged files.
    except Exception as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ValueError(f"{path} cannot be read: {reason}") from error
    if names is not None and len(names) != 1:
        raise ValueError(f"{path} must hold one array, got {', '.join(names) or 'none'}")
    if not isinstance(x, np.ndarray):
        raise ValueError(f"{path} must hold an array, and {names[0]} in it is none")
    if x.dtype.kind not in "fiub":
        raise ValueError(f"{path} must hold numbers, got {x.dtype}")
    return x


def check_set(flow: Flow, dataset: str) -> None:
    """Raises a ValueError for a set whose rows are not of the model's kind, shape and levels."""
    info, kinds = data.info(dataset), ("vectors", "images")
    of_set, of_model = kinds[len(info.image_shape) == 3], kinds[is_of_images(flow)]
    if of_set != of_model:
        raise ValueError(f"--dataset {dataset} is of {of_set}, this is a model of {of_model}")
    if is_of_images(flow) and (info.image_shape, info.levels) != (flow.image_shape, flow.levels):
        raise ValueError(
            f"--dataset {dataset} has images {info.image_shape} of {info.levels} levels, this is a "
            f"model of images {flow.image_shape} of {flow.levels} levels"
        )


def labels_in_turn(labels: str | None, n: int) -> np.ndarray | None:
    """The classes that an option --labels names, one for each of n rows; None for no option."""
    return None if labels is None else np.resize(classes(labels), n)


def classes(labels: str) -> list[int]:
    """The classes that an option --labels names."""
    parts = labels.split(",")
    # An integer of more digits is no class, and no integer of TensorFlow holds it.
    if not all(re.fullmatch(" *-?[0-9]{1,9} *", part) for part in parts):
        wanted = "integers of up to 9 digits with commas between"
        raise ValueError(f"--labels must be {wanted}, got {labels}")
    return [int(part) for part in parts]


def check_to(
    to: Path,
    force: bool,
    flow: Flow | None = None,
    suffixes: Sequence[str] = (".png", ".npy", ".npz"),
) -> None:
    """Raises a ValueError unless an array, or the rows of a model, can be written to a file.

    A file that is there already is replaced by force alone.
    """
    check_choice(f"suffix of {to}:", to.suffix.lower(), suffixes)
    if not to.parent.is_dir():
        raise ValueError(f"no such directory: {to.parent}")
    if to.is_dir() and not to.is_symlink():
        raise ValueError(f"--to must be a file, and {to} is a directory")
    if os.path.lexists(to) and not force:
        raise ValueError(f"{to} is there already: --force replaces it")
    if flow and not is_of_images(flow) and to.suffix.lower() == ".png":
        raise ValueError(f"--to must be a .npy or .npz file for vectors, got {to}")


def write(to: Path, flow: Flow, rows: ArrayLike, columns: int | None = None) -> None:
    """Writes vectors, or images, which a PNG has in a number of columns."""
    rows = np.asarray(rows, "float32")
    if is_of_images(flow):
        rows = np.clip(rows, 0, 1)
    write_array(to, rows, lambda: plotting.image_grid(rows, columns))


def write_array(to: Path, array: np.ndarray, picture: Callable[[], Any]) -> None:
    """Writes an array as .npy, as .npz under the name `array`, or its picture as .png.

    The picture is a function, which gives an image [H, W, 3] or a matplotlib figure.
    """
    suffix = to.suffix.lower()
    if suffix == ".png":
        drawn = picture()
        plotting.save_png(drawn if isinstance(drawn, np.ndarray) else plotting.pixels(drawn), to)
        return
    # An open file keeps its name: numpy would add .npy to a path that ends with .NPY.
    with atomic_file.writing(to) as written, written.open("wb") as file:
        if suffix == ".npy":
            np.save(file, array)
        else:
            np.savez_compressed(file, array=array)

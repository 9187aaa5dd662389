"""The parts of the command `score` that tell how unusual pictures are, and show where."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfnvp import anomaly, data, plotting
from tfnvp.cli import loading, rows
from tfnvp.cli.loading import Flow
from tfnvp.data.csv_table import write_csv

# The p-values of so many images go down to a thousandth.
HELD_OUT = 1000


def check(flow: Flow, held_out: str, **rows_of_set: object) -> None:
    """Raises a ValueError unless images can be scored beside those of a data set, held out.

    Args:
        held_out: the name of the data set.
        **rows_of_set: the options that choose rows of a data set that is scored, which do nothing
            here.
    """
    loading.check_can(flow, "score of files beside --dataset")
    rows.check_set(flow, held_out)
    for option, value in rows_of_set.items():
        if value is not None:
            raise ValueError(
                f"{option} is for a --dataset that is scored: beside files, {HELD_OUT} of its "
                f"validation images are held out; got {value}"
            )


def check_directory(flow: Flow, held_out: Path, **options: object) -> None:
    """Raises a ValueError unless images can be scored beside those of a directory.

    Args:
        held_out: the directory.
        **options: those that cannot stand beside it.
    """
    loading.check_can(flow, "score of files beside --held-out")
    if not held_out.is_dir():
        raise ValueError(f"--held-out must be a directory of pictures, got {held_out}")
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option} cannot stand beside --held-out; got {value}")


def of_set(held_out: str, labelled: bool) -> tuple:
    """Reads a data set's images to hold out, and their labels where these are asked for."""
    # Images that are stored side by side may be alike, and stand for the others badly.
    images = data.load(held_out, "validation", shuffle=True, seed=0, labels=labelled)
    known = next(iter(images.take(HELD_OUT).batch(HELD_OUT)))
    return known if labelled else (known,)


def beside(flow: Flow, known: tuple, x: np.ndarray, y: np.ndarray | None) -> dict[str, np.ndarray]:
    """Scores images [N, H, W, C] beside those held out; then come their p-values.

    Both may have labels.
    """
    detector = anomaly.Detector(flow, *known)
    scores = detector.scores(x, y)
    p_values = detector.calibrated(scores)
    return scores | {f"p_{name}": values for name, values in p_values.items()}


def write_scores(to: Path, names: Sequence[str], figures: Mapping[str, np.ndarray]) -> None:
    """Writes a .csv of images: their names, and the figures [N] of each."""
    # A float32 has no more significant digits than these.
    columns = [np.asarray(column, "float64").round(5).tolist() for column in figures.values()]
    write_csv(to, ["input", *figures], zip(names, *columns, strict=True))


def write_sheet(
    to: Path, flow: Flow, names: Sequence[str], x: np.ndarray, y: np.ndarray | None
) -> None:
    """Writes a .png of images [N, H, W, C], each beside the map of where it is unlikely."""
    maps = anomaly.latent_map(flow, x, y)
    # There is room for the end of a name, some of whose bytes may be no text.
    ends = [Path(name).name[-18:].encode(errors="replace").decode() for name in names]
    labels = [f"{i}: {end}" for i, end in enumerate(ends, 1)]
    figure = plotting.beside_maps(x / (flow.levels - 1), maps, labels)
    plotting.save_png(plotting.pixels(figure), to)

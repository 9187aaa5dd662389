"""The commands `evaluate` and `score`: how likely data is, as a whole and row by row."""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer

from tfnvp import data, metrics, plotting
from tfnvp.cli import loading, rows, terminal, unusual
from tfnvp.cli.options import Dataset, Force, Inputs, Json, Labels, Model, Split
from tfnvp.data.csv_table import read_csv, write_csv


def evaluate(
    model: Model,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = None,
    labels: Labels = None,
    batch_size: Annotated[int, typer.Option(min=1, help="rows scored at once")] = 100,
    samples: Annotated[int, typer.Option(min=1, help="of noise, for a tighter bound")] = 1,
    as_json: Json = False,
) -> None:
    """Prints the bits per dimension of a data set, with the standard error of the mean.

    For images they are a bound, by uniform dequantization; with --samples K a second line has the
    tighter, importance-weighted bound of K samples of noise for each image. For vectors nats come
    first. A model with classes is given the labels of the data set: the figures are of p(x | y).

    Example: tfnvp evaluate runs/mine/model.keras --dataset digits --samples 16
    """
    flow = loading.load(model)
    kind = "images" if loading.is_of_images(flow) else "vectors"
    if samples > 1:
        loading.check_can(flow, "evaluate --samples")
    if inputs or not dataset:
        _, x = rows.read(flow, inputs, dataset, split)
        batches = _batches(x, rows.labels_in_turn(labels, len(x)), batch_size)
    else:
        if labels is not None:
            raise ValueError("--labels is for files: a data set has labels of its own")
        rows.check_set(flow, dataset)
        split = split or rows.DEFAULT_SPLIT
        classes = loading.has_classes(flow)
        batches = data.load(dataset, split, batch_size, shuffle=False, labels=classes)
        batches = batches.map(lambda *batch: batch)
    name = f"{dataset} {split}" if dataset else "inputs"
    for count in sorted({1, samples}):
        options = {"samples": count} if count > 1 else {}
        with terminal.progress(batches, name) as progress:
            log_prob = np.concatenate([flow.log_prob(*batch, **options) for batch in progress])
        bits = metrics.bits_per_dim(log_prob, flow.event_size, flow.levels)
        if as_json:
            figures = {"dataset": dataset, "split": split} if dataset else {}
            figures |= {"log_prob": float(log_prob.mean()), "bits_per_dim": float(bits.mean())}
            figures |= {"standard_error": _standard_error(bits), kind: len(bits), "samples": count}
            terminal.print_json(figures)
            continue
        figures = [f"{_with_error(bits)} bits/dim", f"{len(bits)} {kind}"]
        if kind == "vectors":
            figures.insert(0, f"{_with_error(log_prob)} nats")
        if count > 1:
            figures.append(f"importance-weighted, {count} samples")
        print(f"{name}: {', '.join(figures)}")


def _batches(x: np.ndarray, y: np.ndarray | None, size: int) -> tf.data.Dataset:
    """Batches (x,), or (x, y) with labels: the arguments of `log_prob`."""
    return tf.data.Dataset.from_tensor_slices((x,) if y is None else (x, y)).batch(size)


def _with_error(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values.mean():.4f}"
    return f"{values.mean():.4f} +- {_standard_error(values):.4f}"


def _standard_error(values: np.ndarray) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


_DECIMALS = {"log_prob": 3, "unusualness": 3, "score_norm": 3}  # All others have four.
# The first of these that there is, is what --top goes by.
_RANKS = ("unusualness", "joint", "bits_per_dim")


def score(
    model: Model,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = None,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="rows of the data set", show_default="100")
    ] = None,
    labels: Labels = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY", help="pictures like the training's, and new to the model"
        ),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="a .png histogram, .npy or .npz of bits/dim, or, for images and .csv tables, a "
            ".csv of the rows with their scores; with --top, a .png of images and their maps"
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="only so many rows, the most unusual first")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Prints the log-likelihood (nats) and the bits per dimension of each image or vector.

    The last line has the means; with --json or --top there is a line a row alone. The .keras file
    of a table's density has a third figure for each row, its unusualness (docs/vectors.md), by
    which --top goes; all other models have it go by log p.

    Images, in files or directories, may stand beside --dataset, a set as that of the training, or
    --held-out: they have the scores of docs/anomalies.md, too, then the p-value of each among 1,000
    of the set's validation images, or all pictures that the directory holds, and --top goes by the
    score joint. Of images, --top --to sheet.png draws them
    beside maps of where they are unlikely, and leaves sheet.csv beside it.

    Example: tfnvp score digits --dataset digits -n 5
    """
    suffix = to.suffix.lower() if to is not None else None
    if to is not None:
        rows.check_to(to, force, suffixes=(".png", ".npy", ".npz", ".csv"))
    flow = loading.load(model)
    of_images = loading.is_of_images(flow)
    one_table = not dataset and [path.suffix.lower() for path in inputs or []] == [".csv"]
    if suffix == ".csv" and not (of_images or one_table):
        raise ValueError(f"--to {to} needs one input, a .csv file")
    sheet = suffix == ".png" and top is not None and of_images
    if sheet:
        loading.check_can(flow, "score --top --to sheet.png")
        rows.check_to(to.with_suffix(".csv"), force, suffixes=(".csv",))
    beside, scored = (dataset, None) if inputs and dataset and of_images else (None, dataset)
    if held_out:
        unusual.check_directory(flow, held_out, **{"--dataset": dataset, "--labels": labels})
    elif beside:
        unusual.check(flow, beside, **{"--split": split, "-n": n})
    with terminal.status("scoring"):
        names, x = rows.read(flow, inputs, scored, split, n, default_n=100)
        y = rows.labels_in_turn(labels, len(x))
        # Images held out are read first, for they may be refused, and scoring takes a while.
        known = ()
        if held_out:
            known = rows.read(flow, [held_out])[1:]
        elif beside:
            known = unusual.of_set(beside, y is not None)
        batches = _batches(x, y, 100)
        log_prob = np.concatenate([flow.log_prob(*batch) for batch in batches])
        bits = metrics.bits_per_dim(log_prob, flow.event_size, flow.levels)
        figures = {"log_prob": log_prob, "bits_per_dim": bits}
        if loading.is_of_tables(flow):
            figures["unusualness"] = np.concatenate([flow.unusualness(x) for (x,) in batches])
        if known:
            figures |= unusual.beside(flow, known, x, y)
    rank = next(figures[name] for name in _RANKS if name in figures)
    # A row that has no density at all is the most unusual.
    order = np.argsort(-np.nan_to_num(rank, nan=np.inf), kind="stable")
    shown = np.arange(len(x)) if top is None else order[:top]
    written = [names[i] for i in shown], {name: figures[name][shown] for name in figures}
    if sheet:
        unusual.write_sheet(to, flow, written[0], x[shown], None if y is None else y[shown])
        unusual.write_scores(to.with_suffix(".csv"), *written)
    elif suffix == ".csv" and of_images:
        unusual.write_scores(to, *written)
    elif suffix == ".csv":
        columns, values = read_csv(inputs[0])
        kept = {name: figures[name] for name in figures if name != "bits_per_dim"}
        # A float32 has no more significant digits than these.
        scores = [column.astype("float64").round(5) for column in kept.values()]
        write_csv(to, [*columns, *kept], np.column_stack([values, *scores])[shown].tolist())
    elif to is not None:
        label = f"{scored} {split or rows.DEFAULT_SPLIT}" if scored else "inputs"
        rows.write_array(to, bits[shown], lambda: plotting.bits_histogram({label: bits[shown]}))
    if as_json:
        for i in shown:
            row = {name: float(column[i]) for name, column in figures.items()}
            terminal.print_json({"input": names[i], **row})
    elif sheet:
        print(to, to.with_suffix(".csv"), sep="\n")
    elif suffix != ".csv":  # The file says it all.
        for i in shown:
            print(names[i], *_texts({name: figures[name][i] for name in figures}), sep="\t")
        if len(bits) > 1 and top is None:
            means = {name: column.mean() for name, column in figures.items()}
            print(f"mean of {len(bits)}", *_texts(means), sep="\t")


def _texts(figures: dict[str, float]) -> list[str]:
    """Gives figures as they are printed."""
    return [f"{value:.{_DECIMALS.get(name, 4)}f}" for name, value in figures.items()]

"""The commands `evaluate` and `score`: how likely data is, as a whole and row by row."""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer

from tfnvp import data, metrics, plotting
from tfnvp.cli import loading, rows, terminal
from tfnvp.cli.options import Dataset, Force, Inputs, Json, Labels, Model, Split
from tfnvp.data.csv_table import read_csv, write_csv


def evaluate(
    model: Model,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = None,
    labels: Labels = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
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


_SHOWN = {"log_prob": "{:.3f}", "bits_per_dim": "{:.4f}", "unusualness": "{:.3f}"}


def score(
    model: Model,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = None,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="rows of the data set [default: 100]")
    ] = None,
    labels: Labels = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="a .png histogram, .npy or .npz of bits/dim, or, for a .csv table, a .csv of its "
            "rows with their scores beside them"
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

    Example: tfnvp score digits --dataset digits -n 5
    """
    table = to is not None and to.suffix.lower() == ".csv"
    if table and (dataset or len(inputs or []) != 1 or inputs[0].suffix.lower() != ".csv"):
        raise ValueError(f"--to {to} needs one input, a .csv file")
    if to is not None:
        rows.check_to(to, force, suffixes=(".png", ".npy", ".npz", ".csv"))
    flow = loading.load(model)
    with terminal.status("scoring"):
        names, x = rows.read(flow, inputs, dataset, split, n, default_n=100)
        batches = _batches(x, rows.labels_in_turn(labels, len(x)), 100)
        log_prob = np.concatenate([flow.log_prob(*batch) for batch in batches])
        bits = metrics.bits_per_dim(log_prob, flow.event_size, flow.levels)
        figures = {"log_prob": log_prob, "bits_per_dim": bits}
        if loading.is_of_tables(flow):
            figures["unusualness"] = np.concatenate([flow.unusualness(x) for (x,) in batches])
    order = np.argsort(-figures.get("unusualness", -log_prob), kind="stable")
    shown = np.arange(len(x)) if top is None else order[:top]
    if table:
        columns, values = read_csv(inputs[0])
        written = {name: figures[name] for name in figures if name != "bits_per_dim"}
        # A float32 has no more significant digits than these.
        scores = [column.astype("float64").round(5) for column in written.values()]
        write_csv(to, [*columns, *written], np.column_stack([values, *scores])[shown])
    elif to is not None:
        label = f"{dataset} {split or rows.DEFAULT_SPLIT}" if dataset else "inputs"
        rows.write_array(to, bits[shown], lambda: plotting.bits_histogram({label: bits[shown]}))
    if table and not as_json:  # The file says it all.
        return
    for i in shown:
        row = {name: float(column[i]) for name, column in figures.items()}
        if as_json:
            terminal.print_json({"input": names[i], **row})
        else:
            print(names[i], *(_SHOWN[name].format(row[name]) for name in row), sep="\t")
    if len(bits) > 1 and top is None and not as_json:
        means = [_SHOWN[name].format(column.mean()) for name, column in figures.items()]
        print(f"mean of {len(bits)}", *means, sep="\t")

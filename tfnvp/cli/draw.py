"""The commands that draw: `sample`, `interpolate`, `extrapolate` and `reconstruct`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import typer

from tfnvp import latent
from tfnvp.cli import loading, rows, terminal
from tfnvp.cli.options import (
    Dataset,
    Force,
    Inputs,
    Json,
    Labels,
    Model,
    Seed,
    SeedOrNone,
    Split,
    Temperature,
    To,
)


def sample(
    model: Model,
    to: To,
    force: Force = False,
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 64,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    labels: Labels = None,
) -> None:
    """Draws samples, as a grid in a PNG or as an array [N, H, W, C] in [0, 1].

    A model of vectors gives an array [N, D].

    Example: tfnvp sample digits --to samples.png
    """
    flow = loading.load(model)
    rows.check_to(to, force, flow)
    with terminal.status(f"drawing {n} samples"):
        y = rows.labels_in_turn(labels, n)
        drawn = flow.sample(n, y, temperature=temperature, seed=seed)
    rows.write(to, flow, drawn)
    print(to)


def interpolate(
    model: Model,
    to: To,
    force: Force = False,
    images: Annotated[
        tuple[Path, Path, Path, Path] | None,
        typer.Option(
            metavar="A B C D",
            help="the corners, or files of one vector each",
            show_default="four samples",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="images a row, and a column")] = 8,
    full_circle: Annotated[
        bool, typer.Option("--full-circle", help="angles from 0 to 2 pi, as in the paper's figure")
    ] = False,
    seed: SeedOrNone = None,
    labels: Annotated[
        str | None, typer.Option(metavar="Y", help="a class, one for all", show_default="p(x)")
    ] = None,
) -> None:
    """Draws the paper's manifold of latents through four images, or four vectors.

    Example: tfnvp interpolate digits --to sphere.png
    """
    flow = loading.load(model)
    rows.check_to(to, force, flow)
    if labels is not None and len(rows.classes(labels)) > 1:
        raise ValueError(f"--labels of interpolate is one class for all, got {labels}")
    if images and seed is not None:
        raise ValueError(f"--seed is for corners that are drawn, not for --images; got {seed}")
    y = rows.labels_in_turn(labels, 4)
    with terminal.status("interpolating"):
        corners = rows.read(flow, images)[1] if images else flow.sample(4, y, seed=seed or 0)
        if (n := len(corners)) != 4:
            raise ValueError(f"--images must be files of one vector each, got {n} in all")
        z = latent.interpolate(*flow.encode(corners, y), steps=steps, full_circle=full_circle)
        z = tf.reshape(z, [-1, *z.shape[2:]])
        drawn = flow.decode(z, rows.labels_in_turn(labels, len(z)))
    rows.write(to, flow, drawn, columns=steps)
    print(to)


def extrapolate(
    model: Model,
    to: To,
    force: Force = False,
    times: Annotated[int, typer.Option(min=1, help="height and width, of the trained ones")] = 2,
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 16,
    temperature: Temperature = 1.0,
    seed: Seed = 0,
    labels: Labels = None,
    as_json: Json = False,
) -> None:
    """Draws images larger than those of training, from the same weights.

    Prints the mean and the variance of each channel's pixels, beside those of as many pixels of
    samples at the trained size.

    Example: tfnvp extrapolate digits --to large.png --times 10 -n 4
    """
    flow = loading.load(model)
    loading.check_can(flow, "extrapolate")
    rows.check_to(to, force, flow)
    height, width, channels = flow.image_shape
    shape = (times * height, times * width, channels)
    with terminal.status(f"drawing {n} images of {shape[0]} x {shape[1]}"):
        options = {"temperature": temperature, "seed": seed}
        y = rows.labels_in_turn(labels, n * times**2)
        usual = flow.sample(n * times**2, y, **options)
        large = flow.sample(n, rows.labels_in_turn(labels, n), image_shape=shape, **options)
    rows.write(to, flow, large)
    figures = {}
    for x in (usual, large):
        moments = {"mean": np.mean(x, axis=(0, 1, 2)), "variance": np.var(x, axis=(0, 1, 2))}
        figures[f"{x.shape[1]}x{x.shape[2]}"] = {k: v.tolist() for k, v in moments.items()}
    if as_json:
        terminal.print_json({"to": str(to), **figures})
        return
    for size, moments in figures.items():
        values = {k: " ".join(f"{value:.4f}" for value in v) for k, v in moments.items()}
        print(f"{size}: mean {values['mean']}, variance {values['variance']}")
    print(to)


def reconstruct(
    model: Model,
    to: To,
    force: Force = False,
    inputs: Inputs = None,
    dataset: Dataset = None,
    split: Split = None,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="rows of the data set", show_default="8")
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="also with finer scales drawn anew, fewer kept each")
    ] = False,
    seed: SeedOrNone = None,
    labels: Labels = None,
) -> None:
    """Encodes and decodes images or vectors: a row has one and its reconstruction.

    With --resample the row of an image goes on, one scale of latents fewer kept from image to image
    and the rest drawn anew, to none: the paper's conceptual compression. Prints the largest error
    of the reconstructions.

    Example: tfnvp reconstruct digits --to rows.png --dataset digits --resample
    """
    flow = loading.load(model)
    rows.check_to(to, force, flow)
    if resample:
        loading.check_can(flow, "reconstruct --resample")
    elif seed is not None:
        raise ValueError(f"--seed is for --resample: nothing else is drawn; got {seed}")
    with terminal.status("reconstructing"):
        _, x = rows.read(flow, inputs, dataset, split, n, default_n=8)
        y = rows.labels_in_turn(labels, len(x))
        originals, decoded = x, flow.decode(flow.encode(x, y), y)
        if loading.is_of_images(flow):
            originals, decoded = (x + 0.5) / flow.levels, np.clip(decoded, 0, 1)
        columns = [originals, decoded]
        if resample:
            for keep in reversed(range(flow.num_scales)):
                columns.append(latent.resample_scales(flow, x, keep, labels=y, seed=seed or 0))
        drawn = np.stack(columns, axis=1)
    rows.write(to, flow, drawn.reshape(-1, *drawn.shape[2:]), columns=len(columns))
    print(f"largest error: {np.abs(decoded - originals).max():.1e}")
    print(to)

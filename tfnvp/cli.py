"""The command `tfnvp`: evaluates, samples and exports trained models."""

import contextlib
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import typer

from tfnvp import data, plotting
from tfnvp.export import export_saved_model
from tfnvp.models import ImageRealNVP

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__
)
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="a .keras file")]


@app.command()
def evaluate(
    model: Model,
    dataset: Annotated[str, typer.Option(help=", ".join(data.names()))],
    split: Annotated[str, typer.Option(help="train, validation or test")] = "test",
    batch_size: Annotated[int, typer.Option(min=1)] = 100,
    samples: Annotated[int, typer.Option(min=1, help="of noise, for a tighter bound")] = 1,
):
    """Prints the bits per dimension of a data set, with the standard error of the mean.

    They are a bound, by uniform dequantization; with --samples K a second line has the tighter,
    importance-weighted bound of K samples of noise for each image.

    Example: tfnvp evaluate runs/mine/model.keras --dataset digits --samples 16
    """
    with _one_line_errors():
        flow = _load(model)
        images = data.load(dataset, split, batch_size, shuffle=False)
        for count in sorted({1, samples}):
            bits = np.concatenate([flow.bits_per_dim(batch, count) for batch in images])
            error = bits.std(ddof=1) / math.sqrt(len(bits)) if len(bits) > 1 else math.nan
            line = f"{dataset} {split}: {bits.mean():.4f} +- {error:.4f} bits/dim, "
            line += f"{len(bits)} images"
            print(line if count == 1 else f"{line}, importance-weighted, {count} samples")


@app.command()
def sample(
    model: Model,
    to: Annotated[Path, typer.Option(help="the PNG file to write")],
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="less is closer to the mean")] = 1.0,
    seed: Annotated[int, typer.Option(help="the same seed gives the same images")] = 0,
):
    """Draws a grid of samples.

    Example: tfnvp sample runs/mine/model.keras --to samples.png
    """
    with _one_line_errors():
        if to.suffix.lower() != ".png":
            raise ValueError(f"--to must name a .png file, got {to}")
        images = _load(model).sample(n, temperature=temperature, seed=seed)
        plotting.save_png(plotting.image_grid(images), to)
        print(to)


@app.command()
def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="directory of the SavedModel's versions")],
    signature: Annotated[
        list[str] | None, typer.Option(help="one to write, and again for others; all unless named")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH|any", help="other than the model's own")
    ] = None,
    bfloat16_weights: Annotated[
        bool, typer.Option("--bfloat16-weights", help="store kernels at half the size")
    ] = False,
):
    """Writes a SavedModel for TF Serving, as the next version under a directory.

    What card.json beside MODEL knows of it goes into the model card.

    Example: tfnvp export runs/mine/model.keras --to saved_models/mine
    """
    with _one_line_errors(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        card = model.with_name("card.json")
        exported = export_saved_model(
            _load(model),
            to,
            signature or None,
            _size(image_size),
            bfloat16_weights,
            json.loads(card.read_text()) if card.is_file() else None,
        )
        for warning in said:
            if "warm-up" in str(warning.message):
                print(f"tfnvp: {warning.message}", file=sys.stderr)
        print(exported)


def _size(text):
    if text is None or text == "any":
        return text
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--image-size must be HEIGHTxWIDTH or any, got {text}")
    return int(height), int(width)


def _load(path):
    if not path.is_file() or path.suffix != ".keras":
        raise ValueError(f"MODEL must be a .keras file that a training run left, got {path}")
    model = keras.models.load_model(path)
    if not isinstance(model, ImageRealNVP):
        raise ValueError(f"MODEL must hold an ImageRealNVP, {path} holds {type(model).__name__}")
    return model


@contextlib.contextmanager
def _one_line_errors():
    """What a user can mend is told in one line, with exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"tfnvp: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def main():
    """The entry point of the installed command."""
    app(prog_name="tfnvp")

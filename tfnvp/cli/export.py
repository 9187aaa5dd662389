"""The command `export`: from a model to a SavedModel for TF Serving."""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from tfnvp.cli import loading
from tfnvp.cli.options import Model
from tfnvp.models import presets
from tfnvp.serving import export_saved_model


def export(
    model: Model,
    to: Annotated[Path, typer.Option(help="directory of the SavedModel's versions")],
    signature: Annotated[
        list[str] | None, typer.Option(help="one to write, and again for others; all unless named")
    ] = None,
    image_size: Annotated[
        str | None, typer.Option(metavar="HEIGHTxWIDTH|any", help="other than the model's own")
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(min=1, help="of an image of any size", show_default="4000000"),
    ] = None,
    bfloat16_weights: Annotated[
        bool, typer.Option("--bfloat16-weights", help="store kernels at half the size")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="one bad row fails a request, and there is no `error`")
    ] = False,
) -> None:
    """Writes a SavedModel for TF Serving, as the next version under a directory.

    The model card takes in what card.json beside MODEL says.

    Example: tfnvp export runs/mine/model.keras --to saved_models/mine
    """
    if to.exists() and not to.is_dir():
        raise ValueError(f"--to must be the directory of the versions, and {to} is a file")
    flow = loading.load(model)
    loading.check_can(flow, "export", images=False)
    if model in presets.trained():
        card = presets.card(model)
    else:
        card = _card(Path(model).with_name("card.json"))
    size = _size(image_size)
    with warnings.catch_warnings():
        # TensorFlow and Keras warn of what a user cannot mend.
        warnings.simplefilter("ignore")
        exported = export_saved_model(
            flow, to, signature or None, size, bfloat16_weights, card, max_pixels, strict
        )
    print(exported)
    if size == "any":
        print(
            "images of several sizes cannot share a batch: serve without batching", file=sys.stderr
        )


def _card(path: Path) -> dict[str, Any] | None:
    """The facts that a file has about a model; None where there is no file."""
    if not path.is_file():
        return None
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(card).__name__}")
    return card


def _size(text: str | None) -> tuple[int, int] | str | None:
    """The image size that an option names: (height, width), "any", or None for the model's own."""
    if text is None or text == "any":
        return text
    size = re.fullmatch("([0-9]{1,9})x([0-9]{1,9})", text)
    if size is None:
        raise ValueError(f"--image-size must be HEIGHTxWIDTH or any, got {text}")
    return int(size[1]), int(size[2])

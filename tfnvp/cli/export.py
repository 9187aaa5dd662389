"""The command `export`: from a model to a SavedModel for TF Serving."""

import json
import warnings
from pathlib import Path
from typing import Annotated

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
    bfloat16_weights: Annotated[
        bool, typer.Option("--bfloat16-weights", help="store kernels at half the size")
    ] = False,
) -> None:
    """Writes a SavedModel for TF Serving, as the next version under a directory.

    The model card takes in what card.json beside MODEL says.

    Example: tfnvp export runs/mine/model.keras --to saved_models/mine
    """
    flow = loading.load(model)
    loading.check_can(flow, "export", images=False)
    if model in presets.trained():
        card = presets.card(model)
    else:
        beside = Path(model).with_name("card.json")
        card = json.loads(beside.read_text()) if beside.is_file() else None
    size = _size(image_size)
    with warnings.catch_warnings():
        # TensorFlow and Keras warn of what a user cannot mend; a missing extra is another matter.
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", "no warm-up requests")
        exported = export_saved_model(flow, to, signature or None, size, bfloat16_weights, card)
    print(exported)


def _size(text: str | None) -> tuple[int, int] | str | None:
    """The image size that an option names: (height, width), "any", or None for the model's own."""
    if text is None or text == "any":
        return text
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--image-size must be HEIGHTxWIDTH or any, got {text}")
    return int(height), int(width)

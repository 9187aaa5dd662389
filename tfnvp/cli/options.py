"""The arguments and options that several commands share."""

import math
from pathlib import Path
from typing import Annotated

import typer

from tfnvp import data


def _finite(temperature: float) -> float:
    if not 0 <= temperature < math.inf:
        raise ValueError(f"--temperature must be finite and 0 or more, got {temperature}")
    return temperature


Model = Annotated[str, typer.Argument(metavar="MODEL", help=".keras file, name or SavedModel")]
Inputs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="INPUT",
        help="PNG or JPEG images, directories of them, or .csv, .npy or .npz of vectors [N, D]",
    ),
]
Dataset = Annotated[str | None, typer.Option(help=f"one of {', '.join(data.names())}")]
Split = Annotated[
    str | None, typer.Option(help="of the data set: train, validation or test", show_default="test")
]
Labels = Annotated[
    str | None,
    typer.Option(metavar="Y,Y,..", help="classes, taken in turn: 3 or 0,1,2", show_default="p(x)"),
]
To = Annotated[Path, typer.Option(help="the .png, .npy or .npz file to write")]
Force = Annotated[bool, typer.Option("--force", help="replace the file that --to names")]
Seed = Annotated[int, typer.Option(help="the same seed gives the same images")]
SeedOrNone = Annotated[
    int | None, typer.Option(help="the same seed gives the same images", show_default="0")
]
Temperature = Annotated[
    float, typer.Option(callback=_finite, help="0 or more; less is closer to the mean")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]

"""Pictures, which figures give: an image file that notebooks show, and pages keep."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tfnvp import plotting

BLUE, ORANGE, GREY = "#2f6690", "#d9822b", "#8a8f98"
PALE = "#cfe0ee"


class Picture:
    """An image file, PNG or GIF.

    Args:
        data: the bytes of the file.
        kind: "png" or "gif".
    """

    def __init__(self, data: bytes, kind: str = "png") -> None:
        self.data = data
        self.kind = kind

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Gives notebooks the picture to show."""
        return {f"image/{self.kind}": base64.b64encode(self.data).decode()}


def panels(
    count: int, width: float = 3.2, height: float = 3.2, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """Makes a figure of panels of a size in inches, row by row."""
    columns = columns or count
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), dpi=100, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for one in axes[count:]:
        one.axis("off")
    return figure, axes[:count]


def png(figure: Figure) -> Picture:
    """Renders a figure; 256 colours make a file a third of the size."""
    return of_pixels(plotting.pixels(figure))


def of_pixels(pixels: np.ndarray) -> Picture:
    """Makes a PNG file of pixels, uint8 [H, W, 3]."""
    file = io.BytesIO()
    image = Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE)
    image.save(file, format="png", optimize=True)
    return Picture(file.getvalue())


def gif(figures: Sequence[Figure], seconds: float) -> Picture:
    """Renders figures of one size as an endless film, a figure after the other."""
    frames = [Image.fromarray(plotting.pixels(figure)) for figure in figures]
    # One palette for all frames: colours would flicker with one for each.
    palette = frames[0].quantize(64, dither=Image.Dither.NONE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file = io.BytesIO()
    options = {"save_all": True, "append_images": frames[1:], "duration": 1000 * seconds, "loop": 0}
    frames[0].save(file, format="gif", **options)
    return Picture(file.getvalue(), "gif")

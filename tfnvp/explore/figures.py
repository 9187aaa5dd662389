"""Figures of the page, drawn beforehand as far as they do not change: they take milliseconds."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfnvp import plotting
from tfnvp.explore.layers import Step

#: The least height and width of an image on the page, pixels.
LEAST_SIZE = 320


class Histogram:
    """A histogram of bits/dim, in which one value can be marked.

    Args:
        bits: [N].
        label: of what they are.
    """

    def __init__(self, bits: np.ndarray, label: str) -> None:
        # A density that is no number has no place in a histogram.
        bits = bits[np.isfinite(bits)]
        figure = plotting.bits_histogram({label: bits})
        figure.set_size_inches(6, 2.8)
        (self._axes,) = figure.axes
        self._mark = self._axes.axvline(np.mean(bits), color="tab:red", linewidth=2, animated=True)
        self._canvas = FigureCanvasAgg(figure)
        self._canvas.draw()
        self._empty = self._canvas.copy_from_bbox(figure.bbox)

    def marked(self, value: float) -> np.ndarray:
        """Draws the histogram with a line at a value, at the edge for values beyond.

        Returns:
            uint8 [H, W, 3].
        """
        low, high = self._axes.get_xlim()
        margin = (high - low) / 200
        self._canvas.restore_region(self._empty)
        self._mark.set_xdata([np.clip(value, low + margin, high - margin)] * 2)
        self._axes.draw_artist(self._mark)
        return np.array(self._canvas.buffer_rgba())[..., :3]


def magnified(image: np.ndarray, least_size: int = LEAST_SIZE) -> np.ndarray:
    """Magnifies an image, float [H, W, C] in [0, 1], by a whole number, as uint8 [h, w, 3]."""
    return plotting.image_grid(image[None], least_size=least_size)[1:-1, 1:-1]


def layer(step: Step) -> np.ndarray:
    """Draws a step of a flow of two dimensions: its density, the grid of latents, and data.

    Returns:
        uint8 [H, W, 3], of the same size for all.
    """
    figure = Figure(figsize=(6, 6), dpi=110, layout="constrained")
    axes = figure.subplots()
    extent = (step.low[0], step.high[0], step.low[1], step.high[1])
    # A few peaks of a steep density would leave all else white.
    most = np.percentile(step.density, 99.5) or None
    style = {"origin": "lower", "cmap": "Blues", "interpolation": "bilinear"}
    axes.imshow(step.density, extent=extent, vmin=0, vmax=most, **style)
    for line in step.lines:
        axes.plot(*line.T, color="grey", linewidth=0.6)
    axes.scatter(*step.points.T, s=5, color="tab:orange", linewidths=0, zorder=3)
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")
    return plotting.pixels(figure)

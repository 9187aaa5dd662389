"""Figures made of cells: matrices, boards of pixels, and pictures."""

import re
from collections.abc import Mapping

import numpy as np
from matplotlib.colors import ListedColormap
from numpy.typing import ArrayLike

from figures.picture import GREY, Picture, of_pixels, panels, png
from tfnvp import plotting

_FEW = ListedColormap(["#f4f1ea", "#2f6690", "#d9822b", "#81a88d", "#b4656f", "#c9b458"])


def matrices(shown: Mapping[str, ArrayLike], columns: int | None = None) -> Picture:
    """Draws matrices [N, N] in colours, red for above zero and blue below; exact zeros are grey."""
    figure, axes = panels(len(shown), 3.1, 3.2, columns)
    for panel, (title, matrix) in zip(axes, shown.items(), strict=True):
        matrix = np.asarray(matrix, "float64")
        reach = np.abs(matrix).max()
        panel.imshow(np.ones_like(matrix), cmap=ListedColormap(["#e3e3e3"]))
        drawn = np.ma.masked_equal(matrix, 0)
        image = panel.imshow(drawn, cmap="coolwarm", vmin=-reach, vmax=reach)
        panel.set_title(title, fontsize=10)
        panel.set(xticks=[], yticks=[])
        figure.colorbar(image, ax=panel, shrink=0.7).ax.tick_params(labelsize=7)
    return png(figure)


def boards(
    shown: Mapping[str, ArrayLike],
    numbers: Mapping[str, ArrayLike] | None = None,
    columns: int | None = None,
) -> Picture:
    """Draws boards of cells [H, W], a colour for each whole number from 0 to 5.

    Args:
        shown: whole numbers by title.
        numbers: by title, what is written in the cells, [H, W]; otherwise nothing is.
        columns: boards in a row.
    """
    figure, axes = panels(len(shown), 2.4, 2.75, columns)
    for panel, (title, board) in zip(axes, shown.items(), strict=True):
        board = np.asarray(board).astype(int)
        panel.imshow(board, cmap=_FEW, vmin=0, vmax=5)
        height, width = board.shape
        panel.set_xticks(np.arange(width + 1) - 0.5, [])
        panel.set_yticks(np.arange(height + 1) - 0.5, [])
        panel.grid(color="white", linewidth=1.5)
        panel.tick_params(length=0)
        for side in panel.spines.values():
            side.set_color(GREY)
        for (row, column), number in np.ndenumerate(np.asarray((numbers or {}).get(title, []))):
            color = "white" if board[row, column] in (1, 4) else "black"
            panel.text(
                column, row, f"{number:g}", ha="center", va="center", color=color, fontsize=8
            )
        panel.set_title(title, fontsize=10)
    return png(figure)


def images(pixels: ArrayLike, columns: int, least_size: int = 40) -> Picture:
    """Draws images [N, H, W, C], intensities in [0, 1], in a grid."""
    return of_pixels(plotting.image_grid(pixels, columns=columns, least_size=least_size))


def rows(shown: Mapping[str, ArrayLike]) -> Picture:
    """Draws rows of images [N, H, W, C], each beside its title; values beyond [0, 1] are scaled.

    A row that leaves [0, 1], such as latents, is drawn from -3, black, to 3, white.
    """
    count = max(len(row) for row in shown.values())
    letters = max(len(re.sub(r"[$^{}]", "", title)) for title in shown)
    margin = 0.2 + 0.085 * letters
    width = margin + 0.5 * count
    figure, axes = panels(len(shown), width, 0.56, columns=1)
    # A constrained layout leaves titles beside images of a fixed aspect no room.
    figure.set_layout_engine(None)
    figure.subplots_adjust(left=margin / width, right=0.995, bottom=0.01, top=0.99, hspace=0.1)
    for panel, (title, row) in zip(axes, shown.items(), strict=True):
        row = np.asarray(row)
        if row.min() < -0.06 or row.max() > 1.06:
            row = (row + 3) / 6
        panel.imshow(plotting.image_grid(row, columns=count, least_size=40))
        panel.set(xticks=[], yticks=[], anchor="W")
        panel.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
        for side in panel.spines.values():
            side.set_visible(False)
    return png(figure)

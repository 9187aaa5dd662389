"""Figures of the plane: points, densities, and areas under a map."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from figures.picture import BLUE, GREY, ORANGE, PALE, Picture, gif, panels, png
from figures.words import say

Map = Callable[[tf.Tensor], tf.Tensor]


def points(
    clouds: Mapping[str, ArrayLike | tuple[ArrayLike, ArrayLike]],
    box: tuple[float, float, float, float],
    columns: int | None = None,
) -> Picture:
    """Draws clouds of points [N, 2], each in a panel of its own under its title.

    Args:
        clouds: points by title, or pairs of points and their colour: classes, or any number [N].
        box: left, right, bottom and top of every panel.
        columns: panels in a row.
    """
    figure, axes = panels(len(clouds), *_of(box, 2.6), columns)
    for panel, (title, cloud) in zip(axes, clouds.items(), strict=True):
        x, color = cloud if isinstance(cloud, tuple) else (cloud, None)
        style = {"color": BLUE} if color is None else {"c": color, "cmap": "coolwarm"}
        panel.scatter(*np.asarray(x).T, s=4, linewidths=0, alpha=0.8, **style)
        _frame(panel, title, box)
    return png(figure)


def densities(
    functions: Mapping[str, Map],
    box: tuple[float, float, float, float],
    lines: Mapping[str, Map] | None = None,
    columns: int | None = None,
) -> Picture:
    """Draws densities of the plane as heat maps, each on a scale of its own.

    Args:
        functions: by title, functions from points [N, 2] to log-densities [N].
        box: left, right, bottom and top of every panel.
        lines: by title, the maps that carry a square grid into a panel.
        columns: panels in a row.
    """
    figure, axes = panels(len(functions), *_of(box, 3.1), columns)
    x, y = np.linspace(*box[:2], 160), np.linspace(*box[2:], 160)
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype("float32")
    for panel, (title, function) in zip(axes, functions.items(), strict=True):
        density = np.exp(np.asarray(function(plane))).reshape(160, 160)
        panel.pcolormesh(x, y, density, cmap="Blues", shading="nearest", rasterized=True)
        if lines and title in lines:
            for line in _grid(-3, 3, 13):
                panel.plot(*np.asarray(lines[title](line)).T, color=GREY, linewidth=0.6)
        _frame(panel, title, box)
    return png(figure)


def mapped_squares(maps: Mapping[str, Map], box: tuple[float, float, float, float]) -> Picture:
    """Draws what maps make of the unit square, with the area that a polygon along its edge has."""
    figure, axes = panels(len(maps), 2.2, 3.3)
    for panel, (title, mapping) in zip(axes, maps.items(), strict=True):
        edge = np.asarray(mapping(_edge(0, 1, 400)))
        panel.fill(*edge.T, color=PALE)
        for line in _grid(0, 1, 9):
            panel.plot(*np.asarray(mapping(line)).T, color=BLUE, linewidth=0.8)
        _frame(panel, f"{title}\n{say('area')} {_area(edge):.3f}", box)
    return png(figure)


def small_squares(mapping: Map, side: float, centres: ArrayLike) -> Picture:
    """Draws small squares about some points, and beside them the same under a map."""
    figure, (before, after) = panels(2, 3.6, 3.6)
    for centre in np.asarray(centres, "float32"):
        square = (centre + _edge(-side / 2, side / 2, 40)).astype("float32")
        image = np.asarray(mapping(square))
        before.fill(*square.T, color=BLUE)
        after.fill(*image.T, color=ORANGE)
        note = f"$\\times${_area(image) / _area(square):.2f}"
        after.annotate(
            note, image.max(axis=0), fontsize=8, xytext=(2, 2), textcoords="offset points"
        )
    for line in _grid(-2, 2, 9):
        before.plot(*line.T, color=GREY, linewidth=0.5, zorder=0)
        after.plot(*np.asarray(mapping(line)).T, color=GREY, linewidth=0.5, zorder=0)
    _frame(before, say("a small square"), (-2.2, 2.2, -2.2, 2.2))
    after.set_title(say("where it goes"), fontsize=10)
    after.set(xticks=[], yticks=[])
    return png(figure)


def shear(b: float, frames: int = 40) -> Picture:
    """Films the unit square under [[2, 0], [c, b]] while c goes from -2 to 2 and back."""
    swing = np.round(-2 * np.cos(np.linspace(0, 2 * np.pi, frames, endpoint=False)), 2)
    return gif([_sheared(b, c + 0.0) for c in swing], seconds=0.1)


def _sheared(b: float, c: float) -> Figure:
    figure, (panel,) = panels(1, 3.0, 4.4)
    matrix = np.array([[2, 0], [c, b]])
    edge = _edge(0, 1, 4)
    panel.fill(*edge.T, facecolor="none", edgecolor=GREY, linestyle="--")
    panel.fill(*(edge @ matrix.T).T, color=PALE)
    for line in _grid(0, 1, 9):
        panel.plot(*(line @ matrix.T).T, color=BLUE, linewidth=0.7)
    for column, name in zip(matrix.T, ("$e'_1$", "$e'_2$"), strict=True):
        panel.annotate("", column, (0, 0), arrowprops={"color": ORANGE, "width": 2, "headwidth": 8})
        panel.annotate(name, column, xytext=(4, 6), textcoords="offset points", color=ORANGE)
    area = _area(edge @ matrix.T)
    panel.set_title(f"$c = {c:+.2f}$      $S = {area:.2f}$")
    _frame(panel, None, (-0.3, 2.6, -2.3, 3.8))
    return figure


def _area(edge: np.ndarray) -> float:
    """The area of a polygon [N, 2], by the shoelace formula."""
    x, y = edge.astype("float64").T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def _edge(low: float, high: float, count: int) -> np.ndarray:
    """Points along the edge of a square, [count, 2], count divisible by 4."""
    t = np.arange(count) / count * 4
    x = np.clip(np.where(t < 2, t, 3 - t), 0, 1)
    y = np.clip(np.where(t < 3, t - 1, 4 - t), 0, 1)
    return (low + (high - low) * np.stack([x, y], axis=-1)).astype("float32")


def _grid(low: float, high: float, count: int) -> list[np.ndarray]:
    """The lines of a square grid, each as points [200, 2]."""
    fine = np.linspace(low, high, 200, dtype="float32")
    lines = [np.stack([np.full_like(fine, at), fine], -1) for at in np.linspace(low, high, count)]
    return lines + [line[:, ::-1] for line in lines]


def _of(box: tuple[float, float, float, float], width: float) -> tuple[float, float]:
    """The width and height of a panel, in inches, that show a box without empty room."""
    return width, 0.45 + (width - 0.3) * (box[3] - box[2]) / (box[1] - box[0])


def _frame(panel: Axes, title: str | None, box: tuple[float, float, float, float]) -> None:
    if title is not None:
        panel.set_title(title, fontsize=10)
    panel.set(xlim=box[:2], ylim=box[2:], aspect="equal")
    panel.tick_params(labelsize=7)

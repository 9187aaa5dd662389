"""The figures of the lecture, in English and in Russian: they draw what the chapters compute."""

from figures.boards import boards, images, matrices, rows
from figures.curves import change_in_1d, lines, quantiles, times
from figures.planes import densities, mapped_squares, points, shear, small_squares
from figures.words import size, speak

__all__ = [
    "boards",
    "change_in_1d",
    "densities",
    "images",
    "lines",
    "mapped_squares",
    "matrices",
    "points",
    "quantiles",
    "rows",
    "shear",
    "size",
    "small_squares",
    "speak",
    "times",
]

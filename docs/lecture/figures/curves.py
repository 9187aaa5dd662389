"""Figures of curves: densities in one dimension, times, and whatever is a function of a number."""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.typing import ArrayLike

from figures.picture import BLUE, GREY, ORANGE, PALE, Picture, panels, png
from figures.words import say


def lines(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    xlabel: str,
    ylabel: str,
    logarithmic: bool = False,
) -> Picture:
    """Draws curves over x, on logarithmic axes if asked; a curve whose name ends in * is dashed."""
    figure, (panel,) = panels(1, 5.6, 3.4)
    for (name, y), color in zip(curves.items(), (BLUE, ORANGE, GREY, "black"), strict=False):
        dashed = {"linestyle": "--"} if name.endswith("*") else {"marker": "o", "markersize": 4}
        panel.plot(x, np.asarray(y), label=name.rstrip("*"), color=color, **dashed)
    if logarithmic:
        panel.set(xscale="log", yscale="log")
    panel.set(xlabel=xlabel, ylabel=ylabel)
    panel.legend(frameon=False)
    return png(figure)


def times(
    sizes: Sequence[int], seconds: Mapping[str, ArrayLike], powers: Mapping[str, int]
) -> Picture:
    """Draws seconds over sizes on logarithmic axes, with the slope that theory gives each curve.

    Args:
        sizes: D.
        seconds: by name, as many as sizes.
        powers: by name, the power of D with which a curve should grow in the end.
    """
    figure, (panel,) = panels(1, 5.6, 3.8)
    for (name, y), color in zip(seconds.items(), (BLUE, ORANGE, GREY), strict=False):
        panel.plot(sizes, y, "o-", color=color, label=name)
        if name not in powers:
            continue
        power = powers[name]
        slope = np.asarray(y)[-1] * (np.asarray(sizes, float) / sizes[-1]) ** power
        label = f"{say('growth as')} $D^{power}$"
        panel.plot(sizes, slope, ":", color=color, label=label)
    panel.set(xscale="log", yscale="log", xlabel="$D$", ylabel=say("seconds"))
    panel.set_xticks(sizes, [f"{one:,}" for one in sizes], fontsize=8)
    panel.minorticks_off()
    panel.legend(frameon=False, fontsize=8)
    return png(figure)


def quantiles(data: ArrayLike, z: ArrayLike, x: ArrayLike) -> Picture:
    """Draws the map from uniform noise z to x, with histograms of the noise and of data and x."""
    figure, (noise, curve, result) = panels(3, 3.0, 2.8)
    order = np.argsort(z)
    curve.plot(np.asarray(z)[order], np.asarray(x)[order], color=ORANGE)
    curve.set(xlabel="$z$", ylabel="$x$", title="$x = F^{-1}(z)$")
    noise.hist(z, 30, density=True, color=PALE, edgecolor=BLUE)
    noise.set(xlabel="$z$", title=say("noise"))
    result.hist(data, 30, density=True, color=PALE, edgecolor=BLUE, label=say("data"))
    bins = np.histogram_bin_edges(data, 30)
    result.hist(x, bins, density=True, histtype="step", color=ORANGE, label=say("samples"))
    result.set(xlabel="$x$")
    result.legend(frameon=False, fontsize=8)
    return png(figure)


def change_in_1d(
    distribution: tfp.distributions.TransformedDistribution,
    box: tuple[float, float],
    range_: tuple[float, float],
    seed: int = 0,
) -> Picture:
    """Draws a density before and after a map of the line, and where slices of equal mass go.

    Args:
        distribution: a scalar base and an increasing bijector.
        box: the ends of the axis of z.
        range_: the ends of the axis of x.
        seed: of the samples.
    """
    figure, (before, mapping, after) = panels(3, 3.1, 3.1)
    base, forward = distribution.distribution, distribution.bijector.forward
    z = tf.linspace(*map(float, box), 400)
    x = tf.linspace(*map(float, range_), 400)[1:-1]
    edges = base.quantile(tf.linspace(0.05, 0.95, 10))
    before.plot(z, base.prob(z), color=BLUE)
    mapping.plot(z, forward(z), color=ORANGE)
    after.hist(distribution.sample(20000, seed=seed).numpy(), 80, density=True, color=PALE)
    after.plot(x, distribution.prob(x), color=BLUE, label=say("by the formula"))
    for low, high in zip(edges[:-1:2], edges[1::2], strict=False):
        inside = tf.linspace(low, high, 30)
        before.fill_between(inside, base.prob(inside), color=PALE)
        mapping.fill_betweenx(forward(inside), box[0], inside, color=PALE, linewidth=0)
        for one in (low, high):
            mapping.plot(
                [one, one, box[0]], [range_[0], forward(one), forward(one)], color=GREY, lw=0.6
            )
    before.set(xlabel="$z$", title="$p_z(z)$", ylim=0)
    mapping.set(xlabel="$z$", ylabel="$x$", title="$x = g(z)$", xlim=box, ylim=range_)
    after.set(xlabel="$x$", title="$p_x(x) = p_z(z)\\,/\\,g'(z)$")
    after.legend(frameon=False, fontsize=8)
    return png(figure)

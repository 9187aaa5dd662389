"""Monotone rational-quadratic splines with linear tails, for use in flows.

Source: Gregory and Delbourgo (1982); Durkan, Bekasov, Murray and Papamakarios, "Neural Spline
Flows" (arXiv 1906.04032), section 3.1.
"""

import itertools
import math
from typing import NamedTuple

import tensorflow as tf

# No bin is narrower than this share of all, and no slope smaller, so that the inverse stays exact.
_LEAST = 1e-3
# The softplus of this, and the least slope, make the slope 1 of the tails.
_OF_SLOPE_ONE = math.log(math.expm1(1 - _LEAST))


class Bins(NamedTuple):
    """Bins of splines, each [K, ...]: left end, width, bottom, height, slopes at both ends."""

    x: tf.Tensor
    width: tf.Tensor
    y: tf.Tensor
    height: tf.Tensor
    slope: tf.Tensor
    next_slope: tf.Tensor


def bins(parameters: tf.Tensor, bound: float) -> Bins:
    """Makes the bins of splines from [-bound, bound] to itself out of free parameters.

    Args:
        parameters: [3K - 1, ...]: K logits of widths, K of heights, and K - 1 slopes between; of
            zeros the spline is the identity.
        bound: where the linear tails, of slope one, begin.
    """
    count = (parameters.shape[0] + 1) // 3
    widths, heights, slopes = tf.split(parameters, [count, count, count - 1])
    width, height = (
        2 * bound * (_LEAST + (1 - _LEAST * count) * powers / tf.reduce_sum(powers, axis=0))
        for powers in (_powers(widths), _powers(heights))
    )
    x, y = (tf.cumsum(size, exclusive=True) - bound for size in (width, height))
    slopes = _LEAST + tf.nn.softplus(slopes + _OF_SLOPE_ONE)
    one = tf.ones_like(width[:1])
    slope, next_slope = tf.concat([one, slopes], 0), tf.concat([slopes, one], 0)
    return Bins(x, width, y, height, slope, next_slope)


def _powers(logits: tf.Tensor) -> tf.Tensor:
    """Computes e^logits, scaled to at most 1: divided by their sum they are the softmax."""
    return tf.exp(logits - tf.stop_gradient(tf.reduce_max(logits, axis=0)))


def own_bins(parameters: tf.Tensor, v: tf.Tensor, bound: float, of_y: bool = False) -> Bins:
    """Finds the bin that each value falls in, of a spline of its own, and computes that bin alone.

    `bins` and a choice among all of them would give the same in twice the time.

    Args:
        parameters: [3K - 1, ...], as in `bins`.
        v: [...], values to `evaluate`, or to `solve` for if `of_y`.
        bound: as in `bins`.
        of_y: whether a bin is found by its bottom and height, in place of left end and width.

    Returns:
        Bins of figures [...].
    """
    count = (parameters.shape[0] + 1) // 3
    *logits, slopes = tf.split(parameters, [count, count, count - 1])
    widths, heights = (_powers(x) for x in logits)
    share = 1 - _LEAST * count
    # These are the ends of all bins but the last, scaled so that all sizes sum to `total`.
    sizes = heights if of_y else widths
    total = tf.reduce_sum(sizes, axis=0)
    bins_before = tf.cast(tf.range(1, count), v.dtype)
    bins_before = tf.reshape(bins_before, [-1, *[1] * v.shape.rank])
    cumulated = tf.stack(list(itertools.accumulate(tf.unstack(sizes)[:-1])))
    ends = share * cumulated + _LEAST * bins_before * total
    passed = tf.cast((v + bound) / (2 * bound) * total >= ends, v.dtype)
    zeros = tf.zeros_like(passed[:1])
    within = tf.concat([zeros + 1, passed], 0) - tf.concat([passed, zeros], 0)
    # All K sizes are taken: TensorFlow's gradient of a slice costs more than all of this.
    passed = tf.concat([passed, zeros], 0)
    least_before = _LEAST * tf.reduce_sum(passed, axis=0)

    def start_and_size(sizes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        factor = share / tf.reduce_sum(sizes, axis=0)
        before = least_before + factor * tf.reduce_sum(passed * sizes, axis=0)
        own = _LEAST + factor * tf.reduce_sum(within * sizes, axis=0)
        return 2 * bound * before - bound, 2 * bound * own

    def slope(within: tf.Tensor) -> tf.Tensor:
        # No slope stands for the outer ends of the outer bins: a sum of zeros makes it one.
        return _LEAST + tf.nn.softplus(tf.reduce_sum(within * slopes, axis=0) + _OF_SLOPE_ONE)

    return Bins(
        *start_and_size(widths), *start_and_size(heights), slope(within[1:]), slope(within[:-1])
    )


def evaluate(x: tf.Tensor, own: Bins, bound: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps x [...], each in its own bin [...]; gives y and the log of the slope there."""
    inside = tf.abs(x) < bound
    t = tf.clip_by_value((x - own.x) / own.width, 0.0, 1.0)
    mean = own.height / own.width
    both = t * (1 - t)
    below = mean + (own.slope + own.next_slope - 2 * mean) * both
    y = own.y + own.height * (mean * t**2 + own.slope * both) / below
    return tf.where(inside, y, x), tf.where(inside, _log_slope(t, own, mean, below), 0.0)


def solve(y: tf.Tensor, own: Bins, bound: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Undoes `evaluate`; gives x and the log of the slope of `evaluate` there."""
    inside = tf.abs(y) < bound
    mean = own.height / own.width
    up = tf.clip_by_value(y - own.y, 0.0, own.height)
    curve = own.slope + own.next_slope - 2 * mean
    a = own.height * (mean - own.slope) + up * curve
    b = own.height * own.slope - up * curve
    c = -mean * up
    root = tf.sqrt(tf.maximum(b**2 - 4 * a * c, 0.0))
    # This form of the root is exact where a is about 0.
    t = tf.clip_by_value(2 * c / (-b - root), 0.0, 1.0)
    below = mean + curve * t * (1 - t)
    x = own.x + t * own.width
    return tf.where(inside, x, y), tf.where(inside, _log_slope(t, own, mean, below), 0.0)


def _log_slope(t: tf.Tensor, own: Bins, mean: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
    above = own.next_slope * t**2 + 2 * mean * t * (1 - t) + own.slope * (1 - t) ** 2
    return 2 * tf.math.log(mean / below) + tf.math.log(above)

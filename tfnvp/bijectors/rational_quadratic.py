"""Monotone rational-quadratic splines with linear tails, for use in flows.

Source: Gregory and Delbourgo (1982); Durkan, Bekasov, Murray and Papamakarios, "Neural Spline
Flows" (arXiv 1906.04032), section 3.1.
"""

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
    width, height = (_LEAST + (1 - _LEAST * count) * _softmax(x) for x in (widths, heights))
    width, height = 2 * bound * width, 2 * bound * height
    x, y = (tf.cumsum(size, exclusive=True) - bound for size in (width, height))
    slopes = _LEAST + tf.nn.softplus(slopes + _OF_SLOPE_ONE)
    one = tf.ones_like(width[:1])
    slope, next_slope = tf.concat([one, slopes], 0), tf.concat([slopes, one], 0)
    return Bins(x, width, y, height, slope, next_slope)


def _softmax(logits: tf.Tensor) -> tf.Tensor:
    """Computes the softmax over the first axis; TensorFlow's own moves it to the end and back."""
    largest = tf.stop_gradient(tf.reduce_max(logits, axis=0))
    powers = tf.exp(logits - largest)
    return powers / tf.reduce_sum(powers, axis=0)


def own(v: tf.Tensor, bins: Bins, ends: tf.Tensor) -> Bins:
    """Picks the bin [...] that each value v [...] is in, by the bins' first ends [K, ...]."""
    # Whole tensors are compared, multiplied and added up: gathering and its gradient are slower.
    after = tf.cast(v >= ends[1:], v.dtype)
    one = tf.ones_like(after[:1])
    within = tf.concat([one, after], 0) - tf.concat([after, tf.zeros_like(one)], 0)
    return Bins(*(tf.reduce_sum(within * figure, axis=0) for figure in bins))


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

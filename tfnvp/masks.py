"""The two partitions of Real NVP (paper section 3.4, figure 3): which part of an event stays.

A partition answers three questions of an affine coupling: what the conditioner sees, which
positions change, and how the two parts are told apart. A checkerboard keeps the shape and masks by
multiplication; channel halves are cut apart, so that nothing is computed for the half that stays.
"""

import numpy as np
import tensorflow as tf


def _check_parity(parity):
    if parity not in (0, 1):
        raise ValueError(f"parity must be 0 or 1, got parity={parity!r}")
    return int(parity)


def checkerboard(height, width, parity, dtype=tf.float32):
    """A checkerboard of ones and zeros.

    Args:
        height, width: size in pixels, Python ints or scalar int32 tensors.
        parity: 0 makes the pixel (0, 0) a one, 1 makes it a zero.
        dtype: of the result.

    Returns:
        A tensor of shape [height, width, 1]: 1 where row + column + parity is even, else 0.

    Example:
        >>> checkerboard(2, 2, parity=0)[..., 0].numpy().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    # Of known sizes it is one constant in a graph.
    known = isinstance(height, int) and isinstance(width, int)
    arange = np.arange if known else tf.range
    rows, columns = arange(height)[:, None, None], arange(width)[None, :, None]
    return tf.cast(1 - (rows + columns + _check_parity(parity)) % 2, dtype)


class Checkerboard:
    """Of an image [..., H, W, C], the pixels where row + column + parity is even stay.

    Args:
        parity: 0 or 1; two couplings of alternating parity change every pixel once.

    Raises:
        ValueError: if parity is neither 0 nor 1.
    """

    event_ndims = 3

    def __init__(self, parity):
        self.parity = _check_parity(parity)

    def stays(self, x):
        """A tensor [H, W, 1], of x's dtype: 1 where a pixel of x stays, 0 where it changes."""
        height, width = x.shape[-3], x.shape[-2]
        if height is None or width is None:
            height, width = tf.unstack(tf.shape(x)[-3:-1])
        return checkerboard(height, width, self.parity, x.dtype)

    def __repr__(self):
        return f"Checkerboard(parity={self.parity})"


class ChannelHalves:
    """Of the last axis, the first half stays and the second changes, or the other way round.

    Args:
        parity: 0 keeps the first half, 1 keeps the second. An odd size n is cut at n // 2.
        event_ndims: 3 for images [..., H, W, C], 1 for vectors [..., D].

    Raises:
        ValueError: if parity is neither 0 nor 1, or event_ndims neither 1 nor 3.
    """

    def __init__(self, parity, event_ndims=3):
        if event_ndims not in (1, 3):
            raise ValueError(
                f"event_ndims must be 1 (vectors) or 3 (images), got event_ndims={event_ndims!r}"
            )
        self.parity = _check_parity(parity)
        self.event_ndims = event_ndims

    def split(self, x):
        """x [..., n] -> the part that stays and the part that changes."""
        size = x.shape[-1]
        if size is None or size < 2:
            raise ValueError(
                f"channel halves need a last axis of known size 2 or more, got shape {x.shape}"
            )
        first, second = tf.split(x, [size // 2, size - size // 2], axis=-1)
        return (second, first) if self.parity else (first, second)

    def merge(self, stays, changes):
        """The reverse of `split`."""
        return tf.concat([changes, stays] if self.parity else [stays, changes], axis=-1)

    def __repr__(self):
        return f"ChannelHalves(parity={self.parity}, event_ndims={self.event_ndims})"

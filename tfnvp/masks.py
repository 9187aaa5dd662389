"""The two partitions of Real NVP (paper section 3.4, figure 3): which part of an event stays.

A partition tells an affine coupling what its conditioner sees, what changes, and how the two make
an event again. A checkerboard keeps the shape and masks by multiplication; channel halves are cut
apart, so that nothing is computed for the half that stays.
"""

import abc
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfnvp.shapes import sizes

#: Makes an event again of what `Partition.split` gave as changing, once it has changed.
Merge = Callable[[tf.Tensor], tf.Tensor]


class Partition(abc.ABC):
    """Divides an event into the part that stays and the part that changes."""

    event_ndims: int

    def __init__(self, parity: int) -> None:
        self.parity = _check_parity(parity)

    @abc.abstractmethod
    def split(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Merge]:
        """Gives what a conditioner may see of events, what changes, and how to join them again."""

    @abc.abstractmethod
    def changing(self, changes: tf.Tensor) -> tf.Tensor | None:
        """Gives ones where `split`'s second result does change, else zeros; None for everywhere."""

    def pick(self, changes: tf.Tensor) -> tf.Tensor:
        """Gives, of `split`'s second result, what does change, where not all of it does."""
        if self.changing(changes) is not None:
            raise NotImplementedError(f"{type(self).__name__} must define pick and put")
        return changes

    def put(self, changes: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
        """Puts what `pick` gave, once it has changed, in its place."""
        del changes  # It is all in its place.
        return changed

    def __repr__(self) -> str:
        return f"{type(self).__name__}(parity={self.parity})"


class Checkerboard(Partition):
    """The pixels of an image [..., H, W, C] where row + column + parity is even stay.

    A conditioner sees the image with zeros in place of what changes.

    Args:
        parity: 0 or 1; two couplings of alternating parity change every pixel once.

    Raises:
        ValueError: if parity is neither 0 nor 1.
    """

    event_ndims = 3

    def split(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Merge]:
        """Gives the image masked, and the whole image, whose changes are masked elsewhere."""
        return x * self.stays(x), x, lambda changed: changed

    def changing(self, changes: tf.Tensor) -> tf.Tensor:
        """Gives a tensor [H, W, 1]: 1 where a pixel changes, 0 where it stays."""
        return 1 - self.stays(changes)

    def pick(self, changes: tf.Tensor) -> tf.Tensor:
        """Gives the pixels that change, [..., H / 2, W, C], of odd sizes with a row or column more.

        The even rows' come first in each row, and then the odd rows'.
        """
        even, odd = _quarters(changes)
        return tf.concat([even[1 - self.parity], odd[self.parity]], axis=-2)

    def put(self, changes: tf.Tensor, changed: tf.Tensor) -> tf.Tensor:
        """Puts pixels [..., H / 2, W, C] among those that stay."""
        rows = [list(pixels) for pixels in _quarters(changes)]
        rows[0][1 - self.parity], rows[1][self.parity] = tf.split(changed, 2, axis=-2)
        x = tf.stack([tf.stack(pixels, axis=-2) for pixels in rows], axis=-4)
        *batch, half_height, _, half_width, _, channels = sizes(x)
        x = tf.reshape(x, [*batch, 2 * half_height, 2 * half_width, channels])
        height, width = sizes(changes)[-3:-1]
        return x[..., :height, :width, :]

    def stays(self, x: tf.Tensor) -> tf.Tensor:
        """Gives a tensor [H, W, 1], of x's dtype: 1 where a pixel stays, 0 where it changes."""
        height, width = x.shape[-3], x.shape[-2]
        if height is None or width is None:
            height, width = tf.unstack(tf.shape(x)[-3:-1])
        return checkerboard(height, width, self.parity, x.dtype)


class ChannelHalves(Partition):
    """The first half of the last axis stays and the second changes, or the other way round.

    Args:
        parity: 0 keeps the first half, 1 keeps the second. An odd size n is cut at n // 2.
        event_ndims: 3 for images [..., H, W, C], 1 for vectors [..., D].

    Raises:
        ValueError: if parity is neither 0 nor 1, or event_ndims neither 1 nor 3.
    """

    def __init__(self, parity: int, event_ndims: int = 3) -> None:
        if event_ndims not in (1, 3):
            raise ValueError(
                f"event_ndims must be 1 (vectors) or 3 (images), got event_ndims={event_ndims!r}"
            )
        super().__init__(parity)
        self.event_ndims = event_ndims

    def split(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Merge]:
        """Cuts the last axis in two; raises a ValueError if it is unknown or has no two halves.

        Vectors of size 1 are cut for parity 0: nothing stays, and all changes.
        """
        size = x.shape[-1]
        # A dense conditioner does with a context alone; a convolution of no channels is none.
        least = 1 if self.event_ndims == 1 and self.parity == 0 else 2
        if size is None or size < least:
            raise ValueError(
                f"channel halves need a last axis of known size 2 or more, got shape {x.shape}"
            )
        first, second = tf.split(x, [size // 2, size - size // 2], axis=-1)
        if self.parity:
            return second, first, lambda changed: tf.concat([changed, second], axis=-1)
        return first, second, lambda changed: tf.concat([first, changed], axis=-1)

    def changing(self, changes: tf.Tensor) -> None:
        """Gives None: all of the half that changes does."""
        del changes  # AutoGraph does not take a function without a statement.

    def __repr__(self) -> str:
        return f"ChannelHalves(parity={self.parity}, event_ndims={self.event_ndims})"


def _quarters(x: tf.Tensor) -> list[list[tf.Tensor]]:
    """Gives the pixels of even and of odd rows, and of each those of even and of odd columns.

    TensorFlow's gradient of a slice with steps takes many times as long as that of `unstack`.
    """
    *batch, height, width, channels = sizes(x)
    if any(not isinstance(size, int) or size % 2 for size in (height, width)):
        ends = [[0, height % 2], [0, width % 2], [0, 0]]
        x = tf.pad(x, [*[[0, 0]] * len(batch), *ends])
    halves = [(height + 1) // 2, 2, (width + 1) // 2, 2]
    rows = tf.unstack(tf.reshape(x, [*batch, *halves, channels]), axis=-4)
    return [tf.unstack(pixels, axis=-2) for pixels in rows]


def checkerboard(
    height: int | tf.Tensor, width: int | tf.Tensor, parity: int, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """Makes a checkerboard of ones and zeros.

    Args:
        height, width: size in pixels, Python ints or scalar int32 tensors.
        parity: 0 makes the pixel (0, 0) a one, 1 makes it a zero.
        dtype: of the result.

    Returns:
        A tensor of shape [height, width, 1]: 1 where row + column + parity is even, else 0.

    Example:
        >>> from tfnvp.masks import checkerboard
        >>> checkerboard(2, 2, parity=0)[..., 0].numpy().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    # A board of known sizes is one constant in a graph.
    known = isinstance(height, int) and isinstance(width, int)
    arange = np.arange if known else tf.range
    rows, columns = arange(height)[:, None, None], arange(width)[None, :, None]
    return tf.cast(1 - (rows + columns + _check_parity(parity)) % 2, dtype)


def _check_parity(parity: int) -> int:
    if parity not in (0, 1):
        raise ValueError(f"parity must be 0 or 1, got parity={parity!r}")
    return int(parity)

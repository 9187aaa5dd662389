"""Cells of common values opened, so that a value in most of the rows is no spike."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.layers.common_values import CommonValues


class OpenedCells(FlowBijector):
    """Stretches each dimension within some cells, and moves what is above them up.

    A column of which one value stands in most rows has a spike of the density there: spread over
    its cell, which may be a millionth of the column's range, the value is still one point to a
    smooth map. Opened, the cell takes the room that its share of the rows asks for. Data to
    latents is, with a cell from a of width w that is opened to a width v,

        inverse(x) = x + sum over cells of (v / w - 1) * clip(x - a, 0, w),
        log |det| = sum of log(v / w) over the cells that values are in.

    Args:
        values: the `tfnvp.layers.CommonValues` that holds the cells; None makes one.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> opened = tfnvp.bijectors.OpenedCells()
        >>> _ = opened.inverse(tf.zeros([1]))
        >>> opened.values.take([[[0.0] * 4], [[1.0, 1.0, 1.0, 0.5]], [[1.0, 1.0, 1.0, 4.0]]])
        >>> opened.inverse([-1.0]).numpy(), opened.inverse([0.25]).numpy()
        (array([-1.], dtype=float32), array([3.75], dtype=float32))
    """

    def __init__(
        self,
        values: CommonValues | None = None,
        validate_args: bool = False,
        name: str = "opened_cells",
    ) -> None:
        # The layer is created before arguments are captured, so that `copy()` reuses it.
        values = CommonValues() if values is None else values
        super().__init__(1, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moved, log_dets = [x], []
        for middle, width, opened in self._cells(x):
            # The distance from the middle is exact near a value however far that is from zero.
            above = (x - middle) + width / 2
            moved.append((opened / width - 1) * tf.clip_by_value(above, 0.0, width))
            log_dets.append(_inside(above, width) * tf.math.log(opened / width))
        return tf.add_n(moved), tf.reduce_sum(tf.add_n(log_dets), axis=-1)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        moved, log_dets, risen = [z], [], 0.0
        for middle, width, opened in self._cells(z):
            above = z - (middle - width / 2 + risen)
            moved.append((width / opened - 1) * tf.clip_by_value(above, 0.0, opened))
            log_dets.append(_inside(above, opened) * tf.math.log(width / opened))
            risen += opened - width
        return tf.add_n(moved), tf.reduce_sum(tf.add_n(log_dets), axis=-1)

    def _cells(self, x: tf.Tensor) -> list[list[tf.Tensor]]:
        """Gives each cell by itself, three [D]; all at once take thrice the time."""
        cells = tf.cast(self.values(x), x.dtype)
        return [tf.unstack(cell) for cell in tf.unstack(cells, axis=-1)]


def _inside(above: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return tf.cast((above > 0) & (above < width), above.dtype)

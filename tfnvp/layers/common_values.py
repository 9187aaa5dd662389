"""The common values of a table's columns, and how wide a flow opens their cells."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.columns import no_cells
from tfnvp.configured_layer import UncastLayer


@keras.saving.register_keras_serializable(package="tfnvp")
class CommonValues(UncastLayer):
    """Cells around common values of each dimension, and the widths to which they are opened.

    `tfnvp.bijectors.OpenedCells` opens them. They are neither trained nor touched by training, and
    as wide as before until `take`.

    Args:
        count: how many cells each dimension may have, 1 or more.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., D], not cast to the policy's compute dtype.

    Returns:
        [3, D, count], in the layer's variable dtype: the middles of the cells, ascending, their
        widths, and the widths to which they are opened.
    """

    def __init__(self, count: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count

    def build(self, x_shape: tuple) -> None:
        shape, options = (3, x_shape[-1], self.count), {"trainable": False, "autocast": False}
        closed = no_cells(*shape[1:])
        self.cells = self.add_weight(
            shape, lambda _, dtype: tf.constant(closed, dtype), name="cells", **options
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(self.cells)

    def take(self, cells: np.ndarray) -> None:
        """Takes cells [3, D, count], in place of any before."""
        self.cells.assign(cells)

"""How common each pixel intensity is."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.checks import check_positive_int
from tfnvp.configured_layer import UncastLayer


@keras.saving.register_keras_serializable(package="tfnvp")
class IntensityHistogram(UncastLayer):
    """Masses of equal cells of [0, 1], which are learned; at first all are the same.

    Args:
        cells: how many there are, 2 or more.
        spread: the share of the mass, above 0, that all cells have evenly, so that none is empty.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: of any shape, not cast to the policy's compute dtype.

    Returns:
        [cells], positive and of sum one, in the layer's variable dtype.

    Raises:
        ValueError: for fewer than 2 cells, or a spread that is not in (0, 1].
    """

    def __init__(self, cells: int = 256, spread: float = 0.05, **kwargs: Any) -> None:
        check_positive_int("cells", cells)
        if cells < 2:
            raise ValueError(f"cells must be 2 or more, got cells={cells}")
        if not 0 < spread <= 1:
            raise ValueError(f"spread must be in (0, 1], got spread={spread!r}")
        super().__init__(**kwargs)
        self.cells = cells
        self.spread = spread

    def build(self, x_shape: tuple) -> None:
        self.logits = self.add_weight((self.cells,), "zeros", name="logits", autocast=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return (1 - self.spread) * tf.nn.softmax(self.logits) + self.spread / self.cells

    def take(self, counts: np.ndarray) -> None:
        """Takes counts [cells] of values in place of the masses before."""
        # A cell that has not been seen is as common as one of which half a value was.
        shares = np.maximum(counts, 0.5)
        self.logits.assign(np.log(shares / shares.sum()))

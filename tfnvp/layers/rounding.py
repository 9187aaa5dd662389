"""Uniform noise within the cells of rounded columns, in training."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.configured_layer import UncastLayer
from tfnvp.seeds import fresh_seed, uniform


@keras.saving.register_keras_serializable(package="tfnvp")
class Rounding(UncastLayer):
    """Spreads the values of rounded columns over their cells in training.

        x + step * (u - 1/2),    u ~ Uniform[0, 1) for each value,

    fresh at each step of training, and other noise on each replica; without it a flow would put
    spikes of unbounded density on a column of few values. In inference u is 1/2, the middle
    of the cell: the density of a row is that of the dequantised row there. Source: Uria, Murray
    and Larochelle (arXiv 1306.0186).

    Args:
        seed: the seed of the noise; None draws one.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., D], not cast to the policy's compute dtype. training: as in Keras.

    Returns:
        [..., D], of x's dtype.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, x_shape: tuple) -> None:
        options = {"trainable": False, "autocast": False}
        self.step = self.add_weight((x_shape[-1],), "zeros", name="step", **options)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return x
        noise = uniform(tf.shape(x), fresh_seed(self.seed_generator), x.dtype) - 0.5
        return x + tf.cast(tf.convert_to_tensor(self.step), x.dtype) * noise

    def set_steps(self, steps: np.ndarray) -> None:
        """Takes the width of each column's cells, [D], 0 for a continuous column.

        Raises:
            ValueError: for more or fewer steps than D, and for negative or infinite ones.
        """
        steps = np.asarray(steps, "float64")
        if steps.shape != tuple(self.step.shape) or not np.all((steps >= 0) & np.isfinite(steps)):
            raise ValueError(
                f"steps must be {self.step.shape[0]} finite numbers of 0 or more, got "
                f"steps={steps.tolist()}"
            )
        self.step.assign(steps)

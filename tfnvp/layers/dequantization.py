"""Uniform noise within each level, which makes discrete images continuous."""

from typing import Any

import keras
import tensorflow as tf

from tfnvp.configured_layer import UncastLayer
from tfnvp.seeds import fresh_seed, uniform


@keras.saving.register_keras_serializable(package="tfnvp")
class Dequantization(UncastLayer):
    """Spreads each of the discrete levels of a pixel uniformly over its share of [0, 1].

        x = (image + u) / levels,    u ~ Uniform[0, 1) for each pixel and channel,

    so that -log2 p(x) / D + log2(levels) bounds the bits per dimension of the discrete image. In
    training u is drawn afresh at each step, and on each replica; in inference it is one fixed draw
    of the image's shape, the same for every image, so that a score depends on neither the batch nor
    the position in it; `draw` chooses another one. Float images, already continuous, are returned
    as they are. Source: Uria, Murray and Larochelle (arXiv 1306.0186); Theis et al. (arXiv
    1511.01844), section 3.1.

    Args:
        levels: how many values a pixel takes: uint8 images hold 0..levels-1.
        seed: the seed of the training noise; None draws one.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        images: [N, H, W, C], uint8 or float. training: as in Keras. draw: an integer, which of the
            fixed draws.

    Returns:
        A float tensor of the images' shape, in the layer's variable dtype whatever the policy's
        compute dtype.

    Raises:
        ValueError: if levels is not an integer from 2 to 256.
    """

    def __init__(self, levels: int = 256, seed: int | None = None, **kwargs: Any) -> None:
        if not isinstance(levels, int) or not 2 <= levels <= 256:
            raise ValueError(f"levels must be an integer from 2 to 256, got levels={levels!r}")
        super().__init__(**kwargs)
        self.levels = levels
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(
        self, images: tf.Tensor, training: bool | None = None, draw: int | tf.Tensor = 0
    ) -> tf.Tensor:
        if not images.dtype.is_integer:
            return tf.cast(images, self.variable_dtype)
        shape = tf.shape(images)
        if training:
            noise = uniform(shape, fresh_seed(self.seed_generator), self.variable_dtype)
        else:
            noise = uniform(shape[1:], [0, draw], self.variable_dtype)
        return (tf.cast(images, self.variable_dtype) + noise) / self.levels

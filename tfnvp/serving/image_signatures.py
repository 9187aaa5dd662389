"""The functions that a model of images is served by: of pixels, of files, of any size."""

import math

import numpy as np
import tensorflow as tf

from tfnvp.bijectors import inverse_and_log_det
from tfnvp.models import ImageRealNVP
from tfnvp.models.multiscale import checked_image_shape
from tfnvp.serving.faults import Faults, Tensors
from tfnvp.serving.image_bytes import AnySize, decode_files
from tfnvp.serving.inputs import require, rows, up_to_pixels
from tfnvp.serving.signatures import Label, NormalSignatures, Options

ImageSize = tuple[int, int] | str | None


class ImageSignatures(NormalSignatures):
    """The functions that a model of images is served by.

    Args:
        model: to be served.
        options: of the export.
        image_size: (height, width); None for the model's own, "any" for all that its scales divide.
        max_pixels: the most of height times width where any size is taken.
    """

    data_dtype = tf.uint8

    def __init__(
        self,
        model: ImageRealNVP,
        options: Options,
        image_size: ImageSize,
        max_pixels: int,
    ) -> None:
        height, width, channels = model.image_shape
        if image_size == "any":
            height = width = None
        elif image_size is not None:
            if not isinstance(image_size, (list, tuple)) or len(image_size) != 2:
                raise ValueError(
                    f"image_size must be (height, width), 'any' or None, got {image_size!r}"
                )
            height, width = image_size
            checked_image_shape((height, width, channels), model.num_scales)
        super().__init__(model, options, [height, width, channels])
        self._max_pixels, self._divisor = max_pixels, 2 ** (model.num_scales - 1)
        self.units = {
            "images": f"uint8, 0..{model.levels - 1}; PNG and JPEG files 0..255",
            "bits_per_dim": "-log_prob / (D log 2) + log2(levels)",
        }
        if height is None:
            self.units["image_size"] = f"any of up to {max_pixels} pixels"
            self.units["batching"] = "none: images of several sizes cannot share a batch"
        if channels in (1, 3, 4):
            example = np.zeros(self._sample_shape(), np.uint8)
            self._example_file = tf.io.encode_png(example).numpy()
            files = {"image_bytes": rows("image_bytes", [], tf.string)}
            self.inputs["score_encoded"] = files | self._label

    def score_encoded(self, faults: Faults, image_bytes: tf.Tensor, label: Label = None) -> Tensors:
        """The signature `score_encoded`: `log_prob` and `bits_per_dim` [B] of files [B]."""
        any_size = AnySize(self._divisor, self._max_pixels, self._sample_shape()[:2])
        images = decode_files(image_bytes, self._shape, faults, any_size)
        levels = tf.cast(images, tf.int32) * self._model.levels // 256
        return self._finite_scores(faults, tf.cast(levels, tf.uint8), label)

    def decode(self, faults: Faults, latents: tf.Tensor, label: Label = None) -> Tensors:
        """The signature `decode`, of latents of a size that can be."""
        return super().decode(faults, self._of_a_size("latents", latents), label)

    def _name_of_data(self) -> str:
        return "images"

    def _checked_data(self, faults: Faults, images: tf.Tensor) -> tf.Tensor:
        top = self._model.levels - 1
        images = self._of_a_size("images", images)
        if top == 255:
            return images
        brightest = tf.reduce_max(tf.cast(images, tf.int32), axis=[1, 2, 3])
        message = f"images must have values 0..{top}, got up to"
        return faults.kept(images, brightest <= top, message, brightest)

    def _of_a_size(self, name: str, images: tf.Tensor) -> tf.Tensor:
        """Images of any size, unless it is too large or one that the scales do not divide."""
        if self._shape[0] is not None:
            return images
        divisor = self._divisor
        size = tf.shape(images)[1:3]
        images = up_to_pixels(name, self._max_pixels, size, images)
        message = f"{name} must have a height and width that {divisor} divides, got"
        return require((size > 0) & (size % divisor == 0), message, images, size)

    def _log_prob(self, x: tf.Tensor, label: Label) -> tf.Tensor:
        shape = self._shape
        if shape == list(self._model.image_shape):
            return super()._log_prob(x, label)
        x = self._model.dequantization(x, training=False)
        if None not in shape:
            return self._model.distribution_for(shape, label).log_prob(x)
        bijector = self._model.distribution_for(labels=label).bijector
        z, log_det = inverse_and_log_det(bijector, x, event_ndims=3)
        log_density = -0.5 * ((z - self._base_mean(label)) ** 2 + math.log(2 * math.pi))
        return tf.reduce_sum(log_density, axis=[1, 2, 3]) + log_det

    def _base_mean(self, label: Label) -> tf.Tensor:
        mean = super()._base_mean(label)
        # All pixels have the same mean, and there may be any number of them.
        return mean[..., :1, :1, :] if mean.shape.rank else mean

    def _sample_shape(self) -> list[int]:
        own = self._model.image_shape
        return [size or own_size for size, own_size in zip(self._shape, own, strict=True)]

    def _served(self, x: tf.Tensor) -> tf.Tensor:
        levels = tf.floor(x * self._model.levels)
        return tf.cast(tf.clip_by_value(levels, 0, self._model.levels - 1), tf.uint8)

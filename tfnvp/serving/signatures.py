"""The functions that a model is served by: one a signature, which checks its inputs itself."""

import contextlib
import math
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from tfnvp import metrics
from tfnvp.bijectors import inverse_and_log_det
from tfnvp.checks import check_positive_int
from tfnvp.layers import InvertibleMatrix, SplineWeights
from tfnvp.models import ImageRealNVP, VectorRealNVP
from tfnvp.serving.image_bytes import decode_files
from tfnvp.serving.inputs import checked, number_of_rows, require, rows, up_to_pixels

Model = ImageRealNVP | VectorRealNVP
ImageSize = tuple[int, int] | str | None
Label = tf.Tensor | None
Tensors = dict[str, tf.Tensor]

_MOST_PIXELS = 4_000_000  # An image of any size has no more, unless the caller says otherwise.


def signatures_of(
    model: Model,
    image_size: ImageSize = None,
    bfloat16_weights: bool = False,
    max_pixels: int | None = None,
) -> "Signatures":
    """The signatures of a model; the arguments are those of `export_saved_model`.

    Raises:
        TypeError: if the model is neither.
        ValueError: for a size that the model's scales do not divide, a size of vectors, or a limit
            where the size is fixed.
    """
    check_positive_int("max_pixels", max_pixels, optional=True)
    if max_pixels is not None and image_size != "any":
        raise ValueError(
            f"max_pixels is of image_size='any', got {max_pixels} and image_size={image_size!r}"
        )
    if isinstance(model, ImageRealNVP):
        limit = max_pixels or _MOST_PIXELS
        return ImageSignatures(model, bfloat16_weights, image_size, limit)
    if isinstance(model, VectorRealNVP):
        if image_size is not None:
            raise ValueError(f"image_size is of images, this model is of vectors, got {image_size}")
        return VectorSignatures(model, bfloat16_weights)
    raise TypeError(
        f"model must be a tfnvp.VectorRealNVP or tfnvp.ImageRealNVP, got {type(model).__name__}"
    )


class Signatures:
    """The part that images and vectors share of the functions that a model is served by.

    Attributes:
        inputs: by signature, the `tf.TensorSpec`s of its inputs by name. Each has rows first, so
            that a server can batch, and the inputs of a signature have as many rows each.
        weights: the `tf.Variable`s that the functions read.
        units: by name, in words, what values the data has and how bits/dim follow from log p.
    """

    data = None  # The name of the data, in and out.
    data_dtype = None

    def __init__(self, model: Model, bfloat16_weights: bool, shape: list[int | None]) -> None:
        self._model = model
        # The weights of the flow itself are few, and all data goes through their rounding.
        own = (InvertibleMatrix, SplineWeights)
        layers = [layer for layer in model.layers if isinstance(layer, own)]
        exact = {id(weight) for layer in layers for weight in layer.weights}
        self._stored = [
            (weight, tf.Variable(tf.cast(weight, tf.bfloat16), trainable=False))
            for weight in (model.weights if bfloat16_weights else ())
            if len(weight.shape) > 1 and weight.dtype.startswith("float")
            if id(weight) not in exact
        ]
        stored = {id(weight): variable for weight, variable in self._stored}
        self.weights = [stored.get(id(weight), weight.value) for weight in model.weights]
        self._shape = shape  # It has None where any size of the data or latents will do.
        data = {self.data: rows(self.data, shape, self.data_dtype)}
        self.inputs = {
            "log_prob": dict(data),
            "encode": dict(data),
            "decode": {"latents": rows("latents", shape, tf.float32)},
            "sample": {
                "seed": rows("seed", [], tf.int64),
                "temperature": rows("temperature", [], tf.float32),
            },
        }
        self._label = {}
        if model.num_classes:
            self._label = {"label": rows("label", [], tf.int64)}
        elif model.context_size:
            self._label = {"label": rows("label", [model.context_size], tf.float32)}
        for inputs in self.inputs.values():
            inputs |= self._label
        # It is no signature, for it has no rows without labels: `SavedModel` draws by it.
        label = list(self._label.values())
        self.latent_mean = tf.function(lambda y=None: self._base_mean(y), input_signature=label)
        # Two signatures need each of these: a function of its own is in the graph only once.
        self._scores = tf.function(self._scores)
        self._forward = tf.function(self._forward)

    def concrete(self, name: str) -> tf.types.experimental.ConcreteFunction:
        """The signature as a concrete function, which also takes no rows, and refuses bad inputs.

        TensorFlow's oneDNN convolution of no rows has the wrong channels, so a row is put in then,
        and its answer is left out.
        """

        def signature(**inputs: tf.Tensor) -> Tensors:
            inputs = checked(inputs, self.inputs[name])
            count = number_of_rows(inputs)
            inputs = {key: self._at_least_one_row(x, count) for key, x in inputs.items()}
            outputs = getattr(self, name)(**inputs)
            return {key: value[:count] for key, value in outputs.items()}

        signature.__name__ = name
        # The specs have no shapes: TensorFlow prunes assertions that it believes are statically
        # true, and the server that hands an input over has checked nothing.
        given = self.inputs[name].items()
        specs = {key: tf.TensorSpec(None, spec.dtype, spec.name) for key, spec in given}
        return tf.function(signature, autograph=False).get_concrete_function(**specs)

    def example(self, name: str) -> dict[str, np.ndarray]:
        """Inputs of one row that the signature answers to, by name."""
        own = self._sample_shape()

        def array(spec: tf.TensorSpec) -> np.ndarray:
            if spec.dtype == tf.string:
                return np.array([self._example_file], object)
            row = [size or own_size for size, own_size in zip(spec.shape[1:], own, strict=False)]
            ones = np.ones([1, *row], spec.dtype.as_numpy_dtype)
            return ones * (spec.name != "label")  # The first class may be the only one.

        return {key: array(spec) for key, spec in self.inputs[name].items()}

    def _at_least_one_row(self, x: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        missing = tf.maximum(1 - count, 0)
        if x.dtype == tf.string:
            filling = tf.fill([missing], self._example_file)
        else:
            filling = tf.zeros(tf.concat([[missing], tf.shape(x)[1:]], axis=0), x.dtype)
        return tf.concat([x, filling], axis=0)

    def log_prob(self, label: Label = None, **data: tf.Tensor) -> Tensors:
        """The signature `log_prob`: of data [B, ...], `log_prob` and `bits_per_dim` [B]."""
        return self._scores(self._checked_data(**data), label)

    def encode(self, label: Label = None, **data: tf.Tensor) -> Tensors:
        """The signature `encode`: of data [B, ...], `latents` of the same shape."""
        x = self._checked_data(**data)
        with self._weights_as_stored():
            return {"latents": _float32(self._model.inverse_in_full_precision(x, label))}

    def decode(self, latents: tf.Tensor, label: Label = None) -> Tensors:
        """The signature `decode`: of latents [B, ...], data of the same shape."""
        finite = tf.math.is_finite(latents)
        latents = require(finite, "latents must be finite, got NaN or infinity", latents)
        return {self.data: self._forward(latents, label)}

    def sample(self, seed: tf.Tensor, temperature: tf.Tensor, label: Label = None) -> Tensors:
        """The signature `sample`: of seeds [B] and temperatures [B], data [B, ...]."""
        valid = tf.math.is_finite(temperature) & (temperature >= 0)
        message = "temperature must be finite and 0 or more, got down to"
        temperature = require(valid, message, temperature, tf.reduce_min(temperature))
        shape = self._sample_shape()

        def latent(row_seed: tf.Tensor) -> tf.Tensor:
            pair = tf.bitcast(row_seed, tf.int32)
            return tf.random.stateless_normal(shape, pair, alg="philox")

        z = tf.map_fn(latent, seed, fn_output_signature=tf.TensorSpec(shape, tf.float32))
        # Samples are made in full precision, as by decode: in bfloat16 they depend on their batch.
        z *= tf.reshape(temperature, [-1] + [1] * len(shape))
        return {self.data: self._forward(z + _float32(self._base_mean(label)), label)}

    def _scores(self, x: tf.Tensor, label: Label) -> Tensors:
        with self._weights_as_stored():
            log_prob = self._log_prob(x, label)
        size = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), log_prob.dtype)
        bits = metrics.bits_per_dim(log_prob, size, self._model.levels)
        return {"log_prob": _float32(log_prob), "bits_per_dim": _float32(bits)}

    def _base_mean(self, label: Label) -> tf.Tensor:
        """The mean of the latents' distribution, to be broadcast over their rows."""
        if self._model.base_mean is None:
            return tf.zeros([], self._model.variable_dtype)
        with self._weights_as_stored():
            return self._model.distribution_for(labels=label).distribution.mean()

    def _forward(self, z: tf.Tensor, label: Label) -> tf.Tensor:
        z = tf.cast(z, self._model.variable_dtype)
        with self._weights_as_stored():
            return self._served(self._model.forward_in_full_precision(z, label))

    def _weights_as_stored(self) -> contextlib.AbstractContextManager:
        """Within this context the model's weights are read from where they are stored."""
        values = [(weight, tf.cast(value, weight.dtype)) for weight, value in self._stored]
        return keras.StatelessScope(values) if values else contextlib.nullcontext()

    def _sample_shape(self) -> list[int]:
        return _event_shape(self._model)

    def _checked_data(self, **data: tf.Tensor) -> tf.Tensor:
        """The data, once its values are checked."""
        raise NotImplementedError

    def _log_prob(self, x: tf.Tensor, label: Label) -> tf.Tensor:
        """log p(x) or log p(x | y) [B] of checked data."""
        return self._model(x, label, training=False)

    def _served(self, x: tf.Tensor) -> tf.Tensor:
        """Data as it is served, from data as the flow makes it."""
        raise NotImplementedError


class ImageSignatures(Signatures):
    """The functions that a model of images is served by."""

    data = "images"
    data_dtype = tf.uint8

    def __init__(
        self, model: ImageRealNVP, bfloat16_weights: bool, image_size: ImageSize, max_pixels: int
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
            model.checked_image_shape((height, width, channels))
        super().__init__(model, bfloat16_weights, [height, width, channels])
        self._max_pixels = max_pixels
        self.units = {
            "images": f"uint8, 0..{model.levels - 1}; PNG and JPEG files 0..255",
            "bits_per_dim": "-log_prob / (D log 2) + log2(levels)",
        }
        if height is None:
            self.units["image_size"] = f"any of up to {max_pixels} pixels"
        if channels in (1, 3, 4):
            example = np.zeros(self._sample_shape(), np.uint8)
            self._example_file = tf.io.encode_png(example).numpy()
            files = {"image_bytes": rows("image_bytes", [], tf.string)}
            self.inputs["score_encoded"] = files | self._label

    def score_encoded(self, image_bytes: tf.Tensor, label: Label = None) -> Tensors:
        """The signature `score_encoded`: `log_prob` and `bits_per_dim` [B] of files [B]."""
        images = decode_files(image_bytes, self._shape, self._max_pixels)
        images = self._of_a_size("image_bytes", images)
        levels = tf.cast(images, tf.int32) * self._model.levels // 256
        return self._scores(tf.cast(levels, tf.uint8), label)

    def decode(self, latents: tf.Tensor, label: Label = None) -> Tensors:
        """The signature `decode`, of latents of a size that can be."""
        return super().decode(self._of_a_size("latents", latents), label)

    def _checked_data(self, images: tf.Tensor) -> tf.Tensor:
        top = self._model.levels - 1
        images = self._of_a_size("images", images)
        if top == 255:
            return images
        message = f"images must have values 0..{top}, got up to"
        return require(images <= top, message, images, tf.reduce_max(tf.cast(images, tf.int32)))

    def _of_a_size(self, name: str, images: tf.Tensor) -> tf.Tensor:
        """Images of any size, unless it is too large or one that the scales do not divide."""
        if self._shape[0] is not None:
            return images
        divisor = 2 ** (self._model.num_scales - 1)
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


class VectorSignatures(Signatures):
    """The functions that a model of vectors is served by."""

    data = "vectors"
    data_dtype = tf.float32
    units: ClassVar = {"vectors": "float32", "bits_per_dim": "-log_prob / (D log 2)"}

    def __init__(self, model: VectorRealNVP, bfloat16_weights: bool) -> None:
        super().__init__(model, bfloat16_weights, _event_shape(model))

    def _checked_data(self, vectors: tf.Tensor) -> tf.Tensor:
        finite = tf.math.is_finite(vectors)
        return require(finite, "vectors must be finite, got NaN or infinity", vectors)

    def _served(self, x: tf.Tensor) -> tf.Tensor:
        return _float32(x)


def _event_shape(model: Model) -> list[int]:
    return list(model.get_build_config()["event_shape"])


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)

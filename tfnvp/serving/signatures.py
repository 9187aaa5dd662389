"""What a served model answers to: one function a signature, which checks its inputs itself."""

import contextlib
import math

import keras
import numpy as np
import tensorflow as tf

from tfnvp import metrics
from tfnvp.models import ImageRealNVP, VectorRealNVP
from tfnvp.serving.image_bytes import decode_files, require


def signatures_of(model, image_size=None, bfloat16_weights=False):
    """The signatures of a model.

    Args:
        model: an `ImageRealNVP` or a `VectorRealNVP`.
        image_size: (height, width), "any", or None for the model's own; of images only.
        bfloat16_weights: whether the functions read kernels that are stored in bfloat16.

    Returns:
        A `Signatures`.

    Raises:
        TypeError: if the model is neither.
        ValueError: for a size that the model's scales do not divide, or a size of vectors.
    """
    if isinstance(model, ImageRealNVP):
        return _ImageSignatures(model, bfloat16_weights, image_size)
    if isinstance(model, VectorRealNVP):
        if image_size is not None:
            raise ValueError(f"image_size is of images, this model is of vectors, got {image_size}")
        return _VectorSignatures(model, bfloat16_weights)
    raise TypeError(
        f"model must be a tfnvp.VectorRealNVP or tfnvp.ImageRealNVP, got {type(model).__name__}"
    )


_END = -2  # of a shape


class Signatures:
    """The functions that a model is served by: what images and vectors have in common.

    Attributes:
        inputs: by signature, the `tf.TensorSpec`s of its inputs by name. Each has rows first, so
            that a server can batch, and of each signature they are as many.
        weights: the `tf.Variable`s that the functions read.
    """

    data = None  # name of the data, in and out
    data_dtype = None

    def __init__(self, model, bfloat16_weights, shape):
        self._model = model
        self._stored = [
            (weight, tf.Variable(tf.cast(weight, tf.bfloat16), trainable=False))
            for weight in (model.weights if bfloat16_weights else ())
            if len(weight.shape) > 1 and weight.dtype.startswith("float")
        ]
        stored = {id(weight): variable for weight, variable in self._stored}
        self.weights = [stored.get(id(weight), weight.value) for weight in model.weights]
        self._shape = shape  # of a row of data or latents; None where any size will do
        data = {self.data: _rows(self.data, shape, self.data_dtype)}
        self.inputs = {
            "log_prob": dict(data),
            "encode": dict(data),
            "decode": {"latents": _rows("latents", shape, tf.float32)},
            "sample": {
                "seed": _rows("seed", [], tf.int64),
                "temperature": _rows("temperature", [], tf.float32),
            },
        }
        self._label = {}
        if model.num_classes:
            self._label = {"label": _rows("label", [], tf.int64)}
        elif model.context_size:
            self._label = {"label": _rows("label", [model.context_size], tf.float32)}
        for inputs in self.inputs.values():
            inputs |= self._label
        # What two signatures need is a function of the graph's own, and in it once.
        self._scores = tf.function(self._scores)
        self._forward = tf.function(self._forward)

    def concrete(self, name):
        """The signature as a concrete function: of no rows too, and refusing what it cannot take.

        TensorFlow's oneDNN convolution of no rows has the wrong channels: one is put there, and its
        answer left away.
        """

        def signature(**inputs):
            # In the order of the table above, whatever Python makes of keyword arguments.
            inputs = {key: _checked(inputs[key], spec) for key, spec in self.inputs[name].items()}
            rows = _number_of_rows(inputs)
            inputs = {key: self._at_least_one_row(x, rows) for key, x in inputs.items()}
            outputs = getattr(self, name)(**inputs)
            return {key: value[:rows] for key, value in outputs.items()}

        signature.__name__ = name
        # Of no shape: checks of what is known beforehand TensorFlow takes away, and the server that
        # hands an input over has checked nothing.
        specs = {
            key: tf.TensorSpec(None, spec.dtype, spec.name)
            for key, spec in self.inputs[name].items()
        }
        return tf.function(signature, autograph=False).get_concrete_function(**specs)

    def example(self, name):
        """Inputs of one row that the signature answers to, by name, arrays."""
        own = self._sample_shape()

        def array(spec):
            if spec.dtype == tf.string:
                return np.array([self._example_file], object)
            row = [size or own_size for size, own_size in zip(spec.shape[1:], own, strict=False)]
            ones = np.ones([1, *row], spec.dtype.as_numpy_dtype)
            return ones * (spec.name != "label")  # the first class: there may be no other

        return {key: array(spec) for key, spec in self.inputs[name].items()}

    def _at_least_one_row(self, x, rows):
        missing = tf.maximum(1 - rows, 0)
        if x.dtype == tf.string:
            filling = tf.fill([missing], self._example_file)
        else:
            filling = tf.zeros(tf.concat([[missing], tf.shape(x)[1:]], axis=0), x.dtype)
        return tf.concat([x, filling], axis=0)

    def log_prob(self, label=None, **data):
        """The signature `log_prob`: of data [B, ...], `log_prob` and `bits_per_dim` [B]."""
        return self._scores(self._checked_data(**data), label)

    def encode(self, label=None, **data):
        """The signature `encode`: of data [B, ...], `latents` of the same shape."""
        x = self._checked_data(**data)
        with self._weights_as_stored():
            return {"latents": _float32(self._model.inverse_in_full_precision(x, label))}

    def decode(self, latents, label=None):
        """The signature `decode`: of latents [B, ...], data of the same shape."""
        finite = tf.math.is_finite(latents)
        latents = require(finite, "latents must be finite, got NaN or infinity", latents)
        return {self.data: self._forward(latents, label)}

    def sample(self, seed, temperature, label=None):
        """The signature `sample`: of seeds [B] and temperatures [B], data [B, ...]."""
        valid = tf.math.is_finite(temperature) & (temperature >= 0)
        message = "temperature must be finite and 0 or more, got down to"
        temperature = require(valid, message, temperature, tf.reduce_min(temperature))
        shape = self._sample_shape()

        def latent(row_seed):
            pair = tf.bitcast(row_seed, tf.int32)
            return tf.random.stateless_normal(shape, pair, alg="philox")

        z = tf.map_fn(latent, seed, fn_output_signature=tf.TensorSpec(shape, tf.float32))
        # In full precision, as decode: in bfloat16 a sample would depend on its batch.
        z *= tf.reshape(temperature, [-1] + [1] * len(shape))
        return {self.data: self._forward(z + _float32(self._base_mean(label)), label)}

    def _scores(self, x, label):
        with self._weights_as_stored():
            log_prob = self._log_prob(x, label)
        bits = self._bits(log_prob, x)
        return {"log_prob": _float32(log_prob), "bits_per_dim": _float32(bits)}

    def _base_mean(self, label):
        """What latents are distributed about, to be broadcast over their rows."""
        if not self._model.conditional_base:
            return tf.zeros([])
        with self._weights_as_stored():
            return self._model.distribution_for(labels=label).distribution.mean()

    def _forward(self, z, label):
        z = tf.cast(z, self._model.variable_dtype)
        with self._weights_as_stored():
            return self._served(self._model.forward_in_full_precision(z, label))

    def _weights_as_stored(self):
        """Within this context the model's weights are read from where they are stored."""
        values = [(weight, tf.cast(value, weight.dtype)) for weight, value in self._stored]
        return keras.StatelessScope(values) if values else contextlib.nullcontext()

    def _sample_shape(self):
        return _event_shape(self._model)

    def _checked_data(self, **data):
        """The data, its values checked."""
        raise NotImplementedError

    def _log_prob(self, x, label):
        """log p(x) or log p(x | y) [B] of checked data."""
        return self._model(x, label, training=False)

    def _bits(self, log_prob, x):
        return self._model.bits(log_prob)

    def _served(self, x):
        """What the flow makes as what is served."""
        raise NotImplementedError


class _ImageSignatures(Signatures):
    data = "images"
    data_dtype = tf.uint8

    def __init__(self, model, bfloat16_weights, image_size):
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
        if channels in (1, 3, 4):
            example = np.zeros(self._sample_shape(), np.uint8)
            self._example_file = tf.io.encode_png(example).numpy()
            files = {"image_bytes": _rows("image_bytes", [], tf.string)}
            self.inputs["score_encoded"] = files | self._label

    def score_encoded(self, image_bytes, label=None):
        images = decode_files(image_bytes, self._shape)
        images = self._divisible("image_bytes", images)
        levels = tf.cast(images, tf.int32) * self._model.levels // 256
        return self._scores(tf.cast(levels, tf.uint8), label)

    def decode(self, latents, label=None):
        return super().decode(self._divisible("latents", latents), label)

    def _checked_data(self, images):
        top = self._model.levels - 1
        images = self._divisible("images", images)
        if top == 255:
            return images
        message = f"images must have values 0..{top}, got up to"
        return require(images <= top, message, images, tf.reduce_max(tf.cast(images, tf.int32)))

    def _divisible(self, name, images):
        """Images of any size, unless it is one that the scales do not divide."""
        if self._shape[0] is not None:
            return images
        divisor = 2 ** (self._model.num_scales - 1)
        size = tf.shape(images)[1:3]
        message = f"{name} must have a height and width that {divisor} divides, got"
        return require((size > 0) & (size % divisor == 0), message, images, size)

    def _log_prob(self, x, label):
        shape = self._shape
        if shape == list(self._model.image_shape):
            return super()._log_prob(x, label)
        x = self._model.dequantization(x, training=False)
        if None not in shape:
            return self._model.distribution_for(shape, label).log_prob(x)
        bijector = self._model.distribution_for(labels=label).bijector
        z = bijector.inverse(x)  # held while the log-det is looked up beside it
        log_density = -0.5 * ((z - self._base_mean(label)) ** 2 + math.log(2 * math.pi))
        log_det = bijector.inverse_log_det_jacobian(x, event_ndims=3)
        return tf.reduce_sum(log_density, axis=[1, 2, 3]) + log_det

    def _bits(self, log_prob, x):
        size = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), log_prob.dtype)
        return metrics.bits_per_dim(log_prob, size, self._model.levels)

    def _base_mean(self, label):
        mean = super()._base_mean(label)
        # The same for all pixels, of which there may be any number.
        return mean[..., :1, :1, :] if mean.shape.rank else mean

    def _sample_shape(self):
        own = self._model.image_shape
        return [size or own_size for size, own_size in zip(self._shape, own, strict=True)]

    def _served(self, x):
        levels = tf.floor(x * self._model.levels)
        return tf.cast(tf.clip_by_value(levels, 0, self._model.levels - 1), tf.uint8)


class _VectorSignatures(Signatures):
    data = "vectors"
    data_dtype = tf.float32

    def __init__(self, model, bfloat16_weights):
        super().__init__(model, bfloat16_weights, _event_shape(model))

    def _checked_data(self, vectors):
        finite = tf.math.is_finite(vectors)
        return require(finite, "vectors must be finite, got NaN or infinity", vectors)

    def _served(self, x):
        return _float32(x)


def _event_shape(model):
    return list(model.get_build_config()["event_shape"])


def _float32(x):
    return tf.cast(x, tf.float32)


def _rows(name, shape, dtype):
    return tf.TensorSpec([None, *shape], dtype, name=name)


def _checked(x, spec):
    """An input, of the rank and the sizes that its spec has."""
    takes = ", ".join("any" if size is None else str(size) for size in spec.shape[1:])
    takes = f"{spec.dtype.name} [rows{', ' if takes else ''}{takes}]"
    shape = tf.shape(x)
    # TensorFlow believes the rank that it is told later to be that of what comes in, and takes a
    # check of `tf.rank(x)` away. An end mark shows the rank among the sizes.
    expected = np.array([-1 if size is None else size for size in spec.shape] + [_END])
    sizes = tf.concat([shape, tf.fill([len(expected)], _END)], axis=0)[: len(expected)]
    fits = tf.where(expected == -1, sizes >= 0, sizes == expected)
    x = require(fits, f"{spec.name} must be {takes}, got shape", x, shape)
    return tf.ensure_shape(x, spec.shape)


def _number_of_rows(inputs):
    (first, x), *others = inputs.items()
    rows = _rows_of(x)
    for name, other in others:
        count = _rows_of(other)
        message = f"{name} must have as many rows as {first}, got"
        rows = require(tf.equal(count, rows), message, rows, count)
    return rows


def _rows_of(x):
    # Of a scalar too, for the same reason as in `_checked`.
    return tf.concat([tf.shape(x), [1]], axis=0)[0]

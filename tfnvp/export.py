"""SavedModels for TF Serving."""

import os
import shutil
import tempfile
from pathlib import Path

import tensorflow as tf

from tfnvp.checks import assert_all
from tfnvp.models import ImageRealNVP, VectorRealNVP


def export_saved_model(model, directory):
    """Writes a model as a new version of a SavedModel that TF Serving can load and batch.

    Every input and output has a leading batch dimension; nothing of tfnvp, Keras or TFP is needed
    to load it.

    | signature | in | out |
    |---|---|---|
    | `serving_default`, `log_prob` | `images` uint8 [B,H,W,C] | `log_prob`, `bits_per_dim` [B] |
    | `score_encoded` (C is 1, 3 or 4) | `image_bytes` string [B], PNG or JPEG | the same |
    | `encode` | `images` uint8 [B,H,W,C] | `latents` float32 [B,H,W,C] |
    | `decode` | `latents` float32 [B,H,W,C] | `images` uint8 [B,H,W,C] |
    | `sample` | `seed` int64 [B], `temperature` float32 [B] | `images` uint8 [B,H,W,C] |

    uint8 images carry 0..levels-1; PNG and JPEG files carry 0..255. A vector model has the same
    signatures but `score_encoded`, with `vectors` float32 [B,D] for `images` and `latents` [B,D]. A
    sample depends on its own seed alone, a score on its own image or vector.

    Each signature of a conditional model takes `label` too: int64 [B], of which -1 asks for p(x)
    and needs label_dropout in training, or float [B,context_size]; others are refused.

    Args:
        model: an `ImageRealNVP` or a `VectorRealNVP`.
        directory: of the served model; the versions 1, 2, ... are directories in it. The new one
            follows the largest, and appears whole: it is written beside and renamed.

    Returns:
        The new version's directory, a `pathlib.Path`.

    Raises:
        TypeError: if the model is neither.
        OSError: if the directory cannot be written; nothing half-written stays.
    """
    if isinstance(model, ImageRealNVP):
        signatures = _ImageSignatures(model)
    elif isinstance(model, VectorRealNVP):
        signatures = _VectorSignatures(model)
    else:
        raise TypeError(
            f"model must be a tfnvp.VectorRealNVP or tfnvp.ImageRealNVP, got {type(model).__name__}"
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # The variables are all that is kept of the model: the functions see no Keras object.
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    written = Path(tempfile.mkdtemp(prefix=".writing-", dir=directory))
    try:
        # Beside rather than in place, so that a server watching the directory sees no half model.
        tf.saved_model.save(module, str(written), signatures=signatures.concrete())
        version = 1 + max((int(p.name) for p in directory.iterdir() if p.name.isdigit()), default=0)
        written.chmod(0o755)
        target = directory / str(version)
        os.rename(written, target)
    except BaseException:
        shutil.rmtree(written, ignore_errors=True)
        raise
    return target


class _Signatures:
    """The functions that a model is served by: what images and vectors have in common."""

    data = None  # name of the data, in and out
    data_dtype = None

    def __init__(self, model):
        self._model = model
        self._shape = model.get_build_config()["event_shape"]

    def concrete(self):
        """The concrete functions by signature name."""
        data = tf.TensorSpec([None, *self._shape], self.data_dtype, name=self.data)
        latents = tf.TensorSpec([None, *self._shape], tf.float32, name="latents")
        seed = tf.TensorSpec([None], tf.int64, name="seed")
        temperature = tf.TensorSpec([None], tf.float32, name="temperature")
        label = self.label()
        log_prob = tf.function(self.log_prob).get_concrete_function(data, *label)
        return {
            "serving_default": log_prob,
            "log_prob": log_prob,
            "encode": tf.function(self.encode).get_concrete_function(data, *label),
            "decode": tf.function(self.decode).get_concrete_function(latents, *label),
            "sample": tf.function(self.sample).get_concrete_function(seed, temperature, *label),
        }

    def label(self):
        """The signatures' last argument, of a conditional model alone."""
        if self._model.num_classes:
            return [tf.TensorSpec([None], tf.int64, name="label")]
        if size := self._model.context_size:
            return [tf.TensorSpec([None, size], tf.float32, name="label")]
        return []

    def log_prob(self, x, label=None):
        log_prob = self._model(x, label, training=False)
        bits = self._model.bits(log_prob)
        return {"log_prob": _float32(log_prob), "bits_per_dim": _float32(bits)}

    def encode(self, x, label=None):
        return {"latents": _float32(self._model.inverse_in_full_precision(x, label))}

    def decode(self, latents, label=None):
        assert_all(tf.math.is_finite(latents), "latents must be finite, got NaN or infinity")
        z = tf.cast(latents, self._model.variable_dtype)
        return {self.data: self._served(self._model.forward_in_full_precision(z, label))}

    def sample(self, seed, temperature, label=None):
        def latent(row_seed):
            pair = tf.bitcast(row_seed, tf.int32)
            return tf.random.stateless_normal(self._shape, pair, alg="philox")

        z = tf.map_fn(latent, seed, fn_output_signature=tf.TensorSpec(self._shape, tf.float32))
        z *= tf.reshape(temperature, [-1] + [1] * len(self._shape))
        distribution = self._model.distribution_for(labels=label)
        x = distribution.bijector.forward(tf.cast(z, distribution.dtype))
        return {self.data: self._served(x)}

    def _served(self, x):
        """What the flow makes as what is served."""
        raise NotImplementedError


class _ImageSignatures(_Signatures):
    data = "images"
    data_dtype = tf.uint8

    def concrete(self):
        signatures = super().concrete()
        if self._shape[-1] in (1, 3, 4):
            image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
            score = tf.function(self.score_encoded)
            score = score.get_concrete_function(image_bytes, *self.label())
            signatures["score_encoded"] = score
        return signatures

    def score_encoded(self, image_bytes, label=None):
        height, width, channels = self._shape

        def decode(encoded):
            image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
            # An image of another size is refused outside the loop, in which TensorFlow drops
            # assertions; until then it has to have a shape.
            size = tf.shape(image)[:2]
            image = tf.image.resize_with_crop_or_pad(
                tf.reshape(image, [size[0], size[1], channels]), height, width
            )
            return image, size

        shapes = (tf.TensorSpec([height, width, channels], tf.uint8), tf.TensorSpec([2], tf.int32))
        images, sizes = tf.map_fn(decode, image_bytes, fn_output_signature=shapes)
        message = f"image_bytes must hold images of {height} x {width} pixels, got up to"
        assert_all(tf.equal(sizes, [height, width]), message, *tf.unstack(tf.reduce_max(sizes, 0)))
        levels = tf.cast(images, tf.int32) * self._model.levels // 256
        return self.log_prob(tf.cast(levels, tf.uint8), label)

    def _served(self, x):
        levels = tf.floor(x * self._model.levels)
        return tf.cast(tf.clip_by_value(levels, 0, self._model.levels - 1), tf.uint8)


class _VectorSignatures(_Signatures):
    data = "vectors"
    data_dtype = tf.float32

    def _served(self, x):
        return _float32(x)


def _float32(x):
    return tf.cast(x, tf.float32)

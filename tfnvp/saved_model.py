"""A SavedModel directory with the methods of the model that it was exported from."""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfnvp.checks import plain_errors


class SavedModel:
    """An exported image model, as far as its signatures go: for the command line.

    Scores, samples and latents are the model's own; images come as its levels, so that a
    reconstruction is exact and a sample is rounded. The samples of a seed are others than those of
    the `.keras` file: a served row has a seed of its own.

    Args:
        path: a version's directory, as `tfnvp.export_saved_model` returns it.

    Raises:
        ValueError: if it holds no SavedModel of images.

    Example:
        >>> import tempfile
        >>> model = tfnvp.ImageRealNVP((4, 4, 1), num_scales=1, filters=4, residual_blocks=1)
        >>> path = tfnvp.export_saved_model(model, tempfile.mkdtemp())
        >>> tfnvp.saved_model.SavedModel(path).image_shape
        (4, 4, 1)
    """

    def __init__(self, path):
        self.path = Path(path)
        if not (self.path / "saved_model.pb").is_file():
            raise ValueError(f"no SavedModel in {path}: name the version's directory, as NAME/1")
        self._module = tf.saved_model.load(str(path))
        self._signature("log_prob", "images")
        # Of the functions, which check for themselves, inputs have any shape.
        saved = saved_model_pb2.SavedModel.FromString((self.path / "saved_model.pb").read_bytes())
        images = saved.meta_graphs[0].signature_def["log_prob"].inputs["images"]
        self.image_shape = tuple(size.size for size in images.tensor_shape.dim[1:])
        if -1 in self.image_shape:
            raise ValueError(f"{path} takes images of any size: give the .keras file")
        # What a signature does not say, its two figures do: their difference is log2(levels).
        scores = self._run("log_prob", images=tf.zeros([1, *self.image_shape], tf.uint8))
        bits = scores["bits_per_dim"] + scores["log_prob"] / (
            math.prod(self.image_shape) * math.log(2)
        )
        self.levels = round(2 ** float(bits[0]))

    @property
    def signatures(self):
        """Their names, sorted."""
        return sorted(self._module.signatures)

    def log_prob(self, x):
        """log p(x) [B], nats, of uint8 images [B, H, W, C]."""
        return self._run("log_prob", images=self._levels(x))["log_prob"]

    def bits_per_dim(self, x):
        """bits/dim [B] of uint8 images [B, H, W, C]."""
        return self._run("log_prob", images=self._levels(x))["bits_per_dim"]

    def sample(self, n, temperature=1.0, seed=0):
        """Images [n, H, W, C] in [0, 1], the middles of their levels."""
        seeds = np.random.SeedSequence(seed).generate_state(n, np.uint64).astype(np.int64)
        temperatures = tf.fill([n], tf.constant(temperature, tf.float32))
        return self._intensities(self._run("sample", seed=seeds, temperature=temperatures))

    def encode(self, x):
        """Latents [B, H, W, C] of images, uint8 or in [0, 1]."""
        return self._run("encode", images=self._levels(x))["latents"]

    def decode(self, z):
        """Images [B, H, W, C] in [0, 1] of latents: the middles of their levels."""
        return self._intensities(self._run("decode", latents=tf.cast(z, tf.float32)))

    def _levels(self, x):
        x = tf.convert_to_tensor(x)
        if x.dtype != tf.uint8:
            x = tf.cast(tf.clip_by_value(tf.floor(x * self.levels), 0, self.levels - 1), tf.uint8)
        return x

    def _intensities(self, outputs):
        return (tf.cast(outputs["images"], tf.float32) + 0.5) / self.levels

    def _signature(self, name, *inputs):
        signature = self._module.signatures.get(name)
        if signature is None or set(signature.structured_input_signature[1]) != set(inputs):
            raise ValueError(
                f"{self.path} has no signature {name} of {' and '.join(inputs)} alone: give the "
                ".keras file"
            )
        return signature

    def _run(self, name, **inputs):
        signature = self._signature(name, *inputs)
        with plain_errors():
            return signature(**{key: tf.convert_to_tensor(x) for key, x in inputs.items()})

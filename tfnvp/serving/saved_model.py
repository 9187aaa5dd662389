"""A SavedModel directory with the methods of the model that it was exported from."""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.checks import check_draw, one_line, plain_errors
from tfnvp.seeds import stateless_seed
from tfnvp.serving.saved_model_graph import read_saved_model
from tfnvp.types import TensorLike

tfd = tfp.distributions


class SavedModel:
    """An exported model, as far as its signatures go: for the command line.

    Scores, samples and latents are the model's own; images come as its levels, so that a
    reconstruction is exact and a sample is rounded. A seed and a temperature draw the samples that
    they draw with the `.keras` file.

    A conditional model takes `labels` in each method: one for each row or one for all, and None
    for p(x).

    Args:
        path: a version's directory, as `tfnvp.export_saved_model` returns it.

    Attributes:
        data: "images", "vectors", or "data" where an event is no vector.
        conditional: whether its signatures take a label.
        event_shape: the shape of a row of data; images also have it as `image_shape`.
        levels: how many values a pixel takes; 1 for vectors.

    Raises:
        ValueError: if the directory holds no SavedModel that tfnvp exported, or one that is damaged
            or not whole.

    Example:
        >>> import tempfile
        >>> model = tfnvp.ImageRealNVP((4, 4, 1), num_scales=1, filters=4, residual_blocks=1)
        >>> path = tfnvp.export_saved_model(model, tempfile.mkdtemp())
        >>> tfnvp.serving.SavedModel(path).image_shape
        (4, 4, 1)
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not (self.path / "saved_model.pb").is_file():
            raise ValueError(f"no SavedModel in {path}: name the version's directory, as NAME/1")
        try:
            self._module = tf.saved_model.load(str(path))
            # The file is read too: the functions take any shape, since they check for themselves.
            saved = read_saved_model(self.path)
        except Exception as error:  # TensorFlow has many types, for each file that may be damaged.
            message = f"the SavedModel in {path} cannot be loaded: {one_line(error)}"
            raise ValueError(message) from error
        definitions = saved.meta_graphs[0].signature_def
        if "log_prob" not in definitions:
            raise ValueError(f"{path} has no signature log_prob: give the .keras file")
        inputs = definitions["log_prob"].inputs
        rows = {x.tensor_shape.dim[0].size for x in inputs.values() if x.tensor_shape.dim}
        if rows - {-1}:
            raise ValueError(f"{path} has a static batch, for converters: give the .keras file")
        self.data = next(name for name in inputs if name != "label")
        self._label = inputs.get("label")
        self.conditional = self._label is not None
        self._signature("log_prob", self.data)
        self.event_shape = tuple(size.size for size in inputs[self.data].tensor_shape.dim[1:])
        if -1 in self.event_shape:
            raise ValueError(f"{path} takes images of any size: give the .keras file")
        self.event_size = math.prod(self.event_shape)
        self.levels = 1
        if self.data == "images":
            self.image_shape = self.event_shape
            # No signature says the levels, but its two figures do: they differ by log2(levels).
            black = tf.zeros([1, *self.image_shape], tf.uint8)
            scores = self._score(black, 0.0 if self.conditional else None)
            bits = scores["bits_per_dim"] + scores["log_prob"] / (self.event_size * math.log(2))
            self.levels = round(2 ** float(bits[0]))

    @property
    def signatures(self) -> list[str]:
        """The names of the signatures, sorted."""
        return sorted(self._module.signatures)

    def log_prob(self, x: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """log p(x) [B], nats, of uint8 images [B, H, W, C] or vectors [B, D]."""
        return self._score(x, labels)["log_prob"]

    def bits_per_dim(self, x: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """bits/dim [B] of the same data as `log_prob`."""
        return self._score(x, labels)["bits_per_dim"]

    def sample(
        self, n: int, labels: TensorLike | None = None, temperature: float = 1.0, seed: int = 0
    ) -> tf.Tensor:
        """Images [n, H, W, C] in [0, 1], the middles of their levels, or vectors [n, D]."""
        latent_mean = getattr(self._module, "latent_mean", None)
        if latent_mean is None:
            raise ValueError(
                f"{self.path} has no normal latents to draw by a seed, or is of an earlier tfnvp: "
                "call its signature `sample`, or export it again"
            )
        with plain_errors():
            mean = latent_mean(self._labels(labels, n)) if self.conditional else latent_mean()
        # It is drawn as the model draws it, in the model's precision.
        check_draw(n, temperature)
        zeros = tf.zeros(self.event_shape, mean.dtype)
        base = tfd.Independent(tfd.Normal(zeros, tf.ones([], mean.dtype)), len(self.event_shape))
        noise = base.sample(n, seed=stateless_seed(seed))
        return self.decode(mean + tf.cast(temperature, mean.dtype) * noise, labels)

    def encode(self, x: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """Latents of data: images, uint8 or in [0, 1], or vectors."""
        return self._run("encode", labels, **self._to_inputs(x))["latents"]

    def decode(self, z: TensorLike, labels: TensorLike | None = None) -> tf.Tensor:
        """Data of latents, in the form that `sample` gives."""
        return self._from_outputs(self._run("decode", labels, latents=tf.cast(z, tf.float32)))

    def _score(self, x: TensorLike, labels: TensorLike | None) -> dict[str, tf.Tensor]:
        return self._run("log_prob", labels, **self._to_inputs(x))

    def _to_inputs(self, x: TensorLike) -> dict[str, tf.Tensor]:
        x = tf.convert_to_tensor(x)
        if self.data != "images":
            x = tf.cast(x, tf.float32)
        elif x.dtype != tf.uint8:
            x = tf.cast(tf.clip_by_value(tf.floor(x * self.levels), 0, self.levels - 1), tf.uint8)
        return {self.data: x}

    def _from_outputs(self, outputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if self.data != "images":
            return outputs[self.data]
        return (tf.cast(outputs["images"], tf.float32) + 0.5) / self.levels

    def _signature(self, name: str, *inputs: str) -> tf.types.experimental.ConcreteFunction:
        signature = self._module.signatures.get(name)
        label = {"label"} if self.conditional else set()
        if signature is None or set(signature.structured_input_signature[1]) != {*inputs} | label:
            needed = f"{name} of {' and '.join(inputs)}"
            raise ValueError(f"{self.path} has no signature {needed}: give the .keras file")
        return signature

    def _run(
        self, name: str, labels: TensorLike | None, **inputs: TensorLike
    ) -> dict[str, tf.Tensor]:
        signature = self._signature(name, *inputs)
        inputs = {key: tf.convert_to_tensor(x) for key, x in inputs.items()}
        if self.conditional:
            inputs["label"] = self._labels(labels, len(next(iter(inputs.values()))))
        elif labels is not None:
            raise ValueError("labels must be None, for the model is not conditional")
        try:
            with plain_errors():
                outputs = signature(**inputs)
        except tf.errors.InvalidArgumentError as error:
            # An export asserts what it is given in words of its own.
            asserted = re.search(r"assertion failed: \[(.*?)\]", str(error))
            raise ValueError(asserted[1] if asserted else one_line(error)) from error
        for row, fault in enumerate(outputs.get("error", tf.constant([""])).numpy()):
            if fault:
                raise ValueError(f"row {row}: {fault.decode()}")
        return outputs

    def _labels(self, labels: TensorLike | None, rows: int) -> tf.Tensor:
        dtype = tf.as_dtype(self._label.dtype)
        size = [size.size for size in self._label.tensor_shape.dim[1:]]
        if dtype.is_floating and np.asarray(labels).dtype.kind != "f":
            kind = "none" if labels is None else f"dtype {np.asarray(labels).dtype}"
            raise ValueError(f"labels must be floats [{rows}, {size[0]}], got {kind}")
        labels = np.asarray(-1 if labels is None else labels, dtype.as_numpy_dtype)
        return tf.convert_to_tensor(np.broadcast_to(labels, [rows, *size]))

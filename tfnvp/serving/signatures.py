"""The functions that a model is served by: one a signature, which checks its inputs itself."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow as tf

from tfnvp import metrics
from tfnvp.distribution import mean_or_none
from tfnvp.graph.full_precision import full_precision
from tfnvp.models import FlowModel
from tfnvp.serving.convertible import convertible
from tfnvp.serving.faults import Faults, Tensors
from tfnvp.serving.inputs import checked, number_of_rows, rows
from tfnvp.serving.stored_weights import StoredWeights

Label = tf.Tensor | None

_OVERFLOWS = "are too far from what the model was trained on: numbers overflow"


class Options(NamedTuple):
    """The options of an export, which `export_saved_model` documents."""

    bfloat16_weights: bool = False
    strict: bool = False
    static_batch: int | None = None


class Signatures:
    """The functions that any `FlowModel` is served by, made of its event shape.

    A method a signature has the faults of the rows for its first argument, then the inputs, of one
    row at least; it returns the outputs, of which those of rows with faults are left aside.

    Args:
        model: to be served.
        options: of the export.
        shape: of a row of data, with None for any size; None for the model's own.

    Attributes:
        data: the name of the data, in and out.
        inputs: by signature, the `tf.TensorSpec`s of its inputs by name. Each has rows first, so
            that a server can batch, and the inputs of a signature have as many rows each.
        weights: the `tf.Variable`s that the functions read.
        units: by name, in words, what values the data has and how bits/dim follow from log p.
        latent_mean: a function of the label, if there are any, that gives the mean of latents that
            are normal but for it; None for others. It is no signature, for it has no rows.
    """

    data_dtype = tf.float32
    units: ClassVar[Mapping[str, str]] = {"bits_per_dim": "-log_prob / (D log 2)"}
    latent_mean = None

    def __init__(
        self,
        model: FlowModel,
        options: Options,
        shape: list[int | None] | None = None,
    ) -> None:
        self._model, self._options = model, options
        self._stored = StoredWeights(model, options.bfloat16_weights)
        self.weights = self._stored.variables
        flow = model.flow
        latent_shape = flow.distribution.event_shape.as_list() if shape is None else shape
        # This has None where any size of the data or latents will do.
        self._shape = flow.event_shape.as_list() if shape is None else shape
        self.data = self._name_of_data()
        self.units = {self.data: self.data_dtype.name, **self.units}
        data = {self.data: rows(self.data, self._shape, self.data_dtype)}
        self.inputs = {
            "log_prob": dict(data),
            "encode": dict(data),
            "decode": {"latents": rows("latents", latent_shape, tf.float32)},
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
        if options.static_batch:
            # Converters want functions inlined.
            return
        # Two signatures need each of these: a function of its own is in the graph only once.
        self._scores = tf.function(self._scores)
        self._forward = tf.function(self._forward)

    def concrete(self, name: str) -> tf.types.experimental.ConcreteFunction:
        """The signature as a concrete function, which also takes no rows, and refuses bad inputs.

        TensorFlow's oneDNN convolution of no rows has the wrong channels, so a row is put in then,
        and its answer is left out.
        """

        if self._options.static_batch:
            return self._static(name, self._options.static_batch)

        def signature(**inputs: tf.Tensor) -> Tensors:
            inputs = checked(inputs, self.inputs[name])
            count = number_of_rows(inputs)
            inputs = {key: self._at_least_one_row(x, count) for key, x in inputs.items()}
            outputs = self.answer(name, inputs, tf.maximum(count, 1))
            return {key: value[:count] for key, value in outputs.items()}

        signature.__name__ = name
        # The specs have no shapes: TensorFlow prunes assertions that it believes are statically
        # true, and the server that hands an input over has checked nothing.
        given = self.inputs[name].items()
        specs = {key: tf.TensorSpec(None, spec.dtype, spec.name) for key, spec in given}
        return tf.function(signature, autograph=False).get_concrete_function(**specs)

    def _static(self, name: str, count: int) -> tf.types.experimental.ConcreteFunction:
        """The signature for converters: all shapes are known, and there are no texts."""

        def signature(**inputs: tf.Tensor) -> Tensors:
            return self.answer(name, inputs, count)

        signature.__name__ = name
        specs = {
            key: tf.TensorSpec([count, *spec.shape[1:]], spec.dtype, key)
            for key, spec in self.inputs[name].items()
        }
        with full_precision(self._model.layers):
            function = tf.function(signature, autograph=False).get_concrete_function(**specs)
        return convertible(function)

    def answer(self, name: str, inputs: Tensors, count: tf.Tensor | int) -> Tensors:
        """The outputs of a signature, by name, for inputs of `count` rows, one at least."""
        texts = self._options.static_batch is None
        faults = Faults(count, self._options.strict, texts)
        if "label" in inputs:
            inputs = {**inputs, "label": self._checked_label(faults, inputs["label"])}
        return faults.answered(getattr(self, name)(faults, **inputs))

    def example(self, name: str) -> dict[str, np.ndarray]:
        """Inputs of one row that the signature answers to, by name."""
        own = self._sample_shape()

        def array(spec: tf.TensorSpec) -> np.ndarray:
            if spec.dtype == tf.string:
                return np.array([self._example_file], object)
            if spec.name == self.data:
                return self._example_data()
            row = [size or own_size for size, own_size in zip(spec.shape[1:], own, strict=False)]
            row += spec.shape[1 + len(row) :]
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

    # The signatures.

    def log_prob(self, faults: Faults, label: Label = None, **data: tf.Tensor) -> Tensors:
        """The signature `log_prob`: of data [B, ...], `log_prob` and `bits_per_dim` [B]."""
        return self._finite_scores(faults, self._checked_data(faults, **data), label)

    def encode(self, faults: Faults, label: Label = None, **data: tf.Tensor) -> Tensors:
        """The signature `encode`: of data [B, ...], `latents` of the same shape."""
        x = self._checked_data(faults, **data)
        with self._stored.read():
            z = _float32(self._model.inverse_in_full_precision(x, label))
        return {"latents": faults.finite(z, f"{self.data} {_OVERFLOWS}")}

    def decode(self, faults: Faults, latents: tf.Tensor, label: Label = None) -> Tensors:
        """The signature `decode`: of latents [B, ...], data of the same shape."""
        z = faults.finite(latents, "latents must be finite, got NaN or infinity")
        return {self.data: self._finite_data(faults, z, label)}

    def sample(
        self, faults: Faults, seed: tf.Tensor, temperature: tf.Tensor, label: Label = None
    ) -> Tensors:
        """The signature `sample`: of seeds [B] and temperatures [B], data [B, ...]."""
        mean = self._mean_of_base()
        if mean is None:
            valid, takes = tf.equal(temperature, 1), "1, for the base distribution has no mean"
        else:
            valid, takes = (
                tf.math.is_finite(temperature) & (temperature >= 0),
                "finite and 0 or more",
            )
        temperature = faults.kept(
            temperature, valid, f"temperature must be {takes}, got", temperature
        )
        noise = tf.map_fn(
            lambda row: self._noise(tf.bitcast(row, tf.int32)),
            seed,
            fn_output_signature=self._noise_spec(),
        )
        z = noise
        if mean is not None:
            factor = tf.reshape(temperature, [-1] + [1] * (noise.shape.rank - 1))
            z = mean + tf.cast(factor, noise.dtype) * (noise - mean)
        # Samples are made in full precision, as by decode: in bfloat16 they depend on their batch.
        return {self.data: self._finite_data(faults, self._shifted(z, label), label)}

    # Parts that they share.

    def _finite_scores(self, faults: Faults, x: tf.Tensor, label: Label) -> Tensors:
        scores = self._scores(x, label)
        log_prob = faults.finite(scores["log_prob"], f"{self.data} {_OVERFLOWS}")
        return {**scores, "log_prob": log_prob}

    def _finite_data(self, faults: Faults, z: tf.Tensor, label: Label) -> tf.Tensor:
        x = self._forward(z, label)
        return self._served(faults.finite(x, f"{self.data} of these latents overflow"))

    def _scores(self, x: tf.Tensor, label: Label) -> Tensors:
        with self._stored.read():
            log_prob = self._log_prob(x, label)
        size = tf.cast(tf.reduce_prod(tf.shape(x)[1:]), log_prob.dtype)
        bits = metrics.bits_per_dim(log_prob, size, self._model.levels)
        return {"log_prob": _float32(log_prob), "bits_per_dim": _float32(bits)}

    def _forward(self, z: tf.Tensor, label: Label) -> tf.Tensor:
        z = tf.cast(z, self._model.flow.dtype)
        with self._stored.read():
            return _float32(self._model.forward_in_full_precision(z, label))

    def _shifted(self, z: tf.Tensor, label: Label) -> tf.Tensor:
        """Latents as the base of each label has them."""
        if self._model.base_mean is None:
            return z
        with self._stored.read():
            shift = self._model.distribution_for(labels=label).distribution.bijector
            return shift.forward(tf.cast(z, self._model.flow.dtype))

    def _checked_label(self, faults: Faults, label: tf.Tensor) -> tf.Tensor:
        if not self._model.num_classes:
            return faults.finite(label, "label must be finite, got NaN or infinity")
        encoding = self._model.condition.encoding
        return faults.kept(
            label, encoding.valid(label), f"label must be {encoding.classes}, got", label
        )

    # Parts that each kind of models has in its own way.

    def _name_of_data(self) -> str:
        return "vectors" if len(self._shape) == 1 else "data"

    def _example_data(self) -> np.ndarray:
        """A row of data [1, ...] that can be: a flow may have bounds, and ones lie beyond them."""
        label = [tf.zeros([1, *spec.shape[1:]], spec.dtype) for spec in self._label.values()]
        (label,) = label or [None]
        noise = self._noise(tf.constant([0, 1]))[tf.newaxis]
        return self._forward(self._shifted(noise, label), label).numpy()

    def _checked_data(self, faults: Faults, **data: tf.Tensor) -> tf.Tensor:
        """The data, once its values are checked."""
        ((name, x),) = data.items()
        return faults.finite(x, f"{name} must be finite, got NaN or infinity")

    def _log_prob(self, x: tf.Tensor, label: Label) -> tf.Tensor:
        """log p(x) or log p(x | y) [B] of checked data."""
        return self._model(x, label, training=False)

    def _served(self, x: tf.Tensor) -> tf.Tensor:
        """Data as it is served, from data as the flow makes it."""
        return x

    def _sample_shape(self) -> list[int]:
        return self._model.flow.event_shape.as_list()

    def _noise(self, seed: tf.Tensor) -> tf.Tensor:
        """The draw of the base distribution that a seed, int32 [2], gives."""
        return self._model.flow.distribution.sample(seed=seed)

    def _noise_spec(self) -> tf.TensorSpec:
        base = self._model.flow.distribution
        return tf.TensorSpec(base.event_shape, base.dtype)

    def _mean_of_base(self) -> tf.Tensor | None:
        """The mean that temperature shrinks latents to; None where there is none."""
        return mean_or_none(self._model.flow.distribution)


class NormalSignatures(Signatures):
    """The functions of a model whose latents are standard normal, up to a mean of each label."""

    def __init__(
        self, model: FlowModel, options: Options, shape: list[int | None] | None = None
    ) -> None:
        super().__init__(model, options, shape)
        label = list(self._label.values())
        # `SavedModel` draws by it.
        self.latent_mean = tf.function(lambda y=None: self._base_mean(y), input_signature=label)

    def _base_mean(self, label: Label) -> tf.Tensor:
        """The mean of the latents' distribution, to be broadcast over their rows."""
        if self._model.base_mean is None:
            return tf.zeros([], self._model.variable_dtype)
        with self._stored.read():
            return self._model.distribution_for(labels=label).distribution.mean()

    def _shifted(self, z: tf.Tensor, label: Label) -> tf.Tensor:
        return z + _float32(self._base_mean(label))

    def _example_data(self) -> np.ndarray:
        return np.ones([1, *self._sample_shape()], self.data_dtype.as_numpy_dtype)

    def _noise(self, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(self._sample_shape(), seed, alg="philox")

    def _noise_spec(self) -> tf.TensorSpec:
        return tf.TensorSpec(self._sample_shape(), tf.float32)

    def _mean_of_base(self) -> tf.Tensor:
        return tf.zeros([], tf.float32)


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)

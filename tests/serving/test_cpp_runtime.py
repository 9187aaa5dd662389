"""Exports answer to the C++ loader that TF Serving is built on, where no Python TensorFlow is.

TFNVP_SERVING_SECONDS=60 runs the mixed requests for a minute; here they take some seconds.
"""

import io
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.wrong_requests import (
    ROWS,
    SEEDS,
    TEMPERATURES,
    array,
    faulty_requests,
    file_of,
    wrong_requests,
)
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

import tfnvp

SECONDS = float(os.environ.get("TFNVP_SERVING_SECONDS", 2))
INVALID_ARGUMENT = 3
RUNNER = Path(__file__).parents[1] / "helpers" / "cpp_runtime.py"
SHIPPED = Path(__file__).parents[2] / "saved_models"


@pytest.fixture(scope="module")
def runtime():
    """runtime(saved_model, jobs, seconds=0): what `cpp_runtime.py` answers, one process for all."""
    command = [sys.executable, RUNNER, Path(tf.__file__).parent]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:

        def run(saved_model, jobs, seconds=0):
            pickle.dump((str(saved_model), jobs, seconds), process.stdin)
            process.stdin.flush()
            try:
                return pickle.load(process.stdout)
            except EOFError:
                pytest.fail(f"the C++ runtime ended with {process.wait()}")

        yield run


class Served:
    """An export, what it was made of, and jobs for the runner by its tensors' names."""

    def __init__(self, model, path, bits=1e-4, sizes=None, rows=ROWS):
        self.model, self.path, self.bits, self.rows = model, path, bits, rows
        self.images = isinstance(model, tfnvp.ImageRealNVP)
        own = list(model.image_shape) if self.images else [model.event_size]
        self.own = own
        self.shapes = [[*size, own[-1]] for size in sizes] if sizes else [own]
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        self.signatures = saved.meta_graphs[0].signature_def
        self._expected = {}
        sizes = self.signatures["log_prob"].inputs["images" if self.images else "vectors"]
        self.any_size = -1 in [dim.size for dim in sizes.tensor_shape.dim[1:]]

    def job(self, signature, inputs):
        definition = self.signatures[signature]
        feeds = {definition.inputs[key].name: array(x) for key, x in inputs.items()}
        # Texts of errors come last.
        keys = sorted(definition.outputs, key=lambda key: (key == "error", key))
        return feeds, [definition.outputs[key].name for key in keys]

    def data(self, shape):
        """Rows of images or vectors [64, ...], and labels of as many rows, or none."""
        random = np.random.default_rng(0)
        if self.images:
            data = random.integers(0, self.model.levels, [ROWS, *shape], dtype=np.uint8)
        else:
            data = random.normal(size=[ROWS, *shape]).astype("float32")
        if self.model.num_classes:
            return data, random.integers(-1, self.model.num_classes, ROWS)
        if self.model.context_size:
            return data, random.normal(size=[ROWS, self.model.context_size]).astype("float32")
        return data, None

    def expected(self, shape):
        """By signature, inputs of `rows` rows and the model's outputs, sorted by name."""
        if tuple(shape) not in self._expected:
            self._expected[tuple(shape)] = self._by_the_model(shape)
        return self._expected[tuple(shape)]

    def _by_the_model(self, shape):
        model, (data, labels) = self.model, self.data(shape)
        data, labels = data[: self.rows], labels if labels is None else labels[: self.rows]
        seeds, temperatures = SEEDS[: self.rows], TEMPERATURES[: self.rows]
        name = "images" if self.images else "vectors"
        label = {} if labels is None else {"label": labels}
        scores = self._scores(data, labels)
        latents = self._of_labels(lambda y: self._encoded(data, y), labels)
        expected = {
            "serving_default": ({name: data} | label, scores),
            "log_prob": ({name: data} | label, scores),
            "encode": ({name: data} | label, [latents]),
            "decode": ({"latents": latents} | label, [data]),
        }
        if "score_encoded" in self.signatures:
            files = [self._file(image, i) for i, image in enumerate(data)]
            pixels = [np.reshape(Image.open(io.BytesIO(file)), shape) for file in files]
            levels = (np.array(pixels, int) * model.levels // 256).astype("uint8")
            inputs = {"image_bytes": np.array(files, object)} | label
            expected["score_encoded"] = inputs, self._scores(levels, labels)
        if shape == self.own:
            pairs = tf.bitcast(tf.constant(seeds, tf.int64), tf.int32)
            z = [tf.random.stateless_normal(shape, pair, alg="philox") for pair in pairs]
            z = np.array(z) * temperatures.reshape([-1] + [1] * len(shape))
            drawn = self._of_labels(lambda y: model.decode(z, y).numpy(), labels)
            if self.images:
                drawn = np.clip(np.floor(drawn * model.levels), 0, model.levels - 1)
            inputs = {"seed": seeds, "temperature": temperatures} | label
            expected["sample"] = inputs, [drawn]
        assert expected.keys() <= set(self.signatures)
        return expected

    def _scores(self, data, labels):
        log_prob = self._of_labels(lambda y: self._log_prob(data, y), labels)
        bits = -log_prob / math.log(2) / data[0].size
        return [bits + (math.log2(self.model.levels) if self.images else 0), log_prob]

    def _log_prob(self, data, labels):
        if list(data.shape[1:]) == self.own:
            return self.model.log_prob(data, labels).numpy()
        x = self.model.dequantization(tf.constant(data), training=False)
        return self.model.distribution_for(data.shape[1:], labels).log_prob(x).numpy()

    def _encoded(self, data, labels):
        if list(data.shape[1:]) == self.own:
            return self.model.encode(data, labels).numpy()
        x = tf.constant((data + np.float32(0.5)) / self.model.levels, tf.float32)
        return self.model.distribution_for(data.shape[1:], labels).bijector.inverse(x).numpy()

    def _of_labels(self, function, labels):
        """The function's answers, which for rows whose label is -1 are those without labels."""
        if labels is None or not self.model.num_classes:
            return function(labels)
        given = function(np.maximum(labels, 0))
        left_out = (labels == -1).reshape([-1] + [1] * (given.ndim - 1))
        return np.where(left_out, function(None), given)

    def _file(self, image, i):
        # floor(v * levels / 256) gives the level back; JPEG changes it, and has no alpha.
        values = -(-image.astype(int) * 256 // self.model.levels).astype("uint8")
        return file_of(values, "JPEG" if i % 2 and image.shape[-1] != 4 else "PNG")


def _kernels_as_stored(model):
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(tf.cast(tf.cast(weight, tf.bfloat16), tf.float32))
    return model


def _vectors(randomize, **options):
    model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(4,), **options)
    # Scores are compared in bits: weights of other seeds send a row 340 nats out, where float32 has
    # no more than seven steps within what is asked for.
    return randomize(model, seed=1)


# The model of `tiny_model` and `randomize`, options of the export, and what `Served` takes besides.
EXPORTED = {
    "any size": lambda tiny, _: (
        tiny((4, 4, 3), num_scales=2, levels=256),
        {"image_size": "any"},
        {"sizes": [(4, 4), (6, 8)]},
    ),
    "another size": lambda tiny, _: (
        tiny((4, 4, 1)),
        {
            "image_size": (3, 5),
            "signatures": ["log_prob", "score_encoded", "encode", "decode"],
        },
        {"sizes": [(3, 5)]},
    ),
    "kernels in bfloat16": lambda tiny, _: (
        _kernels_as_stored(tiny((4, 4, 3), levels=256)),
        {"bfloat16_weights": True},
        {},
    ),
    # Scores are to be within 0.01 bits/dim of full precision, all else in full precision.
    "mixed precision": lambda tiny, _: (
        tiny((4, 4, 4), levels=256, dtype="mixed_bfloat16"),
        {},
        {"bits": 0.01, "model": tiny((4, 4, 4), levels=256)},
    ),
    "vectors": lambda _, randomize: (_vectors(randomize), {}, {}),
    "vectors of a context": lambda _, randomize: (_vectors(randomize, context_size=2), {}, {}),
}


# It is large enough to take most of this file's time.
LARGE = pytest.param("cifar10_small", marks=pytest.mark.slow)


# These go the way of others, with other kernels.
RARE = ("another size", "mixed precision", "kernels in bfloat16", "vectors of a context")
PARAMS = [pytest.param(name, marks=[pytest.mark.slow] * (name in RARE)) for name in EXPORTED]


@pytest.fixture(scope="module", params=[*PARAMS, "classes", "digits", LARGE])
def served(request, tiny_model, randomize, tmp_path_factory):
    if request.param == "classes":
        return Served(*request.getfixturevalue("of_classes"))
    if request.param not in EXPORTED:
        model = tfnvp.ImageRealNVP.from_preset(request.param, load_weights=True)
        rows = 16 if request.param == "cifar10_small" else ROWS
        return Served(model, SHIPPED / request.param / "1", rows=rows)
    model, options, details = EXPORTED[request.param](tiny_model, randomize)
    path = tfnvp.export_saved_model(model, tmp_path_factory.mktemp("export") / "tiny", **options)
    return Served(**{"model": model, "path": path, **details})


def answers_by_rows(served, shape, rows):
    """Jobs, and for each what it must be answered: its signature and arrays."""
    jobs, expected = [], []
    for count in rows:
        for signature, (inputs, outputs) in served.expected(shape).items():
            jobs.append(served.job(signature, {k: x[:count] for k, x in inputs.items()}))
            expected.append((signature, [x[:count] for x in outputs]))
    return jobs, expected


def assert_answered(served, answer, signature, expected):
    assert isinstance(answer, list), (signature, answer)
    *answer, errors = answer
    assert list(errors) == [""] * len(expected[0]), signature
    for got, wanted in zip(answer, expected, strict=True):
        assert got.shape == wanted.shape, signature
        if got.dtype == np.uint8:
            off = abs(got.astype(int) - wanted)
            # Between two levels, rounding may fall on either side.
            assert off.max(initial=0) <= (signature == "sample"), signature
            assert off.sum() <= 0.05 * off.size, signature
        elif got.ndim > 1:
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-4, err_msg=signature)
    if "log_prob" in dict(served.signatures[signature].outputs):
        dimensions = np.prod(served.shapes[-1])
        nats = served.bits * dimensions * math.log(2)
        np.testing.assert_allclose(answer[0], expected[0], rtol=0, atol=served.bits)
        np.testing.assert_allclose(answer[1], expected[1], rtol=0, atol=nats)


def test_answers_are_the_models_whatever_the_rows(served, runtime):
    for shape in served.shapes:
        jobs, expected = answers_by_rows(served, shape, (served.rows, 3, 1, 0))
        answers = runtime(served.path, jobs)[0]
        for answer, (signature, outputs) in zip(answers, expected, strict=True):
            assert_answered(served, answer, signature, outputs)
        # Answers that differ from each other, or all of the above says little.
        assert all(x.std() > 0 for answer in answers[: len(jobs) // 4] for x in answer[:-1])


def test_the_warm_up_has_requests_of_each_signature_that_are_answered(served, runtime):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = served.path / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    sent = [log.predict_log.request for log in logs]
    names = [request.model_spec.signature_name for request in sent]
    own = {name for name in served.signatures if not name.startswith("__")} - {"serving_default"}
    assert sorted(names) == sorted(3 * [*own])
    jobs = [
        served.job(
            request.model_spec.signature_name,
            {key: tf.make_ndarray(value) for key, value in request.inputs.items()},
        )
        for request in sent
    ]
    answers = runtime(served.path, jobs)[0]
    assert all(isinstance(answer, list) for answer in answers), answers
    assert not any(text for *_, errors in answers for text in errors)
    assert [len(answer[0]) for answer in answers] == [1, 8, 64] * len(own)


def test_what_cannot_be_answered_is_named_and_the_rest_goes_on(served, runtime):
    wrong = list(wrong_requests(served))
    jobs, messages = [], []
    for signature, inputs, message in wrong:
        spec = served.signatures[signature].inputs
        if "label" in spec:
            size = [dim.size for dim in spec["label"].tensor_shape.dim[1:]]
            rows = max([1, *(len(array(x)) for x in inputs.values() if array(x).ndim)])
            dtype = "int64" if served.model.num_classes else "float32"
            inputs = {**inputs, "label": np.zeros([rows, *size], dtype)}
        jobs.append(served.job(signature, inputs))
        messages.append(message)
    right, expected = answers_by_rows(served, served.shapes[0], (3,))
    answers = runtime(served.path, jobs + right)[0]
    for answer, message in zip(answers[: len(jobs)], messages, strict=True):
        assert isinstance(answer, tuple), (message, answer)
        assert answer[0] == INVALID_ARGUMENT and message in answer[1], (message, answer)
    for answer, (signature, outputs) in zip(answers[len(jobs) :], expected, strict=True):
        assert_answered(served, answer, signature, outputs)


def test_faults_stay_with_their_rows(served, runtime):
    """A row that cannot be answered says why; all others are answered as if it were not there."""
    faulty = list(faulty_requests(served))
    answers = runtime(served.path, [served.job(*request[:2]) for request in faulty])[0]
    for answer, (signature, _, told) in zip(answers, faulty, strict=True):
        assert isinstance(answer, list), (signature, answer)
        *values, errors = answer
        assert {row: text for row, text in enumerate(errors) if text} == told, signature
        for value in values:
            blank = value[list(told)]
            assert np.isnan(blank).all() if value.ndim == 1 else not blank.any(), signature
        _, expected = served.expected(served.shapes[0])[signature]
        answer = [np.delete(value, list(told), axis=0) for value in answer]
        expected = [np.delete(value, list(told), axis=0) for value in expected]
        assert_answered(served, answer, signature, expected)


@pytest.mark.slow
@pytest.mark.parametrize("served", ["digits"], indirect=True)
def test_many_at_once_are_answered_the_same_in_the_same_memory(served, runtime):
    jobs, _ = answers_by_rows(served, served.own, (served.rows, 3, 1, 0))
    wrong = [*wrong_requests(served), *faulty_requests(served)]
    jobs += [served.job(signature, inputs) for signature, inputs, _ in wrong]
    _, failures, runs, growth = runtime(served.path, jobs, SECONDS)
    print(f"{runs} requests of 8 threads in {SECONDS} s, memory grew by {growth:.1f} MB")
    assert not failures, failures[:5]
    assert runs > 10 * SECONDS
    assert growth < 30

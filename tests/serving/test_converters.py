"""Exports of a static batch, and their files of other runtimes, which need the extra `convert`.

A runtime that is not installed is skipped by name. With pytest -s the largest differences are
printed, of which docs/serving.md has a table.
"""

import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import tfnvp
from tfnvp.serving.convertible import convertible

ROWS = 3
SIGNATURES = ("log_prob", "encode", "decode")
# Operations that converters lack, or that only training and TensorFlow's own loader have a use for.
FOREIGN = {"Assert", "Log1p", "Expm1", "MatrixSetDiagV3", "PlaceholderWithDefault", "UpperBound"}
FOREIGN |= {"VarHandleOp"}

MODELS = {
    "vectors": lambda tiny: tfnvp.VectorRealNVP(
        3, num_couplings=2, hidden_units=[4], num_classes=2, label_dropout=0.1, seed=1
    ),
    "images": lambda tiny: tiny((4, 4, 3), num_scales=2),
    "equalized images": lambda tiny: tiny((4, 4, 1), equalized=True),
}
# By the name of an input: a value that its row cannot have.
WRONG = {"images": 16, "label": 7, "vectors": np.inf, "latents": np.inf}


class Case:
    """A static export, and by signature its inputs and what TensorFlow answers, by name."""

    def __init__(self, model, path):
        self.model, self.path = model, path
        self.functions = tf.saved_model.load(str(path)).signatures
        random = np.random.default_rng(0)
        if isinstance(model, tfnvp.ImageRealNVP):
            shape = (ROWS, *model.image_shape)
            data = {"images": random.integers(0, model.levels, shape, dtype=np.uint8)}
        else:
            data = {"vectors": random.normal(size=(ROWS, model.event_size)).astype("float32")}
        ((self.data, self.x),) = data.items()
        label = {"label": np.array([0, -1, 1])} if model.num_classes else {}
        self.inputs = {"log_prob": data | label, "encode": data | label}
        self.answers = {name: self.answer(name) for name in ("log_prob", "encode")}
        self.inputs["decode"] = {"latents": self.answers["encode"]["latents"]} | label
        self.answers["decode"] = self.answer("decode")

    def answer(self, name, inputs=None):
        given = self.inputs[name] if inputs is None else inputs
        tensors = {key: tf.constant(value) for key, value in given.items()}
        return {key: y.numpy() for key, y in self.functions[name](**tensors).items()}

    def check(self, runtime, name, run):
        """Holds the answers of a runtime, run(inputs), against TensorFlow's."""
        expected, got = self.answers[name], run(self.inputs[name])
        assert set(got) == set(expected)
        for key, x in expected.items():
            assert got[key].shape == x.shape and got[key].dtype == x.dtype
            largest = abs(got[key].astype(float) - x).max()
            print(f"{runtime}, {self.data}, {name}, {key}: {largest:.1e}, up to {abs(x).max():.3g}")
            np.testing.assert_allclose(got[key], x, rtol=1e-4, atol=1e-4)
        # Runtimes find the rows of faults as TensorFlow does.
        for key, x in self.inputs[name].items():
            wrong = {**self.inputs[name], key: x.copy()}
            wrong[key][1] = WRONG[key]
            got = run(wrong)
            for output, y in got.items():
                assert np.all(y[1] == 0 if output == "images" else np.isnan(y[1])), (key, output)
                for row in (0, 2):
                    np.testing.assert_allclose(y[row], expected[output][row], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module", params=MODELS)
def case(request, tiny_model, randomize, tmp_path_factory):
    model = randomize(MODELS[request.param](tiny_model))
    room = tmp_path_factory.mktemp("export")
    return Case(model, tfnvp.export_saved_model(model, room, static_batch=ROWS))


def test_the_graph_is_of_ordinary_operations_on_known_shapes(case):
    saved = saved_model_pb2.SavedModel.FromString((case.path / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    operations = {node.op for f in graph.graph_def.library.function for node in f.node_def}
    assert {"AddV2", "MatMul" if case.data == "vectors" else "Conv2D"} <= operations
    assert not operations & FOREIGN
    for name in SIGNATURES:
        definition = graph.signature_def[name]
        for told, known in (
            (definition.inputs, case.inputs[name]),
            (definition.outputs, case.answers[name]),
        ):
            shapes = {k: tuple(d.size for d in x.tensor_shape.dim) for k, x in told.items()}
            assert shapes == {key: x.shape for key, x in known.items()}
    assert not (case.path / "assets.extra").exists()


def test_answers_are_the_models(case):
    labels = case.inputs["log_prob"].get("label", [None] * ROWS)
    labels = [None if label in (None, -1) else int(label) for label in labels]
    for row, label in enumerate(labels):
        x, model = case.x[row : row + 1], case.model
        for name in ("log_prob", "bits_per_dim"):
            expected = getattr(model, name)(x, label)[0]
            # A log p near zero is the difference of larger sums, which machines round otherwise.
            np.testing.assert_allclose(
                case.answers["log_prob"][name][row], expected, rtol=1e-5, atol=2e-5
            )
        latents = case.answers["encode"]["latents"][row]
        np.testing.assert_allclose(latents, model.encode(x, label)[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(case.answers["decode"][case.data][row], x[0], atol=1e-4)


def test_loops_draws_and_fixed_answers_keep_their_meaning():
    weight = tf.Variable([1.0, 2.0])

    @tf.function
    def function(*, x):
        more = tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: (y + weight,), [x])[0]
        logs = tf.math.expm1(tf.math.log1p(weight * x)) / weight
        drawn = x + tf.random.uniform([2])
        return {"more": more, "logs": logs, "fixed": 2 * weight, "x": x, "drawn": drawn}

    made = convertible(function.get_concrete_function(x=tf.TensorSpec([2], tf.float32, "x")))
    x = tf.constant([0.5, 0.25])
    answers = {name: y.numpy().tolist() for name, y in made(x=x).items()}
    again = made(x=x)["drawn"].numpy().tolist()
    assert answers.pop("drawn") != again
    np.testing.assert_allclose(answers.pop("logs"), x, rtol=1e-6)
    assert answers == {"more": [3.5, 6.25], "fixed": [2.0, 4.0], "x": [0.5, 0.25]}
    weight.assign([5.0, 5.0])
    assert made(x=x)["fixed"].numpy().tolist() == [2.0, 4.0]


def test_what_cannot_be_together_is_named(case, tmp_path):
    for options in ({"strict": True}, {"bfloat16_weights": True}, {"image_size": "any"}):
        with pytest.raises(ValueError, match="static_batch is of one size"):
            tfnvp.export_saved_model(case.model, tmp_path / "x", static_batch=2, **options)
    with pytest.raises(ValueError, match="unknown signature 'sample'; known: log_prob, encode"):
        tfnvp.export_saved_model(case.model, tmp_path / "x", ["sample"], static_batch=2)
    with pytest.raises(ValueError, match="has a static batch, for converters"):
        tfnvp.serving.SavedModel(case.path)


@pytest.mark.parametrize("name", SIGNATURES)
def test_tflite(case, name):
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not there")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(case.path), signature_keys=[name])
    interpreter = litert.Interpreter(model_content=converter.convert())
    runner = interpreter.get_signature_runner(name)
    case.check("LiteRT", name, lambda inputs: runner(**inputs))


@pytest.mark.parametrize("name", SIGNATURES)
def test_onnx(case, name, tmp_path, monkeypatch):
    tf2onnx = pytest.importorskip("tf2onnx.convert", reason="tf2onnx is not there")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not there")
    file = str(tmp_path / "model.onnx")
    command = ["tf2onnx.convert", "--saved-model", str(case.path), "--tag", "serve"]
    command += ["--signature_def", name, "--opset", "18", "--output", file]
    monkeypatch.setattr(sys, "argv", command)
    tf2onnx.main()
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    case.check("onnxruntime", name, lambda x: dict(zip(names, session.run(names, x), strict=True)))


@pytest.mark.parametrize("name", SIGNATURES)
def test_openvino(case, name):
    openvino = pytest.importorskip("openvino", reason="openvino is not there")
    # The directory's `serving_default` is what its reader takes; the others go in as functions.
    source = str(case.path) if name == "log_prob" else case.functions[name]
    model = openvino.convert_model(source)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs):
        answer = compiled(inputs)
        known = case.answers[name]
        return {next(k for k in known if k in output.names): answer[output] for output in answer}

    case.check("OpenVINO", name, run)

"""Exports of a static batch, in the formats of other runtimes; needs the extra `convert`.

What is not installed is skipped by name.
"""

import numpy as np
import pytest
import tensorflow as tf

import tfnvp

ROWS = 3


@pytest.fixture(scope="module")
def exported(randomize, tmp_path_factory):
    """A static export, and by signature its inputs and what TensorFlow answers, by name."""
    model = randomize(tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4]))
    path = tfnvp.export_saved_model(model, tmp_path_factory.mktemp("export"), static_batch=ROWS)
    x = np.random.default_rng(0).normal(size=(ROWS, 3)).astype("float32")
    functions = tf.saved_model.load(str(path)).signatures
    inputs = {"log_prob": {"vectors": x}, "encode": {"vectors": x}}
    answers = {}
    for name in ("log_prob", "encode", "decode"):
        if name == "decode":
            inputs[name] = {"latents": answers["encode"]["latents"]}
        tensors = {key: tf.constant(value) for key, value in inputs[name].items()}
        answers[name] = {key: y.numpy() for key, y in functions[name](**tensors).items()}
    np.testing.assert_allclose(answers["decode"]["vectors"], x, atol=1e-3)
    np.testing.assert_allclose(answers["log_prob"]["log_prob"], model.log_prob(x), rtol=1e-5)
    return path, {name: (inputs[name], answers[name]) for name in answers}


def assert_same(got, expected):
    assert set(got) == set(expected)
    for name, x in expected.items():
        np.testing.assert_allclose(got[name], x, rtol=1e-4, atol=1e-4)


def test_all_shapes_are_known(exported):
    path, cases = exported
    functions = tf.saved_model.load(str(path)).signatures
    for name, (inputs, answers) in cases.items():
        specs = functions[name].structured_input_signature[1]
        assert {key: spec.shape.as_list() for key, spec in specs.items()} == {
            key: list(x.shape) for key, x in inputs.items()
        }
        assert "error" not in answers
    assert not (path / "assets.extra").exists()


@pytest.mark.parametrize("name", ["log_prob", "encode", "decode"])
def test_tflite(exported, name):
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not there")
    path, cases = exported
    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[name])
    content = converter.convert()
    runner = litert.Interpreter(model_content=content).get_signature_runner(name)
    inputs, expected = cases[name]
    assert_same(runner(**inputs), expected)


def _log1p(graph, node, name, args):
    """log(1 + x) for a node Log1p of x."""
    one = graph.make_const(f"{name}_one", np.ones([], np.float32))
    more = graph.make_node("Add", [node.input[0], one.output[0]])
    graph.replace_all_inputs(node.output[0], graph.make_node("Log", [more.output[0]]).output[0])


def _expm1(graph, node, name, args):
    """exp(x) - 1 for a node Expm1 of x."""
    one = graph.make_const(f"{name}_one", np.ones([], np.float32))
    power = graph.make_node("Exp", [node.input[0]])
    less = graph.make_node("Sub", [power.output[0], one.output[0]])
    graph.replace_all_inputs(node.output[0], less.output[0])


@pytest.mark.parametrize("name", ["encode", "decode"])
def test_onnx(exported, name):
    tf2onnx = pytest.importorskip("tf2onnx", reason="tf2onnx is not there")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not there")
    path, cases = exported
    loaded = tf.saved_model.load(str(path))
    specs = loaded.signatures[name].structured_input_signature[1]

    @tf.function(input_signature=list(specs.values()))
    def function(*args):
        return loaded.signatures[name](**dict(zip(specs, args, strict=True)))

    # ONNX has no such operations.
    handlers = {"Log1p": (_log1p, ["Log1p"]), "Expm1": (_expm1, ["Expm1"])}
    proto, _ = tf2onnx.convert.from_function(
        function, list(specs.values()), opset=17, custom_op_handlers=handlers
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    inputs, expected = cases[name]
    names = [output.name for output in session.get_outputs()]
    assert_same(dict(zip(names, session.run(names, inputs), strict=True)), expected)

"""Graphs of inference are open to converters: no call in them is closed to inlining."""

import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings

import tfnvp


def _closed_functions(concrete):
    functions = concrete.graph.as_graph_def().library.function
    return [f.signature.name for f in functions if f.attr["_noinline"].b]


MODELS = {
    "images": lambda: FewCouplings((4, 4, 1), 2, filters=4, residual_blocks=1),
    "vectors": lambda: tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4]),
}


@pytest.mark.parametrize("kind", MODELS)
def test_inference_is_open_to_inlining(kind):
    distribution = MODELS[kind]().distribution
    x = tf.TensorSpec([None, *distribution.event_shape], tf.float32)
    for function, spec in (
        (distribution.log_prob, x),
        (distribution.bijector.forward, x),
        (distribution.bijector.inverse, x),
    ):
        assert _closed_functions(tf.function(function).get_concrete_function(spec)) == []


@pytest.mark.parametrize("signature", ["log_prob", "sample", "encode", "decode", "score_encoded"])
def test_exports_are_open_to_inlining(signature, tmp_path):
    model = FewCouplings((4, 4, 1), 1, filters=4, residual_blocks=1)
    path = tfnvp.export_saved_model(model, tmp_path, signatures=[signature])
    saved = tf.saved_model.load(str(path))
    assert _closed_functions(saved.signatures[signature]) == []


def test_tflite_takes_the_log_prob_of_a_vector_model(randomize):
    model = randomize(tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[4]))
    spec = tf.TensorSpec([5, 3], tf.float32)
    log_prob = tf.function(model.distribution.log_prob).get_concrete_function(spec)
    converted = tf.lite.TFLiteConverter.from_concrete_functions([log_prob], model).convert()
    interpreter = tf.lite.Interpreter(model_content=converted)
    interpreter.allocate_tensors()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, model.log_prob(x), rtol=1e-4, atol=1e-4)

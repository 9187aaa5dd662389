"""After a change of layers nothing answers from what was traced before."""

import gc
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplings

import tfnvp

SHAPES = {"images": (4, 4, 1), "vectors": (3,)}
Y = np.array([0, 1, 1, 0])


def _make(kind, randomize, **options):
    options = {"num_classes": 2, **options}
    if kind == "images":
        model = FewCouplings((4, 4, 1), 1, 4, 1, **options)
    else:
        model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(8,), **options)
    randomize(model)
    model.compile(optimizer=tfnvp.optimizers.Adam(1e-2))
    return model, np.random.default_rng(0).uniform(0.1, 0.9, (4, *SHAPES[kind])).astype("float32")


def _dense(model):
    """The dense layers that take part: those that are built."""
    layers = [layer for one in model._flow_layers for layer in one._flatten_layers()]
    return [layer for layer in layers if isinstance(layer, keras.layers.Dense) and layer.built]


def _answers(model, x, encode=True):
    """By every function that is compiled and kept; bits/dim of each row, then the rest."""
    bits = model.bits_per_dim(x, labels=Y)
    return {
        "log_prob": bits,
        "evaluate": model.evaluate(x, Y, verbose=0, return_dict=True)["bits_per_dim"],
        "predict": model.bits(model.predict(_pairs(x), verbose=0)),
        "sample": model.sample(4, labels=Y, seed=0),
        "classify": model.classify(x),
    } | ({"encode": model.encode(x, labels=Y)} if encode else {})


def _pairs(x):
    return tf.data.Dataset.from_tensors((x, Y))


def _expected(model, x):
    """By TFP, eagerly, where nothing is kept."""
    flow = model.distribution_for(labels=Y)
    bits = model.bits(flow.log_prob(x))
    by_class = tf.stack([model.distribution_for(labels=y).log_prob(x) for y in (0, 1)], axis=1)
    expected = {"log_prob": bits, "evaluate": np.mean(bits), "predict": bits}
    expected |= {"encode": flow.bijector.inverse(x), "classify": tf.nn.softmax(by_class)}
    return expected


def _lora(model):
    for i, layer in enumerate(_dense(model)):
        if not layer.lora_enabled:
            layer.enable_lora(1 + i % 2, lora_alpha=1.0 + i)
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.3))


def _one_lora(model):
    """Changes one alone of the layers that share a trace."""
    layer = _dense(model)[0]
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.3))


def _policy(model):
    """From bfloat16 to float32, in which eager code and graphs agree."""
    for layer in model._flow_layers:
        for inner in layer._flatten_layers():
            computes = any(part in inner.name for part in ("conv", "norm", "skip"))
            if isinstance(inner, keras.layers.Dense) or computes:
                inner.dtype_policy = "float32"


def _weights(model):
    model.set_weights([w * 0.9 if w.dtype.kind == "f" else w for w in model.get_weights()])


def _quantized(model):
    """Layers one by one, which the model itself refuses."""
    # Keras collects garbage for each variable that a layer loses, also that of all tests before.
    with mock.patch.object(gc, "collect"):
        for layer in _dense(model):
            layer.quantize("int8")


# Each begins where the one before has left the model. Images have fewer of them: what they add is
# convolutions, and conditioners that share a trace.
CASES = {
    "vectors": ("vectors", "float32", [_weights, _one_lora, _lora]),
    "vectors' policy": ("vectors", "mixed_bfloat16", [_policy]),
    "images": ("images", "mixed_bfloat16", [_policy, _one_lora]),
}


@pytest.mark.parametrize(
    "case", ["vectors", "images", pytest.param("vectors' policy", marks=pytest.mark.slow)]
)
def test_every_function_follows(case, randomize):
    kind, dtype, changes = CASES[case]
    model, x = _make(kind, randomize, dtype=dtype)
    after = _answers(model, x)
    for change in changes:
        before = after
        change(model)
        expected, after = _expected(model, x), _answers(model, x)
        for name, value in expected.items():
            if (change, name) != (_policy, "encode"):
                message = f"{name} after {change.__name__}"
                np.testing.assert_allclose(
                    after[name], value, rtol=2e-3, atol=2e-3, err_msg=message
                )
                assert np.max(np.abs(after[name] - before[name])) > 1e-6, message
        assert np.max(np.abs(after["sample"] - before["sample"])) > 1e-6, change


# Dense layers are changed: vectors have no others, and images follow by `make test-all`.
of_kinds = pytest.mark.parametrize(
    "kind", ["vectors", pytest.param("images", marks=pytest.mark.slow)]
)


@of_kinds
def test_scores_follow_layers_that_are_quantized_one_by_one(kind, randomize, refuses):
    """Which the model itself refuses: conditioners would not be the same in both directions."""
    model, x = _make(kind, randomize)
    before = _answers(model, x, encode=False)
    _quantized(model)
    match = "conditioners that are not quantized, or they are not inverse"
    refuses(model.encode, x, labels=Y, match=match)
    refuses(model.decode, x, labels=Y, match=match)
    after = _answers(model, x, encode=False)
    for name, value in _expected(model, x).items():
        if name != "encode":
            np.testing.assert_allclose(after[name], value, rtol=2e-3, atol=2e-3, err_msg=name)
    for name in after:
        assert np.max(np.abs(after[name] - before[name])) > 1e-6, name


@of_kinds
def test_training_goes_on_with_lora_once_compiled_again(kind, randomize, refuses):
    model, x = _make(kind, randomize)
    model.fit(_pairs(x), verbose=0, shuffle=False)
    _lora(model)
    refuses(
        model.fit, _pairs(x), verbose=0, shuffle=False,
        match="must be compiled again, for it has got trainable variables .*lora_kernel",
    )  # fmt: skip
    model.compile(optimizer=tfnvp.optimizers.Adam(1e-2))
    before = [np.array(layer.lora_kernel_a) for layer in _dense(model)]
    losses = model.fit(_pairs(x), epochs=5, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < losses[0]
    after = [np.array(layer.lora_kernel_a) for layer in _dense(model)]
    assert not any(map(np.array_equal, before, after))


@of_kinds
def test_what_is_frozen_after_a_training_stays(kind, randomize):
    """Without another compilation."""
    model, x = _make(kind, randomize)
    model.fit(_pairs(x), verbose=0, shuffle=False)
    layer = _dense(model)[0]
    layer.trainable = False
    before, other = np.array(layer.kernel), np.array(_dense(model)[-1].kernel)
    model.fit(_pairs(x), verbose=0, shuffle=False)
    np.testing.assert_array_equal(layer.kernel, before)
    assert np.any(np.array(_dense(model)[-1].kernel) != other)


@of_kinds
def test_a_model_with_a_quantized_layer_is_not_saved(kind, randomize, refuses, tmp_path):
    """Keras would write a file that it cannot load."""
    model, _ = _make(kind, randomize)
    _quantized(model)
    match = "a model of quantized layers cannot be saved, .* got layer"
    refuses(model.save, tmp_path / "model.keras", match=match)
    assert not list(tmp_path.iterdir())


@of_kinds
def test_quantization_is_refused(kind, randomize, refuses):
    """And leaves the model as it was."""
    model, x = _make(kind, randomize)
    before = model.log_prob(x, labels=Y)
    for arguments in (("int8",), ("float8",)):
        refuses(model.quantize, *arguments, match=f"quantize is refused: .*mode='{arguments[0]}'")
    np.testing.assert_array_equal(model.log_prob(x, labels=Y), before)
    np.testing.assert_allclose(
        model.decode(model.encode(x, labels=Y), labels=Y), x, rtol=1e-3, atol=1e-3
    )

"""Laws that hold for every layer: configuration, saving, precision, and use on its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfnvp import layers

# name: (constructor, its arguments, shape of a batch, dtype of the result in mixed precision)
LAYERS = {
    "common values": (layers.CommonValues, {"count": 2}, (3, 4), "float32"),
    "dense": (
        layers.DenseNetwork,
        {"channels": 2, "hidden_units": [5, 4], "activation": "tanh"},
        (3, 4),
        "float32",
    ),
    "dense with dropout": (
        layers.DenseNetwork,
        {"channels": 2, "hidden_units": [5], "dropout": 0.5, "seed": 3},
        (3, 4),
        "float32",
    ),
    "dequantization": (layers.Dequantization, {"levels": 17, "seed": 3}, (3, 2, 2, 1), "float32"),
    "fused": (
        layers.FusedBatchNormalization,
        {"momentum": 0.7, "epsilon": 1e-2, "affine": False},
        (3, 4, 2, 3),
        "bfloat16",
    ),
    "fused affine": (layers.FusedBatchNormalization, {}, (3, 4, 2, 3), "bfloat16"),
    "nearest row": (layers.NearestRow, {"count": 5}, (3, 4), "float32"),
    "residual": (
        layers.ResidualNetwork,
        {"channels": 2, "filters": 5, "blocks": 1, "scale_l2": 0.1},
        (3, 4, 4, 3),
        "float32",
    ),
    "residual under a checkerboard": (
        layers.ResidualNetwork,
        {"channels": 3, "filters": 4, "blocks": 2, "checkerboard_parity": 1, "momentum": 0.5},
        (3, 4, 3, 3),
        "float32",
    ),
    "moments": (layers.RunningMoments, {"momentum": 0.3}, (3, 4, 2, 3), "float32"),
    "rounding": (layers.Rounding, {"seed": 3}, (3, 4), "float32"),
    "spline weights": (layers.SplineWeights, {"bins": 5}, (3, 4), "float32"),
    "tanh": (layers.BoundedLogScale, {"regularizer": "l2"}, (3, 2), "bfloat16"),
    "convolution": (
        layers.WeightNormConv2D,
        {"filters": 5, "kernel_size": 2, "use_bias": False, "scale_initializer": "zeros"},
        (3, 4, 4, 3),
        "bfloat16",
    ),
    "convolution without scale": (
        layers.WeightNormConv2D,
        {"filters": 2, "use_scale": False, "scale_regularizer": "l2"},
        (3, 4, 4, 3),
        "bfloat16",
    ),
}


@pytest.fixture(params=LAYERS)
def kind(request):
    return LAYERS[request.param]


def _batch(kind):
    return np.random.default_rng(0).normal(size=kind[2]).astype("float32")


def _built(kind, randomize, **kwargs):
    """A layer with random weights, built by its first call."""
    make, arguments, _, _ = kind
    layer = make(**arguments, **kwargs)
    layer(_batch(kind))
    if any(np.issubdtype(weight.dtype, np.floating) for weight in layer.weights):
        randomize(layer)
    return layer


def _flat(outputs):
    return [np.array(output) for output in tf.nest.flatten(outputs)]


def _assert_same(actual, expected):
    for one, other in zip(_flat(actual), _flat(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_configuration_makes_the_same_layer(kind, randomize):
    layer = _built(kind, randomize, name="kept")
    config = layer.get_config()
    assert config["name"] == "kept"
    for name, value in kind[1].items():
        assert name in config
        if isinstance(value, (int, float, list)):
            assert config[name] == value
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is kind[0]
    assert keras.saving.serialize_keras_object(again) == config
    again(_batch(kind))
    again.set_weights(layer.get_weights())
    _assert_same(again(_batch(kind)), layer(_batch(kind)))


def test_works_in_a_keras_model_and_is_saved_with_it(kind, randomize, tmp_path):
    layer = _built(kind, randomize)
    inputs = keras.Input(kind[2][1:])
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert len(again.weights) == len(layer.weights)
    _assert_same(again(_batch(kind)), layer(_batch(kind)))


def test_shape_of_the_result_is_known_before_it_runs(kind, randomize):
    layer = _built(kind, randomize)
    symbolic = tf.nest.flatten(layer(keras.Input(batch_shape=kind[2])))
    assert [s.shape for s in symbolic] == [o.shape for o in _flat(layer(_batch(kind)))]


def test_float64_is_float64_throughout(kind, randomize):
    layer = _built(kind, randomize, dtype="float64")
    single = _built(kind, randomize)
    batch = _batch(kind).astype("float64")
    floats = [w.dtype for w in layer.weights if "int" not in w.dtype]
    assert all(dtype == "float64" for dtype in floats)
    for double, expected in zip(_flat(layer(batch)), _flat(single(_batch(kind))), strict=True):
        assert double.dtype == np.float64
        np.testing.assert_allclose(double, expected, rtol=1e-4, atol=1e-5)


def test_mixed_precision_is_close_to_full(kind, randomize):
    """Weights stay in float32; results are where the docstring says so."""
    mixed = _built(kind, randomize, dtype="mixed_bfloat16")
    full = _built(kind, randomize)
    assert all(w.dtype == "float32" for w in mixed.weights if "int" not in w.dtype)
    outputs = tf.nest.flatten(mixed(_batch(kind)))
    for output, expected in zip(outputs, _flat(full(_batch(kind))), strict=True):
        assert output.dtype == kind[3]
        error = np.abs(tf.cast(output, "float32") - expected)
        assert error.max() < 0.03 * max(1, np.abs(expected).max())


def test_gradient_reaches_every_trainable_variable(kind, randomize):
    layer = _built(kind, randomize)
    with tf.GradientTape() as tape:
        outputs = layer(_batch(kind), training=False)
        loss = sum(tf.reduce_sum(output**2) for output in tf.nest.flatten(outputs))
    gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        assert gradient is not None and np.any(gradient != 0), variable.path

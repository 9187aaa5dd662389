"""Layers as functions: shared by all that are configured alike, rematerialised or not."""

import gc
import time
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.graph.pure_layer import Traces
from tfnvp.layers import ResidualNetwork

X = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def alone():
    """Leaves what earlier tests left to itself, when garbage is collected here."""
    gc.freeze()


def make(randomize, seed=0, **options):
    layer = ResidualNetwork(3, 4, 1, **options)
    layer.build(X.shape)
    return randomize(layer, seed=seed)


def gradients(layer, training):
    """The output, the gradients of its sum of squares, and the state afterwards."""

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y**2)
        variables = [v.value for v in layer.trainable_variables]
        return y, *tape.gradient(loss, [x, *variables])

    results = [value.numpy() for value in run(tf.constant(X))]
    return [*results, *(v.numpy() for v in layer.non_trainable_variables)]


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_graph_does_as_eager_code(training, remat, randomize):
    """Among the results are the running averages: updated once, in training alone."""
    results = []
    for eager in (True, False):
        layer = make(randomize, remat=remat)
        before = [v.numpy() for v in layer.non_trainable_variables]
        tf.config.run_functions_eagerly(eager)
        try:
            results.append(gradients(layer, training))
        finally:
            tf.config.run_functions_eagerly(False)
        after = [v.numpy() for v in layer.non_trainable_variables]
        moved = [np.any(a != b) for a, b in zip(after, before, strict=True)]
        assert any(moved) == training
    for value, expected in zip(*results, strict=True):
        # Biases before a batch normalization have gradients of zero, and get their rounding.
        np.testing.assert_allclose(value, expected, rtol=2e-4, atol=2e-4)


def test_layers_that_are_configured_alike_share_one_trace(randomize):
    traces = Traces()
    first, second = (make(randomize, seed=seed, traces=traces) for seed in (0, 1))
    gradients(first, training=True)
    (function,) = traces.functions.values()
    count = function.experimental_get_tracing_count()
    shared = gradients(second, training=True)
    assert list(traces.functions.values()) == [function]
    assert function.experimental_get_tracing_count() == count
    # With its own weights all the same, for none is in the function itself.
    assert not np.allclose(shared[0], gradients(make(randomize), training=True)[0], atol=0.1)
    weights = [tf.convert_to_tensor(v) for v in first.variables]
    traced = function.get_concrete_function({}, {"x": tf.constant(X)}, weights)
    assert traced.captured_inputs == []


def test_layers_that_share_nothing_have_traces_of_their_own(randomize):
    first, second = make(randomize), make(randomize)
    assert first._function(True) is not second._function(True)


def test_a_model_owns_the_traces_of_its_layers():
    """They live as long as it does, and no longer."""
    sizes = {"num_scales": 1, "filters": 4, "residual_blocks": 1}
    models = [tfnvp.ImageRealNVP((4, 4, 1), **sizes) for _ in range(2)]
    networks = [
        [layer for layer in model._flow_layers if isinstance(layer, ResidualNetwork)]
        for model in models
    ]
    traces = [{id(network._traces) for network in of_model} for of_model in networks]
    assert len(traces[0]) == len(traces[1]) == 1 and traces[0] != traces[1]
    alive = weakref.ref(networks[0][0]._traces)
    models[0].log_prob(np.zeros((2, 4, 4, 1), "float32"))
    assert alive().functions
    del models[0], networks[0]
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    "other", [{"blocks": 2}, {"remat": True}, {"checkerboard_parity": 0}, {"dtype": "float64"}]
)
def test_layers_that_are_configured_otherwise_do_not(other):
    traces = Traces()
    layer = ResidualNetwork(3, 4, 1, traces=traces)
    options = {"channels": 3, "filters": 4, "blocks": 1} | other
    same, different = (
        ResidualNetwork(3, 4, 1, traces=traces),
        ResidualNetwork(**options, traces=traces),
    )
    assert layer._function(True) is same._function(True)
    assert layer._function(True) is not different._function(True)
    assert layer._function(True) is not layer._function(False)


def test_a_function_does_not_keep_its_layer(randomize):
    layer = make(randomize)
    gradients(layer, training=True)
    alive = weakref.ref(layer)
    del layer
    keras.backend.clear_session()
    gc.collect()
    assert alive() is None


def test_rematerialised_forward_keeps_the_input_alone(randomize, count_operations):
    """Its convolutions are run twice in a step, once for the value and once for the gradient."""

    def step(layer):
        def run(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(x, training=True) ** 2)
            return tape.gradient(loss, [v.value for v in layer.trainable_variables])

        return count_operations(run, tf.constant(X))["Conv2D"]

    plain, remat = step(make(randomize)), step(make(randomize, remat=True))
    assert plain == 6
    assert remat == 12


@pytest.mark.parametrize("parity", [None, 0])
def test_xla_compiles_a_gradient_once_whatever_the_weights(parity, randomize):
    layer = make(randomize, checkerboard_parity=parity)

    @tf.function(jit_compile=True)
    def gradient(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, [v.value for v in layer.trainable_variables])

    seconds = []
    for seed in range(2):
        randomize(layer, seed=seed)
        started = time.perf_counter()
        gradient(tf.constant(X))
        seconds.append(time.perf_counter() - started)
    assert seconds[1] < seconds[0] / 10, seconds

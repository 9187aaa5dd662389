"""Layers as functions: shared by all that are configured alike, rematerialised or not."""

import gc
import time
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfnvp.graph import pure_layer
from tfnvp.layers import ResidualNetwork

X = np.random.default_rng(0).normal(size=(5, 4, 4, 3)).astype("float32")


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
    first, second = make(randomize), make(randomize, seed=1)
    gradients(first, training=True)
    shared_function = pure_layer._shared_function(first, training=True)
    function = shared_function._for(None)
    traces = function.experimental_get_tracing_count()
    shared = gradients(second, training=True)
    assert pure_layer._shared_function(second, training=True) is shared_function
    assert function.experimental_get_tracing_count() == traces
    # With its own weights all the same, for none is in the function itself.
    assert not np.allclose(shared[0], gradients(make(randomize), training=True)[0], atol=0.1)
    weights = [tf.convert_to_tensor(v) for v in first.variables]
    with pure_layer._running(first):
        traced = function.get_concrete_function(None, {"x": tf.constant(X)}, weights)
    assert traced.captured_inputs == []


@pytest.mark.parametrize(
    "other", [{"blocks": 2}, {"remat": True}, {"checkerboard_parity": 0}, {"dtype": "float64"}]
)
def test_layers_that_are_configured_otherwise_do_not(other):
    layer = ResidualNetwork(3, 4, 1)
    options = {"channels": 3, "filters": 4, "blocks": 1} | other
    function = pure_layer._shared_function
    assert function(layer, True) is not function(ResidualNetwork(**options), True)
    assert function(layer, True) is not function(layer, False)


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

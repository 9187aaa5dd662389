"""What many tests share: random weights, counts of operations, tiny models."""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnvp


def _random_weight(variable, random):
    shape = variable.shape
    if variable.name == "variance":
        return random.uniform(0.5, 2, shape)
    if variable.name == "mean":
        return random.normal(0, 0.5, shape)
    if variable.name == "batches":
        return 5.0
    if variable.name == "scale":
        return random.uniform(0.4, 0.9, shape)
    if len(shape) > 1:
        return random.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape)
    return random.normal(0, 0.3, shape)


@pytest.fixture(scope="session")
def randomize():
    """randomize(*layers or models, seed=0): weights far from the identity that training starts at.

    Log-scales stay near 1, and running statistics are as after some training.
    """

    def randomize(*layers, seed=0):
        random = np.random.default_rng(seed)
        for layer in layers:
            assert layer.weights, f"{layer} has no weights yet: build it first"
            for variable in layer.weights:
                if np.issubdtype(variable.dtype, np.floating):
                    variable.assign(_random_weight(variable, random))
        return layers[0] if len(layers) == 1 else layers

    return randomize


@pytest.fixture(scope="session")
def count_operations():
    """count_operations(f, *args): a Counter of the kinds of operations in the graph of f."""

    def count(function, *args):
        graph = tf.function(function).get_concrete_function(*args).graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        return Counter(node.op for node in nodes)

    return count


@pytest.fixture(scope="session")
def identities():
    """identities(variables): which `tf.Variable`s they are, of TensorFlow's or Keras' kind."""

    def identities(variables):
        return [id(v.value if isinstance(v, keras.Variable) else v) for v in variables]

    return identities


@pytest.fixture(scope="session")
def tiny_model(randomize):
    """tiny_model(**overrides): an ImageRealNVP of four couplings, with random weights."""

    def make(image_shape=(4, 4, 1), seed=0, **overrides):
        sizes = {"num_scales": 1, "filters": 4, "residual_blocks": 1, "levels": 16}
        model = tfnvp.ImageRealNVP(image_shape, **{**sizes, **overrides})
        return randomize(model, seed=seed)

    return make


@pytest.fixture(scope="session")
def refuses():
    """refuses(f, *args, match=...): f raises a ValueError of one line, without graph internals."""

    def refuses(function, *args, match, **kwargs):
        with pytest.raises(ValueError, match=match) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        assert len(message.splitlines()) == 1 and len(message) < 250
        assert not any(word in message for word in ("Traceback", "node", "{{", "Tensor("))

    return refuses

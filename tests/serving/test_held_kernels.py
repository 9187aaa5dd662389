"""An export has the kernels that weight normalization comes to, where the model has directions."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp
from tfnvp.graph.internals import with_inner_layers
from tfnvp.graph.pure_layer import PureLayer
from tfnvp.layers import WeightNormConv2D
from tfnvp.serving.saved_model_graph import read_saved_model

tfb, tfd = tfp.bijectors, tfp.distributions
LEVELS = 17
IMAGES = np.random.default_rng(0).integers(0, LEVELS, (5, 4, 4, 1), dtype=np.uint8)


def convolutions(model):
    return [layer for layer in with_inner_layers(model) if isinstance(layer, WeightNormConv2D)]


def export(model, directory, **options):
    path = tfnvp.export_saved_model(model, directory, ["log_prob", "encode", "decode"], **options)
    return path, tf.saved_model.load(str(path))


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model((4, 4, 1), num_scales=2, levels=LEVELS)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("folded"))


def test_kernels_stand_where_directions_stood(model, exported):
    stored = {w.numpy().tobytes() for w in exported[1].weights if w.shape.rank == 2}
    for layer in convolutions(model):
        assert tf.reshape(layer.kernel(), layer.direction.shape).numpy().tobytes() in stored
        assert layer.direction.numpy().tobytes() not in stored


def test_no_kernel_is_normalised_anew(model, exported):
    nodes = [
        node.op
        for graph in read_saved_model(exported[0]).meta_graphs
        for function in graph.graph_def.library.function
        for node in function.node_def
    ]
    # Those that are left are inverse deviations of batch normalizations, one of several couplings.
    assert 0 < nodes.count("Rsqrt") < len(convolutions(model))
    assert nodes.count("Conv2D")


def test_answers_are_the_models(model, exported):
    served = exported[1].signatures
    scores = served["log_prob"](images=IMAGES)["log_prob"]
    np.testing.assert_allclose(scores, model.log_prob(IMAGES), rtol=1e-5, atol=1e-4)
    z = served["encode"](images=IMAGES)["latents"]
    np.testing.assert_allclose(z, model.encode(IMAGES), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(served["decode"](latents=z)["images"], IMAGES)


def test_the_model_goes_on_as_before(tiny_model, tmp_path):
    model = tiny_model((4, 4, 1), levels=LEVELS)
    before = model.log_prob(IMAGES).numpy()
    export(model, tmp_path)
    np.testing.assert_array_equal(model.log_prob(IMAGES), before)
    # The traces that a training shares are its own, and so are those that follow a change.
    model.compile(tfnvp.optimizers.Adam(1e-3))
    model.fit(IMAGES, epochs=1, verbose=0)
    of_now = model.log_prob(IMAGES).numpy()
    assert np.all(of_now != before)
    served = export(model, tmp_path)[1].signatures["log_prob"]
    np.testing.assert_allclose(served(images=IMAGES)["log_prob"], of_now, rtol=1e-5, atol=1e-4)


class Halved(WeightNormConv2D):
    """A convolution that makes its kernel in another way."""

    def kernel(self):
        return super().kernel() / 2


def halved():
    return Halved(2)


def patched():
    convolution = WeightNormConv2D(2)
    kernel = convolution.kernel
    convolution.kernel = lambda: kernel() / 2
    return convolution


class Network(keras.layers.Layer):
    """A conditioner of convolutions that an export must not take for what they are not."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.one = kind, WeightNormConv2D(2)
        hidden = WeightNormConv2D(2, use_bias=False)
        if kind == "unknown to Keras":
            object.__setattr__(self, "_other", hidden)
        else:
            self._other = hidden

    def build(self, shape):
        self.one.build(shape)
        if self.kind != "spare":
            self._other.build(shape)
            self._other.scale.assign([-0.3, 0.4])
        if self.kind == "tied":
            self._other._tracker.unlock()
            self._other.direction = self.one.direction
        self.built = True

    def call(self, x):
        return tf.tanh(self.one(x) + (0.0 if self.kind == "spare" else self._other(x)))


class Shared(PureLayer):
    """A conditioner whose trace the model and its export would share, were they not kept apart."""

    def __init__(self):
        super().__init__()
        self.one = WeightNormConv2D(2)

    def build(self, shape):
        self.one.build(shape)
        # A kernel of a negative length, normalised once more, has another sign.
        self.one.scale.assign([-0.3, 0.4])

    def compute(self, x, context=None, training=False):
        return tf.tanh(self.one(x))


KINDS = {
    "subclass": halved,
    "attribute": patched,
    "pure layer": Shared,
    **{kind: functools.partial(Network, kind) for kind in ("unknown to Keras", "tied", "spare")},
}


@pytest.mark.parametrize("options", [{}, {"static_batch": 5}, {"bfloat16_weights": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_no_convolution_is_taken_for_what_it_is_not(kind, options, tmp_path):
    keras.utils.set_random_seed(0)
    networks = [KINDS[kind]() for _ in range(2)]
    halves = [tfnvp.masks.ChannelHalves(i, event_ndims=3) for i in range(2)]
    couplings = map(tfnvp.bijectors.AffineCoupling, halves, networks)
    base = tfd.Independent(tfd.Normal(tf.zeros([4, 4, 2]), 1.0), 3)
    model = tfnvp.FlowModel(tfd.TransformedDistribution(base, tfb.Chain(list(couplings))))
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("float32")
    expected = model.log_prob(x)
    if kind == "unknown to Keras" and not options.get("static_batch"):
        # TensorFlow does not save what Keras does not know, and it says so.
        with pytest.raises(AssertionError, match="references an 'untracked' resource"):
            export(model, tmp_path, **options)
        return
    served = export(model, tmp_path, **options)[1].signatures["log_prob"]
    tolerance = {"atol": 0.5} if "bfloat16_weights" in options else {"rtol": 1e-5, "atol": 1e-4}
    np.testing.assert_allclose(served(data=x)["log_prob"], expected, **tolerance)
    np.testing.assert_array_equal(model.log_prob(x), expected)

"""An export has the kernels that weight normalization comes to, where the model has directions."""

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.graph.internals import with_inner_layers
from tfnvp.layers import WeightNormConv2D
from tfnvp.serving.saved_model_graph import read_saved_model

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
    # What is left are inverse deviations of batch normalizations, one of several couplings.
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


@pytest.mark.parametrize("options", [{}, {"bfloat16_weights": True}])
def test_a_kernel_that_is_made_in_another_way_is_left_to_it(options, tiny_model, tmp_path):
    class Halved(WeightNormConv2D):
        def kernel(self):
            return super().kernel() / 2

    plain, model = (tiny_model((4, 4, 1), levels=LEVELS) for _ in range(2))
    for layer in convolutions(model):
        layer.__class__ = Halved
    halved = model.log_prob(IMAGES)
    served = export(model, tmp_path, **options)[1].signatures["log_prob"](images=IMAGES)
    tolerance = {"atol": 0.3} if options else {"rtol": 1e-5, "atol": 1e-4}
    np.testing.assert_allclose(served["log_prob"], halved, **tolerance)
    assert np.abs(halved - plain.log_prob(IMAGES)).max() > 1

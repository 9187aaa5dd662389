"""The benchmarks compare what is comparable."""

import functools
import json

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from benchmarks import throughput
from tfnvp.layers.fused_batch_normalization import FusedBatchNormalization

ARCHITECTURE = {"image_shape": (8, 8, 3), "num_scales": 2, "filters": 4, "residual_blocks": 1}


IMAGES = np.random.default_rng(0).uniform(size=(5, 8, 8, 3)).astype("float32")


@pytest.fixture
def model(randomize):
    """A model of random weights, but for those that no training changes."""
    model = randomize(tfnvp.ImageRealNVP(**ARCHITECTURE))
    for layer in model._flatten_layers():
        if isinstance(layer, FusedBatchNormalization) and not layer.affine:
            layer.scale.assign(np.ones(layer.scale.shape))
            layer.offset.assign(np.zeros(layer.offset.shape))
    return model


def parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_the_torch_peer_is_the_same_model(model):
    """The same parameters give the same log_prob."""
    torch = pytest.importorskip("torch", reason="PyTorch is in the extra `benchmarks`")
    from benchmarks.peers import torch_real_nvp

    peer = torch_real_nvp.RealNVP(**ARCHITECTURE)
    torch_real_nvp.load(peer, model)
    peer.eval()
    log_prob = peer.log_density(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).detach()
    np.testing.assert_allclose(log_prob, model.log_prob(IMAGES), rtol=1e-4)
    assert sum(p.numel() for p in peer.parameters()) == parameters(model)


def test_the_jax_peer_is_the_same_model(model):
    """The same parameters give the same log_prob, loss and, of the same latents, samples."""
    jax = pytest.importorskip("jax", reason="JAX is in the extra `dev`")
    from benchmarks.peers import jax_real_nvp

    trees = jax_real_nvp.weights(model)
    peer = jax_real_nvp.RealNVP(ARCHITECTURE["image_shape"], ARCHITECTURE["num_scales"])
    # Intensities stand in for images with their noise.
    log_prob, _ = jax.jit(peer.log_prob)(*trees, 256 * IMAGES, 0.0)
    np.testing.assert_allclose(log_prob, model.log_prob(IMAGES), rtol=1e-4)
    draw = jax.jit(peer.sample, static_argnums=3)
    latents = jax.random.normal(jax.random.key(3), (4, 8, 8, 3))
    expected = np.clip(model.decode(np.asarray(latents)), 0, 1)
    np.testing.assert_allclose(draw(*trees, jax.random.key(3), 4), expected, atol=1e-4)
    start = jax_real_nvp.start(ARCHITECTURE)
    assert jax.tree.map(np.shape, start) == jax.tree.map(np.shape, trees)
    assert sum(np.size(x) for x in jax.tree.leaves(start[0])) == parameters(model)


def test_the_jax_peer_trains_by_the_same_loss(model):
    jax = pytest.importorskip("jax", reason="JAX is in the extra `dev`")
    from benchmarks.peers import jax_real_nvp

    trees = jax_real_nvp.weights(model)
    peer = jax_real_nvp.RealNVP(ARCHITECTURE["image_shape"], ARCHITECTURE["num_scales"])
    log_prob, after = jax.jit(functools.partial(peer.log_prob, training=True))(
        *trees, 256 * IMAGES, 0.0
    )
    np.testing.assert_allclose(log_prob, model(IMAGES, training=True), rtol=1e-4)
    assert jax.tree.structure(after) == jax.tree.structure(trees[1])


def test_the_bound_knows_every_convolution_of_a_pass(model):
    from benchmarks.peers import convolutions

    calls = convolutions.calls_of(model, tf.zeros((2, 8, 8, 3), tf.uint8))
    # Two scales have 6 and 4 couplings, of six convolutions each.
    assert len(calls) == 10 * (1 + 2 + 2 + 1)
    assert calls[0] == ((2, 8, 8, 7), (3, 3, 7, 4), (2, 8, 8, 4), tf.float32)


@pytest.mark.slow
def test_prints_a_line_a_workload_with_the_ratio(monkeypatch, capsys):
    override = json.dumps({"filters": 2, "residual_blocks": 1, "num_scales": 1})
    arguments = ["--preset", "digits", "--override", override, "--batch", "2", "--runs", "7"]
    arguments += ["--workload", "log_prob", "--against", "tfp_idiom"]
    monkeypatch.setattr("sys.argv", ["throughput", *arguments])
    throughput.main()
    ours, idiom = map(json.loads, capsys.readouterr().out.splitlines())
    assert ours["contender"] == "tfnvp" and idiom["contender"] == "tfp_idiom"
    assert ours["workload"] == "log_prob" and ours["batch"] == 2
    assert ours["parameters"] == idiom["parameters"] > 0
    for record in (ours, idiom):
        assert record["images_per_second"] > 0
        assert record["first_step_seconds"] > 0
        assert record["peak_rss_mb"] > 100
    ratio = ours["images_per_second"] / idiom["images_per_second"]
    assert idiom["tfnvp_is_faster_by"] == pytest.approx(ratio, abs=0.02)

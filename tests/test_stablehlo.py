"""StableHLO exports, run by JAX in a process without TensorFlow."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfnvp
from benchmarks import gpu
from tfnvp.graph.internals import with_inner_layers
from tfnvp.layers.weight_norm_conv2d import WeightNormConv2D

RUNNER = Path(__file__).parents[1] / "benchmarks" / "run_stablehlo.py"
BATCH = 6


def run(*arguments):
    """The lines that the runner prints."""
    command = [sys.executable, RUNNER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("what", ["log_prob", pytest.param("sample", marks=pytest.mark.slow)])
def test_jax_gives_what_tensorflow_gives(what, tmp_path, tiny_model):
    model = tiny_model()
    path = tfnvp.export_stablehlo(model, tmp_path / "export", what, batch_size=BATCH)
    (record,) = run(path, "--runs", 3)
    assert record["what"] == what and record["batch"] == BATCH
    assert record["largest_difference"] < 1e-4
    assert record["images_per_second"] == pytest.approx(BATCH * record["runs_per_second"])
    with np.load(path / "recorded.npz") as recorded:
        if what == "log_prob":
            expected = model.log_prob(recorded["argument"])
            np.testing.assert_allclose(recorded["result"], expected, rtol=1e-5)
            flops = record["convolution_teraflops"] / record["runs_per_second"] * 1e12
            assert flops == pytest.approx(_convolution_flops(model))
        else:
            assert recorded["result"].shape == (BATCH, 4, 4, 1)
            assert recorded["result"].std() > 0.1
    assert [file.name for file in tmp_path.iterdir()] == ["export"]


def _convolution_flops(model):
    """Two for each product, of a batch, where every convolution is of 4 x 4 pixels."""
    layers = with_inner_layers(model)
    kernels = [layer.kernel_shape for layer in layers if isinstance(layer, WeightNormConv2D)]
    return sum(2 * BATCH * 4 * 4 * np.prod(shape) for shape in kernels)


def test_exports_share_the_weights_that_are_carried_to_a_gpu(tmp_path, tiny_model):
    path = tfnvp.export_stablehlo(tiny_model(), tmp_path / "export", batch_size=2)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with np.load(path / "weights.npz") as weights:
        expected = dict(weights)
    changed = next(name for name, value in expected.items() if np.any(value))
    shared = {changed: 2 * expected[changed]}
    gpu._shrink(path, shared)
    with np.load(path / "weights.npz") as own:
        assert list(own) == [changed]
    gpu._unpack(path, shared, tmp_path)
    for name in ("module.mlir", "signature.json", "recorded.npz"):
        assert (tmp_path / name).read_bytes() == before[name]
    with np.load(tmp_path / "weights.npz") as weights:
        assert weights.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(weights[name], value)


def _export_and_train(model, data, tmp_path):
    """The losses that the runner prints of ten steps on one batch, and the variables it writes."""
    model.compile(optimizer=tfnvp.optimizers.Adam(1e-2, global_clipnorm=100.0))
    before = [weight.numpy() for weight in model.weights]
    path = tfnvp.export_stablehlo(model, tmp_path / "export", "train_step", batch_size=BATCH)
    # XLA for GPUs refuses operations of other dialects.
    assert not re.search(r"= \"?(mhlo|chlo|tf)\.", (path / "module.mlir").read_text())
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.save(tmp_path / "data.npy", data)
    arguments = ["--images", tmp_path / "data.npy", "--steps", 10]
    record, *steps = run(path, *arguments, "--write", tmp_path / "trained.npz")
    # The difference is of ten losses, by JAX and by TensorFlow, on the recorded batch.
    assert record["largest_difference"] < 1e-4
    with np.load(path / "recorded.npz") as recorded:
        assert recorded["result"].shape == (10,)
        assert recorded["result"][-1] < recorded["result"][0]
    losses = [step["loss"] for step in steps]
    assert losses[-1] < losses[0]
    with np.load(tmp_path / "trained.npz") as trained:
        return losses, dict(trained)


@pytest.mark.slow
def test_jax_trains_images(tmp_path, tiny_model):
    model = tiny_model(seed=1)
    images = np.random.default_rng(3).integers(0, 16, (BATCH, 4, 4, 1), dtype=np.uint8)
    _, trained = _export_and_train(model, images, tmp_path)
    assert trained[model.optimizer.iterations.path] == 10
    for weight in model.trainable_weights:
        assert trained[weight.path].shape == weight.shape
    # Running averages too.
    batches = [value[-1] for name, value in trained.items() if name.endswith("/averages")]
    assert len(batches) == 10 and all(6 < value < 10 for value in batches)


def test_jax_trains_as_fit_does(tmp_path, randomize):
    """Vectors need no noise, which XLA draws otherwise than TensorFlow."""
    model = randomize(tfnvp.VectorRealNVP(3, num_couplings=3, hidden_units=[8]))
    data = np.random.default_rng(3).normal(size=(BATCH, 3)).astype("float32")
    losses, trained = _export_and_train(model, data, tmp_path)
    # A batch is all there is, so that each epoch is one step.
    fitted = model.fit(data, batch_size=BATCH, epochs=10, shuffle=False, verbose=0).history
    np.testing.assert_allclose(losses, fitted["loss"], rtol=1e-4)
    for weight in model.weights:
        np.testing.assert_allclose(trained[weight.path], weight, rtol=1e-3, atol=1e-4)


def test_a_wrong_result_is_noticed(tmp_path, tiny_model):
    path = tfnvp.export_stablehlo(tiny_model(), tmp_path / "export", batch_size=2)
    with np.load(path / "recorded.npz") as recorded:
        recorded = dict(recorded)
    recorded["result"] *= 1.001
    np.savez(path / "recorded.npz", **recorded)
    done = subprocess.run([sys.executable, RUNNER, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "not the recorded ones" in done.stderr


def test_what_cannot_be_exported_is_refused(tmp_path, tiny_model):
    model = tiny_model()
    with pytest.raises(ValueError, match="what 'train'; known: log_prob, sample, train_step"):
        tfnvp.export_stablehlo(model, tmp_path / "export", "train")
    with pytest.raises(ValueError, match="compiled with an optimizer"):
        tfnvp.export_stablehlo(model, tmp_path / "export", "train_step")
    with pytest.raises(ValueError, match="batch_size"):
        tfnvp.export_stablehlo(model, tmp_path / "export", batch_size=0)
    with pytest.raises(TypeError, match=r"tfnvp\.VectorRealNVP or"):
        tfnvp.export_stablehlo(lambda x: x, tmp_path / "export")
    with pytest.raises(FileExistsError, match="remove it or choose another"):
        tfnvp.export_stablehlo(model, tmp_path)
    assert list(tmp_path.iterdir()) == []

"""The command `tfnvp` with a model of vectors."""

import json

import numpy as np
import pytest
from helpers.commands import run

import tfnvp


@pytest.fixture(scope="module", params=["saved", "served"])
def vectors(request, randomize, tmp_path_factory):
    """A model of vectors, and what it is loaded from."""
    flow = randomize(tfnvp.VectorRealNVP(2, num_couplings=2, hidden_units=(4,)), seed=1)
    directory = tmp_path_factory.mktemp("vectors")
    if request.param == "served":
        return flow, tfnvp.export_saved_model(flow, directory)
    flow.save(directory / "model.keras")
    return flow, directory / "model.keras"


def test_vectors_are_scored(vectors, tmp_path):
    flow, path = vectors
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x)
    for name in ("x.npy", "x.npz"):
        lines = run("score", path, tmp_path / name, "--json").output.splitlines()
        log_prob = [json.loads(line)["log_prob"] for line in lines]
        np.testing.assert_allclose(log_prob, flow.log_prob(x), rtol=1e-5)
    figures = json.loads(run("evaluate", path, tmp_path / "x.npz", "--json").output)
    assert figures["log_prob"] == pytest.approx(np.mean(log_prob), rel=1e-5)
    assert figures["vectors"] == 5
    points = next(iter(tfnvp.data.load("moons", "test", 10_000)))
    nats = flow.log_prob(points).numpy()
    bits = -nats / (2 * np.log(2))
    errors = [values.std(ddof=1) / 100 for values in (nats, bits)]
    expected = f"{nats.mean():.4f} +- {errors[0]:.4f} nats, "
    expected += f"{bits.mean():.4f} +- {errors[1]:.4f} bits/dim, 10000 vectors\n"
    result = run("evaluate", path, "--dataset", "moons", "--batch-size", 3000)
    assert (result.exit_code, result.output) == (0, f"moons test: {expected}")
    assert json.loads(run("info", path, "--json").output)["event_size"] == 2


def test_vectors_are_drawn_interpolated_and_reconstructed(vectors, tmp_path):
    flow, path = vectors
    to = tmp_path / "s.npy"
    assert run("sample", path, "-n", 4, "--temperature", 0, "--to", to, "--force").exit_code == 0
    cold = np.tile(flow.decode(np.zeros((1, 2))), (4, 1))
    np.testing.assert_allclose(np.load(to), cold, atol=1e-5)
    assert run("sample", path, "-n", 4, "--seed", 2, "--to", to, "--force").exit_code == 0
    x = np.load(to)
    np.testing.assert_allclose(x, flow.sample(4, seed=2), atol=1e-5)
    corners = [tmp_path / f"{i}.npy" for i in range(4)]
    for corner, row in zip(corners, x, strict=True):
        np.save(corner, row)
    grid = tmp_path / "grid.npz"
    args = ["--images", *corners, "--steps", 3]
    assert run("interpolate", path, "--to", grid, *args).exit_code == 0
    z = tfnvp.latent.interpolate(*flow.encode(x), steps=3)
    expected = flow.decode(np.reshape(z, (9, 2)))
    np.testing.assert_allclose(np.load(grid)["array"], expected, atol=1e-4)
    result = run("reconstruct", path, "--to", tmp_path / "rows.npy", to)
    rows = np.load(tmp_path / "rows.npy").reshape(4, 2, 2)
    np.testing.assert_array_equal(rows[:, 0], x)
    np.testing.assert_allclose(rows[:, 1], x, atol=1e-4)
    error = float(result.output.splitlines()[0].removeprefix("largest error: "))
    assert error == pytest.approx(np.abs(rows[:, 1] - x).max(), rel=0.1, abs=1e-9)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["extrapolate", "{m}", "--to", "x.npy"],
            "extrapolate is of images, this is a model of",
        ),
        (["sample", "{m}", "--to", "x.png"], "must be a .npy or .npz file for vectors, got x.png"),
        (["interpolate", "{m}", "--to", "x.png"], "must be a .npy or .npz file for vectors"),
        (["reconstruct", "{m}", "--to", "x.png", "{x}"], "must be a .npy or .npz file for vectors"),
        (["reconstruct", "{m}", "--to", "x.npy", "{x}", "--resample"], "--resample is of images"),
        (["interpolate", "{m}", "--to", "x.npy", "--images", *["{wrong}"] * 4], "vectors [N, 2]"),
        (["interpolate", "{m}", "--to", "x.npy", "--images", *["{x}"] * 4], "one vector each"),
        (["score", "{m}", "{wrong}"], "must hold vectors [N, 2], got (2, 3)"),
        (["score", "{m}", "a.png"], "read from .csv, .npy and .npz files, got a.png"),
        (["evaluate", "{m}", "--dataset", "digits"], "digits is of images, this is a model of vec"),
        (["evaluate", "{m}", "{x}", "--samples", "2"], "evaluate --samples is of images"),
        (["score", "{m}", "{x}", "--labels", "1"], "labels must be None"),
    ],
)
def test_what_is_not_for_vectors_is_one_line_and_status_2(vectors, tmp_path, args, message):
    _, path = vectors
    np.save(tmp_path / "x.npy", np.zeros((2, 2)))
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3)))
    names = {"m": path, "x": tmp_path / "x.npy", "wrong": tmp_path / "wrong.npy"}
    result = run(*(arg.format(**names) for arg in args))
    assert result.exit_code == 2 and message in result.output
    assert len(result.output.splitlines()) == 1

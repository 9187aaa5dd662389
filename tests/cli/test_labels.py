"""The command `tfnvp` with a model of images that has classes."""

import json

import numpy as np
import pytest
from helpers.commands import run
from helpers.few_couplings import FewCouplings

import tfnvp


@pytest.fixture(scope="module")
def conditional(randomize, tmp_path_factory):
    """A model of images with classes, a .keras file of it, and a SavedModel."""
    sizes = {"filters": 4, "residual_blocks": 1, "levels": 17}
    options = {"num_classes": 10, "label_dropout": 0.1, "conditional_base": True}
    flow = randomize(FewCouplings((8, 8, 1), 1, **sizes, **options), seed=0)
    directory = tmp_path_factory.mktemp("conditional")
    flow.save(directory / "model.keras")
    served = tfnvp.export_saved_model(flow, directory)
    return flow, {"saved": directory / "model.keras", "served": served}


@pytest.mark.parametrize("kind", ["saved", "served"])
def test_commands_take_labels(kind, conditional, pictures, tmp_path):
    flow, sources = conditional
    source, (paths, levels) = sources[kind], pictures
    to, y = tmp_path / "x.npy", np.array([3, 7, 3, 7])
    one_level = 1.01 / 17 if kind == "served" else 1e-4

    assert run("sample", source, "-n", 4, "--to", to, "--force", "--labels", "3,7").exit_code == 0
    expected = flow.sample(4, labels=y, seed=0)
    np.testing.assert_allclose(np.load(to), expected, atol=one_level)
    for wrong, message in (("10", "labels must be 0..9"), ("three", "--labels must be integers")):
        refused = run("sample", source, "-n", 4, "--to", to, "--force", "--labels", wrong)
        assert refused.exit_code == 2 and message in refused.output
        assert len(refused.output.splitlines()) == 1

    for labels, given in ((None, []), (y, ["--labels", "3,7"])):
        lines = run("score", source, *paths, "--json", *given).output.splitlines()
        bits = [json.loads(line)["bits_per_dim"] for line in lines]
        np.testing.assert_allclose(bits, flow.bits_per_dim(levels, labels), rtol=1e-4)
        figures = json.loads(run("evaluate", source, *paths, "--json", *given).output)
        assert figures["bits_per_dim"] == pytest.approx(np.mean(bits), rel=1e-5)

    for labels, given in ((None, []), (3, ["--labels", "3"])):
        args = ["--to", to, "--force", "--images", *paths, "--steps", 3, *given]
        assert run("interpolate", source, *args).exit_code == 0
        z = tfnvp.latent.interpolate(*flow.encode(levels, labels), steps=3)
        middle = np.clip(flow.decode(np.reshape(z, (9, 8, 8, 1)), labels)[4], 0, 1)
        np.testing.assert_allclose(np.load(to)[4], middle, atol=one_level)
    refused = run("interpolate", source, "--to", to, "--force", "--labels", "3,7")
    assert refused.exit_code == 2 and "one class for all, got 3,7" in refused.output

    result = run("reconstruct", source, "--to", to, "--force", *paths, "--labels", "3,7")
    assert float(result.output.splitlines()[0].removeprefix("largest error: ")) < 1e-4


@pytest.mark.parametrize("kind", ["saved", "served"])
def test_a_conditional_model_is_evaluated_given_the_labels_of_the_set(kind, conditional):
    flow, sources = conditional
    x, y = next(iter(tfnvp.data.load("digits", "validation", 200, labels=True)))
    args = ["evaluate", sources[kind], "--dataset", "digits", "--split", "validation", "--json"]
    bits = json.loads(run(*args).output)["bits_per_dim"]
    assert bits == pytest.approx(float(np.mean(flow.bits_per_dim(x, labels=y))), rel=1e-5)
    assert bits != pytest.approx(float(np.mean(flow.bits_per_dim(x))), rel=1e-4)
    refused = run(*args, "--labels", "3")
    assert refused.exit_code == 2 and "a data set has labels of its own" in refused.output


def test_finer_scales_are_drawn_given_the_label(conditional, pictures, tmp_path):
    flow, sources = conditional
    paths, levels = pictures
    to = tmp_path / "rows.npy"
    args = [*paths, "--labels", "3", "--resample"]
    assert run("reconstruct", sources["saved"], "--to", to, "--force", *args).exit_code == 0
    drawn = tfnvp.latent.resample_scales(flow, levels, keep=0, labels=3, seed=0)
    np.testing.assert_allclose(np.load(to).reshape(4, 3, 8, 8, 1)[:, 2], drawn, atol=1e-5)
    args = ["-n", 1, "--temperature", 0, "--labels", 3]
    assert run("extrapolate", sources["saved"], "--to", to, "--force", *args).exit_code == 0
    expected = flow.sample(1, labels=3, temperature=0.0, image_shape=(16, 16, 1))
    np.testing.assert_allclose(np.load(to), expected, atol=1e-5)

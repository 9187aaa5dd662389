"""Training under MirroredStrategy is the training of one device."""

import functools
import json

import numpy as np
import pytest
from helpers import strategy_program
from helpers.processes import Program


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """results[replicas]: what that many replicas and one device have come to, once it is asked.

    results["further"] is that of two replicas, of further models.
    """
    directory = tmp_path_factory.mktemp("strategies")

    class Results(dict):
        def __missing__(self, key):
            # It runs in a process of its own: logical devices are set up before TensorFlow starts,
            # and strategies of different sizes do not go together in one.
            program = functools.partial(strategy_program.main, key, directory)
            code, out, errors = Program(
                strategy_program.further if key == "further" else program
            ).end()
            assert code == 0, errors
            self[key] = json.loads(out.splitlines()[-1])
            return self[key]

    return Results()


# Four replicas run by `make test-all`.
FOUR = pytest.param(4, marks=pytest.mark.slow)


def compare(one, several, tolerance):
    assert one["history"]["loss"][-1] < one["history"]["loss"][0]
    for key in ("loss", "bits_per_dim"):
        np.testing.assert_allclose(several["history"][key], one["history"][key], rtol=tolerance)
    for key in several["evaluation"]:
        assert several["evaluation"][key] == pytest.approx(one["evaluation"][key], rel=tolerance)
    # All weights are compared together: some are nearly 0, and all their digits are rounding.
    one, several = (np.concatenate([*map(np.ravel, run["weights"])]) for run in (one, several))
    assert np.linalg.norm(one - several) <= tolerance * np.linalg.norm(one)


@pytest.mark.parametrize(
    ("key", "case"),
    [
        (2, "images"),
        (2, "labelled vectors"),
        pytest.param(4, "images", marks=pytest.mark.slow),
        pytest.param("further", "rematerialised", marks=pytest.mark.slow),
        pytest.param("further", "weighted", marks=pytest.mark.slow),
    ],
)
def test_replicas_train_as_one_device_does(key, case, results):
    """21 steps, a third of them with replicas that have no rows."""
    compare(*results[key][case], tolerance=1e-9)


@pytest.mark.parametrize(
    ("key", "case"),
    [
        (2, "weighted float32 by Muon"),
        pytest.param("further", "float32", marks=pytest.mark.slow),
    ],
)
def test_in_float32(key, case, results):
    """Whose batch normalizations are fused, with a gradient of their own."""
    compare(*results[key][case], tolerance=1e-4)


@pytest.mark.slow
def test_batch_statistics_may_be_each_replicas_own(results):
    """Another training, about as good."""
    found = results["further"]
    (one, _), own = found["images"], found["own"]
    assert own["history"]["loss"][-1] < own["history"]["loss"][0]
    assert abs(own["history"]["loss"][0] - one["history"]["loss"][0]) > 1e-6
    assert abs(own["evaluation"]["loss"] - one["evaluation"]["loss"]) < 0.1
    assert found["own differ"] == 0


@pytest.mark.parametrize("replicas", [2, FOUR])
def test_variables_stay_the_same_on_all_replicas(replicas, results):
    """To the bit: those of the model and of the optimizer."""
    assert results[replicas]["differ"] == 0


def test_a_step_in_a_function_of_ones_own_is_refused(results):
    """Where replicas would wait for each other for ever."""
    assert "`merge_call` called while defining a new graph" in results[2]["nested"]


def test_xla_is_refused_by_name(results):
    assert "jit_compile must be False or 'auto' on several replicas" in results[2]["jit"]


@pytest.mark.parametrize("replicas", [2, FOUR])
def test_a_model_of_several_replicas_is_one_everywhere(replicas, results):
    found = results[replicas]
    for inside, outside in zip(found["inside"], found["outside"], strict=True):
        np.testing.assert_allclose(inside, outside, rtol=1e-9)
    np.testing.assert_allclose(found["mirrored"], found["outside"][0], rtol=1e-9)
    np.testing.assert_allclose(found["served"], found["outside of pixels"], rtol=1e-6)


def test_replicas_draw_noise_of_their_own(results):
    first, second = (np.array(noise) for noise in results[2]["noise"])
    assert first.shape == second.shape == (1, 4, 4, 1)
    assert not np.isclose(first, second).any()

"""Replicas by TensorFlow's ordinary path, where one of them fails, and over thousands of steps."""

import functools
import json

import numpy as np
import pytest
from helpers import replica_program
from helpers.processes import Program


def _run(function, *args):
    code, out, errors = Program(functools.partial(function, *args)).end()
    assert code == 0, errors
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("name", ["plain", pytest.param("own", marks=pytest.mark.slow)])
def test_the_ordinary_path_is_the_same_training(name):
    found = _run(replica_program.paths, name)
    shared, ordinary = found["shared"], found[name]
    assert shared["shares"] and not ordinary["shares"]
    for key in ("losses", "weights"):
        np.testing.assert_allclose(ordinary[key], shared[key], rtol=1e-4, atol=1e-5)
    for path in found.values():
        np.testing.assert_allclose(path["predicted"], path["log_prob"], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_step_in_which_one_replica_fails_ends_for_all():
    found = _run(replica_program.faults)
    assert found["message"] == "vectors must be finite, got NaN or infinity"
    assert found["seconds"] < 10 and found["unmoved"]
    assert np.isfinite(found["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 4])
def test_two_models_in_turns_keep_to_their_memory_and_traces(replicas):
    """3,000 steps, and an evaluation between two fits."""
    found = _run(replica_program.long_runs, replicas)
    # After the first turn of each all is made that is ever made.
    assert found["memory"][-1] <= 1.02 * found["memory"][1], found
    assert found["traced"][0] == found["traced"][-1] > 0

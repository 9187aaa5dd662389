"""Good callers are answered the same, whoever else's rows are in their batches.

The C++ loader runs the graph, and the test puts rows together as TF Serving's batching does.
"""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers.storm_requests import LEVELS, SHAPE, bad_requests, good_requests
from tensorflow.core.protobuf import saved_model_pb2

import tfnvp

PROGRAM = Path(__file__).parents[1] / "helpers" / "merging_program.py"


@pytest.fixture(scope="module")
def path(tiny_model, tmp_path_factory):
    model = tiny_model(SHAPE, levels=LEVELS)
    return tfnvp.export_saved_model(model, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def job(path):
    """job(signature, inputs): what the program takes."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def

    def job(signature, inputs):
        definition = signatures[signature]
        feeds = {definition.inputs[key].name: np.asarray(x) for key, x in inputs.items()}
        return feeds, [definition.outputs[key].name for key in sorted(definition.outputs)]

    return job


def storm(path, job, seconds, count=1000):
    random = np.random.default_rng(20)
    good = [job(*request) for request in good_requests(random)]
    bad = [job(*request) for request in bad_requests(random, count)]
    assert len(bad) == count
    done = subprocess.run(
        [sys.executable, PROGRAM, Path(tf.__file__).parent],
        input=pickle.dumps((str(path), good, bad, seconds)),
        stdout=subprocess.PIPE,
        check=True,
    )
    failures, good_count, bad_count, mixed, again, growth = pickle.loads(done.stdout)
    print(f"{good_count} good and {bad_count} bad in {seconds} s, memory grew by {growth:.1f} MB")
    print(f"{again} times a good caller asked again, for a batch had different shapes")
    assert not failures, failures[:5]
    assert bad_count >= count and good_count > count / 10
    assert mixed > 10, "rows of good and bad callers must have been in one batch"
    assert again > 0, "shapes must have differed in some batches"
    assert growth < 50


def test_a_thousand_bad_requests_change_no_good_answer(path, job):
    storm(path, job, seconds=2)


@pytest.mark.slow
def test_a_minute_of_bad_requests_changes_no_good_answer(path, job):
    storm(path, job, seconds=60)

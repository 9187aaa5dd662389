"""Training under MultiWorkerMirroredStrategy, by processes on 127.0.0.1, is that of one device."""

import functools
import json
import signal
import socket

import numpy as np
import pytest
from helpers import plain_workers, worker_data_program
from helpers.processes import Program, start, state

TRAINING = ["digits", "--no-export", "--batch-size", "200", "--epochs", "2"]


def cluster(workers):
    """TF_CONFIG of each of so many workers."""
    sockets = [socket.socket() for _ in range(workers)]
    for free in sockets:
        free.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            )
        }
        for index in range(workers)
    ]


@pytest.mark.slow
def test_workers_train_as_one_device_does_and_survive_the_death_of_one(tmp_path):
    """Three, of which one is killed; then two go on from what the three had saved."""
    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    reference = start(tmp_path / "one", *TRAINING, float=True, state=str(whole))
    run_dir = tmp_path / "several"
    strategy = ["--strategy", "multi_worker", "--checkpoint-every", "2"]
    three = [
        start(
            # A worker that is not the chief has a directory of its own, where its files would show.
            run_dir if index == 0 else tmp_path / f"not_written_{index}",
            *TRAINING,
            *strategy,
            float=True,
            environment=environment,
            die={"kill": 5} if index == 2 else {},
        )
        for index, environment in enumerate(cluster(3))
    ]
    ends = [worker.end() for worker in three]
    assert ends[2][0] == -signal.SIGKILL
    for code, _, errors in ends[:2]:
        assert code == 1, errors
        assert "train: another worker is gone: start all of them again with --resume" in errors
    assert not list(tmp_path.glob("not_written_*"))
    saved = [path.name for path in sorted((run_dir / "checkpoints").glob("[0-9]*"))]
    assert saved == ["000000002.npz", "000000004.npz"]

    two = [
        start(run_dir, "digits", "--resume", "--no-export", *strategy, float=True, **options)
        for options in (
            {"environment": environment, "state": str(resumed)} for environment in cluster(2)
        )
    ]
    for program in (*two, reference):
        code, _, errors = program.end()
        assert code == 0, errors
    (rows, variables), (rows_of_two, variables_of_two) = state(whole), state(resumed)
    for row, other in zip(rows, rows_of_two, strict=True):
        assert other == pytest.approx(row, rel=1e-4)
    # All are compared together: some are nearly 0, and all their digits are rounding.
    one, other = (
        np.concatenate([v.ravel() for v in found if v.dtype.kind == "f"])
        for found in (variables, variables_of_two)
    )
    assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(one)


@pytest.mark.slow
def test_keras_still_needs_what_multi_worker_mends():
    """Where this fails, Keras has been mended, and MultiWorkerFit of graph/internals.py can go."""
    workers = [Program(plain_workers.main, environment) for environment in cluster(2)]
    for worker in workers:
        code, out, errors = worker.end()
        assert code == 0, errors
        assert out.split() == ["Plain", "fails", "Built", "fails"]


@pytest.fixture(scope="module")
def of_two_workers(tmp_path_factory):
    """The reports of two workers, each on other people's data."""
    program = functools.partial(worker_data_program.main, tmp_path_factory.mktemp("workers"))
    found = []
    for worker in [Program(program, environment) for environment in cluster(2)]:
        code, out, errors = worker.end()
        assert code == 0, errors
        found.append(json.loads(out.splitlines()[-1]))
    return found


@pytest.mark.slow
def test_arrays_are_shuffled_alike_for_all_workers(of_two_workers):
    """Each row is seen once in an epoch, by one of them; the next epoch has another order."""
    one, other = (worker["rows"] for worker in of_two_workers)
    for rows in zip(one, other, strict=True):
        assert sorted([*rows[0], *rows[1]]) == list(range(12))
    assert one[0] != one[1] and one[0] != sorted(one[0])


@pytest.mark.slow
def test_data_sets_that_show_workers_the_wrong_rows_are_refused(of_two_workers):
    for worker in of_two_workers:
        assert "x must be shuffled with a seed under several workers" in worker["unseeded"]
        assert "x must be sharded under several workers" in worker["off"]
        assert "shuffled with a seed under several workers" in worker["mixed"]
        assert "x must be in one order on all workers" in worker["other seeds"]
        assert worker["seeded"] == worker["sharded"] == "trains"


@pytest.mark.slow
def test_rows_are_held_out_alike(of_two_workers):
    one, other = (worker["held out"] for worker in of_two_workers)
    assert one == other and np.isfinite(one).all()


@pytest.mark.slow
def test_keras_callbacks_save_and_go_on(of_two_workers):
    for worker in of_two_workers:
        assert worker["epochs"] == [2]
        np.testing.assert_allclose(worker["score"], worker["expected"], rtol=1e-5)
    assert of_two_workers[0]["score"] == of_two_workers[1]["score"]


@pytest.mark.slow
def test_workers_answer_as_one_device_does(of_two_workers):
    """By `log_prob` in a function, `predict`, `evaluate`, `sample`, and an export."""
    for worker in of_two_workers:
        for name, (found, expected) in worker["answers"].items():
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)
        assert worker["evaluated"][0] == pytest.approx(worker["evaluated"][1], rel=1e-5)
        once, again, saved = worker["drawn"]
        assert once == again
        np.testing.assert_allclose(once, saved, rtol=1e-5)

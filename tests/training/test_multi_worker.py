"""Training under MultiWorkerMirroredStrategy, by processes on 127.0.0.1, is that of one device."""

import json
import signal
import socket

import numpy as np
import pytest
from helpers import plain_workers
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


def test_workers_train_as_one_device_does_and_survive_the_death_of_one(tmp_path):
    """Three, of which one is killed; then two go on from what the three had saved."""
    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    reference = start(tmp_path / "one", *TRAINING, float=True, state=str(whole))
    run_dir = tmp_path / "several"
    strategy = ["--strategy", "multi_worker", "--checkpoint-every", "2"]
    three = [
        start(
            # What is not the chief's would show in a directory of its own.
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
    # Of all together: some are nearly 0, and all their digits are rounding.
    one, other = (
        np.concatenate([v.ravel() for v in found if v.dtype.kind == "f"])
        for found in (variables, variables_of_two)
    )
    assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(one)


def test_keras_still_needs_what_multi_worker_mends():
    """Where this fails, Keras has been mended, and MultiWorkerFit of graph/internals.py can go."""
    workers = [Program(plain_workers.main, environment) for environment in cluster(2)]
    for worker in workers:
        code, out, errors = worker.end()
        assert code == 0, errors
        assert out.split() == ["Plain", "fails", "Built", "fails"]

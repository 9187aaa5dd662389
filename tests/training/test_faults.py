"""Whatever ends a run, it goes on as if nothing had happened: in processes that really die."""

import json
import os
import random
import signal

import keras
import numpy as np
import pytest
from helpers.processes import run, start, state

import tfnvp
from tfnvp.training.checkpoints import Checkpoints
from tfnvp.training.run_callbacks import Checkpoint

# Seven steps an epoch, the last one of 97 images.
STEPS_PER_EPOCH, EPOCHS = 7, 3
TRAINING = ["digits", "--no-export", "--batch-size", "200", "--epochs", str(EPOCHS)]


def test_a_run_that_is_killed_again_and_again_is_the_unbroken_one(tmp_path):
    """Bit for bit: weights, optimizer, running statistics, seeds of noise, history."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    training = [*TRAINING, "--deterministic", "--checkpoint-every", "2"]
    reference = start(unbroken, *training, state=str(whole))

    # While a state is saved, and at a step at random or the last one.
    deaths = [
        {"kill while saving": 2},
        {"kill": random.choice([*range(8, 13), STEPS_PER_EPOCH * EPOCHS])},
    ]
    history = []
    for death in deaths:
        resume = ["--resume"] if (broken / "config.json").exists() else training[1:]
        code, _, errors = run(broken, "digits", *resume, *training[-2:], "--no-export", die=death)
        assert code == -signal.SIGKILL, (deaths, errors)
        saved = sorted(int(path.stem) for path in (broken / "checkpoints").glob("[0-9]*.npz"))
        history.append(saved[-1])
        if "kill" in death:
            assert death["kill"] - saved[-1] <= 2, (deaths, saved)
    assert history == sorted(history)
    code, _, errors = run(broken, "digits", "--resume", "--no-export", state=str(resumed))
    assert code == 0, (deaths, errors)
    code, _, errors = reference.end()
    assert code == 0, errors
    rows, variables = state(whole)
    assert len(rows) == EPOCHS
    again = state(resumed)
    assert again[0] == rows, deaths
    for one, other in zip(variables, again[1], strict=True):
        np.testing.assert_array_equal(other, one, err_msg=str(deaths))
    assert (broken / "history.csv").read_text() == (unbroken / "history.csv").read_text()
    assert not (broken / "checkpoints").exists()


@pytest.fixture(scope="module")
def terminated(tmp_path_factory):
    """The directory of a run that got SIGTERM in step 9, and how it ended."""
    run_dir = tmp_path_factory.mktemp("terminated") / "run"
    options = ["--deterministic", "--checkpoint-every", "4"]
    return run_dir, *run(run_dir, *TRAINING, *options, die={"terminate": 9})


def test_sigterm_saves_and_the_status_says_so(terminated):
    run_dir, code, said, errors = terminated
    assert code == 128 + signal.SIGTERM, errors
    assert said == ["train: ended by SIGTERM after step 9: go on with --resume"]
    left = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert left == ["000000007.npz", "000000009.npz"]
    # Resumed, it is the run that was begun.
    code, said, _ = run(run_dir, "digits", "--resume", "--epochs", "9")
    assert code == 2
    assert said == [
        f"train: --resume: the run in {run_dir} has --epochs 3, got 9: leave that out, or start "
        "another run"
    ]


def test_ctrl_c_saves_and_the_status_says_so(tmp_path):
    code, said, errors = run(tmp_path / "run", *TRAINING, die={"interrupt": 3})
    assert code == 128 + signal.SIGINT, errors
    assert said == ["train: ended by SIGINT after step 3: go on with --resume"]
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left[-1] == "000000003.npz"


@pytest.mark.slow
def test_a_run_on_two_replicas_is_resumed_as_one_on_one_device(tmp_path):
    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    mirrored = ["--strategy", "mirrored"]
    death = {"die": {"terminate": 3}, "devices": 2, "float": True}
    code, _, errors = run(tmp_path / "two", *TRAINING, *mirrored, **death)
    assert code == 128 + signal.SIGTERM, errors
    options = {"state": str(resumed), "devices": 2, "float": True}
    code, _, errors = run(
        tmp_path / "two", "digits", "--resume", "--no-export", *mirrored, **options
    )
    assert code == 0, errors
    code, _, errors = run(tmp_path / "one", *TRAINING, float=True, state=str(whole))
    assert code == 0, errors
    for row, other in zip(state(whole)[0], state(resumed)[0], strict=True):
        assert other == pytest.approx(row, rel=1e-4)


@pytest.mark.slow
def test_a_run_that_xla_compiles_is_resumed_as_one(tmp_path):
    code, _, errors = run(tmp_path / "run", *TRAINING, "--jit", die={"terminate": 3})
    assert code == 128 + signal.SIGTERM, errors
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert settings["jit"] is True
    code, said, _ = run(tmp_path / "run", "digits", "--resume", "--no-export", "--no-jit")
    assert code == 2 and "has --jit True, got False" in said[0]
    code, _, errors = run(tmp_path / "run", "digits", "--resume", "--no-export")
    assert code == 0, errors


def test_a_second_ctrl_c_does_not_wait_for_the_step():
    checkpoint = Checkpoint(None, [], 1, 1)
    checkpoint._terminate(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        checkpoint._terminate(signal.SIGINT)


@pytest.mark.parametrize(
    ("death", "message"),
    [
        ({"disk full": 5}, "File too large"),
        ({"read-only": 5}, "Permission denied"),
    ],
)
def test_what_cannot_go_on_is_one_line_and_the_last_state_stays(death, message, tmp_path):
    code, said, errors = run(tmp_path / "run", *TRAINING, "--checkpoint-every", "2", die=death)
    assert code == 2, errors
    assert len(said) == 1 and message in said[0]
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert left == ["000000002.npz", "000000004.npz"]


def test_a_run_directory_that_cannot_be_made_is_one_line(tmp_path):
    tmp_path.chmod(0o555)
    code, said, errors = run(tmp_path / "run", *TRAINING, die={"read-only": 0})
    assert code == 2, errors
    assert len(said) == 1 and "Permission denied" in said[0] and str(tmp_path) in said[0]


def test_divergence_ends_a_run_with_the_weights_before(terminated, tmp_path):
    """In the third step of the second epoch; the last state is of two steps before."""
    options = ["--deterministic", "--checkpoint-every", "4"]
    code, said, errors = run(tmp_path / "run", *TRAINING, *options, die={"nan": 10})
    assert code == 2, errors
    (said,) = said
    assert "training diverged: loss nan bits/dim in step 10; its batch had the rows " in said
    rows = said.split("the rows ")[1].split(" of the")[0].split(", ")
    batch = tfnvp.data.load("digits", "train", 200, epochs=range(1, 2), indices=True)
    assert list(map(int, rows)) == list(batch)[2].numpy().tolist()
    assert f"the weights before are in {tmp_path / 'run' / 'last_finite.keras'}; try" in said

    model = keras.models.load_model(tmp_path / "run" / "last_finite.keras")
    states = Checkpoints(terminated[0] / "checkpoints", model)
    weights = [*model.weights, *model.optimizer.variables]
    found = [np.array(weight) for weight in weights]
    assert states.restore() is not None
    for one, other in zip(found, weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def trained():
    """A model that has taken a step, and its states: the newest is of two steps."""

    def make(directory):
        model = tfnvp.VectorRealNVP(2, 2, (4,))
        model.build()
        model.compile(optimizer=tfnvp.optimizers.Adam(1e-3))
        model.optimizer.build(model.trainable_variables)
        checkpoints = Checkpoints(directory, model)
        states = []
        for step in range(3):
            for i, variable in enumerate(checkpoints._variables):
                variable.assign(np.full(variable.shape, i + step))
            model.optimizer.iterations.assign(step)
            checkpoints.save([{"epoch": step}])
            states.append([np.array(v) for v in checkpoints._variables])
        return checkpoints, states

    return make


def test_two_states_are_kept(trained, tmp_path):
    checkpoints, _ = trained(tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["000000001.npz", "000000002.npz"]
    assert checkpoints.restore() == [{"epoch": 2}]


@pytest.mark.parametrize("damage", ["bits", "truncation"])
def test_a_damaged_state_is_named_and_the_one_before_taken(damage, trained, tmp_path, capsys):
    checkpoints, states = trained(tmp_path)
    newest = checkpoints.paths()[-1]
    whole = newest.read_bytes()
    passed_over = 0
    for place in np.random.default_rng(0).integers(0, len(whole), 60):
        torn = bytearray(whole)
        if damage == "bits":
            torn[place] ^= 1 << int(place) % 8
        else:
            del torn[place:]
        newest.write_bytes(torn)
        for variable in checkpoints._variables:
            variable.assign(np.zeros(variable.shape))
        (row,) = checkpoints.restore()
        # Damage to what no one reads, such as the time of an archive's member, harms no one.
        for variable, value in zip(checkpoints._variables, states[row["epoch"]], strict=True):
            np.testing.assert_array_equal(variable, value)
        if row["epoch"] == 1:
            passed_over += 1
            assert f"passing over {newest}, which is damaged" in capsys.readouterr().err
    assert passed_over == 60 if damage == "truncation" else passed_over > 30


def test_no_state_is_left_half_written(trained, tmp_path, monkeypatch):
    checkpoints, _ = trained(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: 1 / 0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError):
        checkpoints.save([])
    assert sorted(tmp_path.iterdir()) == before

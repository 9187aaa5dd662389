"""Whatever is written is there whole or not at all, also when the disk is full midway."""

import os
import resource
import stat

import keras
import numpy as np
import pytest
from PIL import Image

import tfnvp
from tfnvp import atomic_file, plotting
from tfnvp.cli import rows
from tfnvp.training import checkpoints
from tfnvp.training.run_callbacks import Record

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=(32,))
    model.compile(optimizer=keras.optimizers.Adam())
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def full_disk():
    """full_disk(): from now on a file takes 1,000 bytes, until the test is over."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def gif(directory, model):
    # The frames stand elsewhere: they are there before the disk is full.
    frames = [directory.with_name(f"{i}.png") for i in range(2)]
    for frame in frames:
        if not frame.exists():
            Image.fromarray(NOISE).save(frame)
    plotting.save_gif(frames, directory / "file.gif")


def history(directory, model):
    rows = [{"epoch": i, "val_bits_per_dim": 0.1} for i in range(300)]
    # Not the best so far: the model is not saved.
    Record(directory, rows).on_epoch_end(300, {"val_bits_per_dim": 1.0})


WRITERS = {
    "png": lambda directory, model: plotting.save_png(NOISE, directory / "file.png"),
    "gif": gif,
    "npy": lambda directory, model: rows.write_array(directory / "file.npy", NOISE, None),
    "npz": lambda directory, model: rows.write_array(directory / "file.npz", NOISE, None),
    "NPY": lambda directory, model: rows.write_array(directory / "file.NPY", NOISE, None),
    "keras": lambda directory, model: model.save(directory / "model.keras"),
    "checkpoint": lambda directory, model: checkpoints.Checkpoints(directory, model).save([]),
    "csv": history,
    "SavedModel": lambda directory, model: tfnvp.export_saved_model(model, directory, ["log_prob"]),
    "StableHLO": lambda directory, model: tfnvp.export_stablehlo(model, directory / "module"),
}
# A version of an export is never replaced, nor is a StableHLO module.
NEW = ("SavedModel", "StableHLO")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(kind, model, tmp_path, full_disk):
    directory = tmp_path / "written"
    directory.mkdir()
    WRITERS[kind](directory, model)
    (path,) = directory.iterdir()
    if path.is_file():
        path.write_bytes(b"old")
    elif kind == "StableHLO":
        path.rename(tmp_path / "earlier")
    left = sorted(directory.iterdir())
    full_disk()
    with pytest.raises(Exception):  # noqa: B017  (TensorFlow's and HDF5's errors are their own)
        WRITERS[kind](directory, model)
    assert sorted(directory.iterdir()) == left
    if path.is_file():
        assert path.read_bytes() == b"old"


@pytest.mark.parametrize("kind", WRITERS)
def test_permissions_are_those_of_any_new_file(kind, model, tmp_path):
    directory = tmp_path / "written"
    directory.mkdir()
    mask = os.umask(0o027)
    try:
        WRITERS[kind](directory, model)
    finally:
        os.umask(mask)
    (path,) = directory.iterdir()
    expected = 0o640 if path.is_file() else 0o750
    assert stat.S_IMODE(path.stat().st_mode) == expected


def test_a_symbolic_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with atomic_file.writing(tmp_path / "link") as written:
        written.write_text("new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "target").read_text() == "old"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_no_trace(tmp_path, error):
    (tmp_path / "old.txt").write_text("old")
    for name in ("old.txt", "new.txt", "directory"):
        with pytest.raises(error), atomic_file.writing(tmp_path / name) as written:
            if name == "directory":
                written.mkdir()
                written = written / "part"
            written.write_text("half")
            raise error
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


def test_while_it_is_written_the_old_file_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_file.writing("a.weights.h5") as written:
        written.write_text("old")
    with atomic_file.writing("a.weights.h5") as written:
        assert written.name == "a.weights.h5"
        written.write_text("new")
        with open("a.weights.h5") as file:
            assert file.read() == "old"
    with open("a.weights.h5") as file:
        assert file.read() == "new"
    assert os.listdir() == ["a.weights.h5"]


def test_a_directory_that_holds_something_is_not_replaced(tmp_path):
    (tmp_path / "a" / "old").mkdir(parents=True)
    with pytest.raises(OSError, match="a"), atomic_file.writing(tmp_path / "a") as written:
        written.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_a_version_that_is_being_written_has_its_number(model, tmp_path):
    with atomic_file.writing(tmp_path / "1") as other:
        other.mkdir()
        path = tfnvp.export_saved_model(model, tmp_path, ["log_prob"])
    assert path.name == "2" and (tmp_path / "1").is_dir()

"""From a finished run to what ships."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from train.release import release

SIZES = {"num_scales": 1, "filters": 4, "residual_blocks": 1, "levels": 17}


@pytest.fixture
def model(tiny_model):
    return tiny_model((8, 8, 1), **SIZES)


@pytest.fixture
def run(tmp_path, model):
    run = tmp_path / "run"
    run.mkdir()
    model.save(run / "model.keras")
    (run / "card.json").write_text(json.dumps({"preset": "digits", "seed": 3}))
    return run


@pytest.fixture
def old(tmp_path):
    """The SavedModel that shipped before."""
    old = tmp_path / "saved_models" / "digits" / "1"
    old.mkdir(parents=True)
    (old / "old").touch()
    return old


def test_release_leaves_weights_card_and_saved_model(tmp_path, model, run, old, monkeypatch):
    saved_models = tmp_path / "saved_models"
    release(run, "some digits", tmp_path / "weights", saved_models)
    assert [path.name for path in saved_models.rglob("*")].count("saved_model.pb") == 1
    assert (old / "saved_model.pb").is_file() and not (old / "old").exists()
    assert [path.name for path in saved_models.iterdir()] == ["digits"]
    assert [path.name for path in old.parent.iterdir()] == ["1"]

    monkeypatch.setattr(tfnvp.presets, "_WEIGHTS", tmp_path / "weights")
    assert tfnvp.presets.trained() == ["digits"]
    assert tfnvp.presets.card("digits") == {"preset": "digits", "seed": 3, "data": "some digits"}
    again = type(model).from_preset("digits", load_weights=True, **SIZES, image_shape=(8, 8, 1))
    x = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1)).astype("uint8")
    np.testing.assert_allclose(again.log_prob(x), model.log_prob(x), rtol=1e-5)


def _no_export(*args, **kwargs):
    raise OSError("no space left")


def test_the_earlier_version_is_back_after_a_kill_between_the_renames(
    tmp_path, run, old, monkeypatch
):
    """The next release finds it, and leaves it even if it fails itself."""
    old.rename(old.with_name(".earlier-1"))
    monkeypatch.setattr(tfnvp, "export_saved_model", _no_export)
    with pytest.raises(OSError, match="no space left"):
        release(run, None, tmp_path / "weights", tmp_path / "saved_models")
    assert (old / "old").is_file()
    assert [path.name for path in old.parent.iterdir()] == ["1"]


def test_the_earlier_version_is_back_after_a_rename_that_fails(tmp_path, run, old, monkeypatch):
    missing = Path(tmp_path, "missing")
    monkeypatch.setattr(tfnvp, "export_saved_model", lambda *args, **kwargs: missing)
    with pytest.raises(FileNotFoundError):
        release(run, None, tmp_path / "weights", tmp_path / "saved_models")
    assert (old / "old").is_file()
    assert [path.name for path in old.parent.iterdir()] == ["1"]


def test_what_trained_in_bfloat16_ships_in_float32(tmp_path, model, run):
    """Many machines emulate bfloat16, and are slow at it."""
    mixed = type(model).from_config(model.get_config() | {"dtype": "mixed_bfloat16"})
    mixed.set_weights(model.get_weights())
    mixed.save(run / "model.keras")
    release(run, None, tmp_path / "weights", tmp_path / "saved_models")
    served = tf.saved_model.load(str(tmp_path / "saved_models" / "digits" / "1"))
    x = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1)).astype("uint8")
    scores = served.signatures["log_prob"](images=x)["log_prob"]
    np.testing.assert_allclose(scores, model.log_prob(x), rtol=1e-5)
    assert np.abs(mixed.log_prob(x) - model.log_prob(x)).max() > 1e-3

"""From a finished run to what ships."""

import json

import numpy as np

import tfnvp
from train.release import release


def test_release_leaves_weights_card_and_saved_model(tmp_path, tiny_model, monkeypatch):
    sizes = {"num_scales": 1, "filters": 4, "residual_blocks": 1, "levels": 17}
    model = tiny_model((8, 8, 1), **sizes)
    run, saved_models = tmp_path / "run", tmp_path / "saved_models"
    run.mkdir()
    model.save(run / "model.keras")
    (run / "card.json").write_text(json.dumps({"preset": "digits", "seed": 3}))
    old = saved_models / "digits" / "1"
    old.mkdir(parents=True)
    (old / "old").touch()

    release(run, "some digits", tmp_path / "weights", saved_models)
    assert [path.name for path in saved_models.rglob("*")].count("saved_model.pb") == 1
    assert (old / "saved_model.pb").is_file() and not (old / "old").exists()
    assert [path.name for path in saved_models.iterdir()] == ["digits"]

    monkeypatch.setattr(tfnvp.presets, "_WEIGHTS", tmp_path / "weights")
    assert tfnvp.presets.trained() == ["digits"]
    assert tfnvp.presets.card("digits") == {"preset": "digits", "seed": 3, "data": "some digits"}
    again = type(model).from_preset("digits", load_weights=True, **sizes, image_shape=(8, 8, 1))
    x = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1)).astype("uint8")
    np.testing.assert_allclose(again.log_prob(x), model.log_prob(x), rtol=1e-5)

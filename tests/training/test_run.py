"""Training runs, small but whole: from a recipe to a run directory and a SavedModel."""

import csv
import dataclasses
import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.few_couplings import FewCouplingsRecipe
from PIL import Image

import tfnvp
import tfnvp.training.run
from tfnvp.training import recipes
from tfnvp.training.run import Settings
from tfnvp.training.run_callbacks import Log


def tiny(name, **options):
    """A recipe with a model that trains in seconds."""
    recipe = recipes.get(name, **options)
    if name in ("moons", "table"):
        return dataclasses.replace(recipe, overrides={"num_couplings": 2, "hidden_units": (4,)})
    return FewCouplingsRecipe.of(recipe)


def settings(tmp_path, name="digits", **options):
    defaults = {
        "recipe_name": name,
        "run_dir": tmp_path / "run",
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 2e-3,
        "mixed_precision": False,
        "remat": False,
        "seed": 0,
        "resume": False,
        "limit_steps": None,
        "export_to": None,
    }
    return Settings(**(defaults | options))


@pytest.fixture
def drawn():
    """Asked for by a test of the pictures of images, which take longer to trace than to train."""


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(recipes.Recipe, "pictures", lambda self: {})


def history(run_dir):
    with (run_dir / "history.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.mark.usefixtures("drawn")
def test_a_run_leaves_what_it_promises(tmp_path, capsys):
    figures = tfnvp.training.run.train(
        tiny("digits"), settings(tmp_path, export_to=tmp_path / "saved_models" / "digits")
    )
    run_dir = tmp_path / "run"
    left = {path.name for path in run_dir.iterdir()}
    assert left == {
        "card.json",
        "config.json",
        "curves.png",
        "bits_per_dim.png",
        "history.csv",
        "interpolation.png",
        "logs",
        "model.keras",
        "samples.png",
        "watched",
    }
    watched = run_dir / "watched"
    for name in ("samples", "interpolation", "bits_per_dim"):
        frames = sorted(path.name for path in (watched / name).iterdir())
        assert frames == ["epoch_0001.png", "epoch_0002.png"]
        assert Image.open(watched / f"{name}.gif").n_frames == 2
    card = json.loads((run_dir / "card.json").read_text())
    assert card["preset"] == "digits"
    assert card["images"] == {"train": 1297, "validation": 200, "test": 300}
    assert card["bits_per_dim"]["test"] == pytest.approx(figures["test"], abs=1e-4)
    rows = history(run_dir)
    validation = [float(row["val_bits_per_dim"]) for row in rows]
    assert len(rows) == 2 and validation[1] < validation[0]
    assert list((run_dir / "logs" / "train").glob("events*"))

    # The model that is kept is the best by validation, and the figures are its.
    model = keras.models.load_model(run_dir / "model.keras")
    for split in ("validation", "test"):
        images = np.concatenate(list(tfnvp.data.load("digits", split, 100)))
        assert figures[split] == pytest.approx(model.bits_per_dim(images).numpy().mean(), abs=1e-4)
    assert figures["validation"] == pytest.approx(min(validation), abs=1e-4)
    assert figures["images_seen"] == 2 * 1297
    assert Image.open(run_dir / "samples.png").size[0] > 8 * 32
    assert Image.open(run_dir / "curves.png").size == (660, 440)
    assert (tmp_path / "saved_models" / "digits" / "1" / "saved_model.pb").is_file()
    assert json.loads((run_dir / "config.json").read_text())["settings"]["seed"] == 0
    printed = capsys.readouterr().out
    assert f"test bits/dim        {figures['test']:.3f}" in printed


# Those that are as another one but for their images' names and sizes run by `make test-all`.
ALIKE = ("cifar10", "cifar10_small", "imagenet32", "imagenet32_plus", "imagenet64")
ALIKE += ("lsun_bedroom", "lsun_church_outdoor", "lsun_tower", "digits_conditional", "photos")
ALIKE += ("mnist", "mnist_best", "mnist_conditional")
RECIPES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else [])
    for name in recipes.names()
]


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs(name, tmp_path, folder, tfds_directory, monkeypatch, capsys):
    """A whole run, on the few images of a TFDS directory written for the tests."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_directory))
    table = tmp_path / "table.csv"
    table.write_text("a,b\n" + "".join(f"{i % 7},{i / 3}\n" for i in range(40)))
    of_options = {"folder": {"data": folder, "image_size": 8}, "table": {"data": table}}
    recipe = tiny(name, **of_options.get(name, {}))
    figures = tfnvp.training.run.train(
        recipe, settings(tmp_path, name, batch_size=3, limit_steps=1, mixed_precision=True)
    )
    assert figures[f"{recipe.unit}_seen"] == 3
    assert all(np.isfinite(figures[split]) for split in tfnvp.data.SPLITS)
    if recipe.paper_bits_per_dim:
        assert f"the paper's test     {recipe.paper_bits_per_dim:.2f}" in capsys.readouterr().out


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    "name",
    ["cifar10", *(pytest.param(f"imagenet{n}", marks=pytest.mark.slow) for n in (32, 64))],
)
def test_the_real_images_take_two_steps(name, tmp_path):
    recipe = tiny(name)
    try:
        recipe.load("train", 8)
    except tfnvp.data.DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    figures = tfnvp.training.run.train(
        recipe, settings(tmp_path, name, batch_size=8, limit_steps=2)
    )
    assert figures["images_seen"] == 16
    assert all(6 < figures[split] < 9 for split in tfnvp.data.SPLITS)


@pytest.mark.usefixtures("eagerly")
def test_rematerialised_is_what_the_model_is(tmp_path):
    """tests/layers/test_pure_layer.py has it that training is the same."""
    tfnvp.training.run.train(
        tiny("digits"), settings(tmp_path, remat=True, limit_steps=1, batch_size=8)
    )
    assert keras.models.load_model(tmp_path / "run" / "model.keras").remat is True
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"]["remat"] is True


# The paper's two scales and, at most, five; and what goes beyond it.
@pytest.mark.parametrize(
    "name",
    [
        "cifar10",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("celeb_a", "imagenet32_plus")),
    ],
)
@pytest.mark.usefixtures("eagerly")
def test_every_architecture_takes_two_steps_at_reduced_size(name, tfds_directory, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_directory))
    keras.utils.set_random_seed(0)
    recipe = recipes.get(name)
    model = dataclasses.replace(recipe, overrides={"filters": 2, "residual_blocks": 1}).model()
    model.compile(optimizer=recipe.optimizer(2, recipe.learning_rate))
    images = recipe.load("train", 3, flip=recipe.flip)
    before = [variable.numpy() for variable in model.trainable_variables]
    history = model.fit(images.take(2), verbose=0, shuffle=False)
    assert 6 < history.history["bits_per_dim"][0] < 9
    assert int(model.optimizer.iterations) == 2
    # Directions get no gradient in the first step, when all output scales are zero.
    for variable, old in zip(model.trainable_variables, before, strict=True):
        # A bias before a batch normalization makes no difference in training.
        idle = variable.name == "bias" and "output_conv" not in variable.path
        assert np.array_equal(variable, old) == idle, variable.path


def test_moons_have_their_figure_and_their_nats(tmp_path, capsys):
    recipe = dataclasses.replace(tiny("moons"), epochs=2)
    tfnvp.training.run.train(recipe, settings(tmp_path, "moons", batch_size=1000))
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert isinstance(model, tfnvp.VectorRealNVP)
    points = next(iter(recipe.load("test", 10_000))).numpy()
    nats = model.log_prob(points).numpy().mean()
    assert f"test log-likelihood  {nats:.3f} nats" in capsys.readouterr().out
    drawn = np.asarray(Image.open(tmp_path / "run" / "density.png"))
    np.testing.assert_array_equal(recipe.pictures()["density"](model), drawn)
    with pytest.raises(ValueError, match="--remat"):
        tfnvp.training.run.train(recipe, settings(tmp_path / "remat", "moons", remat=True))


@pytest.mark.usefixtures("eagerly")
def test_limit_steps_counts_over_epochs(tmp_path):
    limits = {"epochs": 3, "batch_size": 400, "limit_steps": 5}
    figures = tfnvp.training.run.train(tiny("digits"), settings(tmp_path, **limits))
    assert figures["images_seen"] == 1297 + 400
    assert len(history(tmp_path / "run")) == 2


@pytest.mark.usefixtures("eagerly")
def test_a_run_that_cannot_train_leaves_no_directory(tmp_path):
    recipe = recipes.get("digits")
    overrides = {"levels": 5}  # the digits have 17 levels
    broken = FewCouplingsRecipe.of(dataclasses.replace(recipe, overrides=overrides))
    with pytest.raises(ValueError, match=r"values 0\.\.4"):
        tfnvp.training.run.train(broken, settings(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("eagerly")
def test_a_disk_that_is_full_at_the_end_costs_the_export_alone(tmp_path, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(tfnvp.training.run, "export_saved_model", fail)
    options = {"limit_steps": 1, "batch_size": 8, "export_to": tmp_path / "served"}
    run_dir = tmp_path / "run"
    remedy = f"tfnvp export {run_dir / 'model.keras'} --to {tmp_path / 'served'}"
    with pytest.raises(OSError, match=f"No space left on device.* go on with {remedy}"):
        tfnvp.training.run.train(tiny("digits"), settings(tmp_path, **options))
    assert "test bits/dim" in capsys.readouterr().out
    assert json.loads((run_dir / "card.json").read_text())["images_seen"] == 8
    assert (run_dir / "curves.png").is_file() and (run_dir / "model.keras").is_file()

    # Or the run is resumed, which has nothing left to do but that.
    monkeypatch.setattr(tfnvp.training.run, "export_saved_model", lambda *_, **__: "version 1")
    resumed = settings(tmp_path, **options, resume=True)
    figures = tfnvp.training.run.train(tiny("digits"), resumed)
    assert figures["images_seen"] == 8
    assert "SavedModel           version 1\n" in capsys.readouterr().out


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("terminal", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_terminal_has_the_bar_instead(terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Log, "_SECONDS", 0.0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    options = {"limit_steps": 3, "batch_size": 8}
    tfnvp.training.run.train(tiny("digits"), settings(tmp_path, **options))
    printed = capsys.readouterr().out
    assert ("step 2 of 3: loss " in printed) != terminal


@keras.saving.register_keras_serializable(package="tests")
class NoNumberOnce(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate of 0.001, and of no number in the second step."""

    def __call__(self, step):
        """The rate of a step, counted from 0."""
        return tf.where(tf.equal(step, 1), float("nan"), 1e-3)

    def get_config(self):
        """Nothing."""
        return {}


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("rate", "last"),
    [
        # With warm-up: the first step changes nothing, and after the second weights are huge.
        pytest.param(1e30, 2, marks=pytest.mark.slow),
        # This is as after a gradient that is no number: all weights are none after the second step.
        (NoNumberOnce(), 1),
    ],
)
def test_divergence_leaves_the_last_finite_weights(rate, last, tmp_path, monkeypatch):
    if last == 1:
        adam = tfnvp.optimizers.Adam(rate)
        monkeypatch.setattr(recipes.Recipe, "optimizer", lambda *_: adam)
        rate = 1e-3
    where = r"training diverged: loss nan .* in step 3; .*last_finite\.keras"
    with pytest.raises(ValueError, match=where):
        tfnvp.training.run.train(tiny("digits"), settings(tmp_path, learning_rate=rate))
    model = keras.models.load_model(tmp_path / "run" / "last_finite.keras")
    assert int(model.optimizer.iterations) == last
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert not (tmp_path / "run" / "model.keras").exists()

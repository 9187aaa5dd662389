"""One training run: from a recipe to a run directory and a SavedModel."""

import dataclasses
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfnvp
from tfnvp import plotting
from tfnvp.training.checkpoints import steps_taken
from tfnvp.training.fit import Training

# How training is spread over devices.
STRATEGIES = {
    "mirrored": tf.distribute.MirroredStrategy,
    "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command line decides about a run.

    Attributes:
        recipe_name: for the record.
        run_dir: the directory that the run leaves, a `Path`.
        epochs, batch_size, learning_rate, mixed_precision: those of the recipe, or in their place.
        remat: whether couplings are rematerialised in training.
        seed: of initial weights, data order and noise.
        resume: whether to go on with what `run_dir` holds.
        limit_steps: optimizer steps in all, and batches of every evaluation; None for no limit.
        export_to: directory of the SavedModel's versions, a `Path`; None for no export.
        strategy: a name of `STRATEGIES`, or None to train on one device.
        checkpoint_every: steps after which the training's state is saved, as after each epoch.
        deterministic: whether TensorFlow's operations are to give the same bits each time.
    """

    recipe_name: str
    run_dir: Path
    epochs: int
    batch_size: int
    learning_rate: float
    mixed_precision: bool
    remat: bool
    seed: int
    resume: bool
    limit_steps: int | None
    export_to: Path | None
    strategy: str | None = None
    checkpoint_every: int = 1000
    deterministic: bool = False


def train(recipe, settings):
    """Trains, evaluates and exports.

    Args:
        recipe: a `tfnvp.training.recipe.Recipe`.
        settings: `Settings`.

    Returns:
        A dictionary of the final figures: bits/dim of each split, seconds, images seen. None on a
        worker that is not the chief.

    Raises:
        ValueError: for settings or data that cannot be used, in which case no run directory is
            left, and for a training that diverges.
        tfnvp.training.Terminated: at SIGTERM, when the state is saved.
        tfnvp.training.WorkerGone: if another worker ends.
    """
    started = time.time()
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    # Before any operation, as several workers need it.
    strategy = _strategy(settings.strategy)
    if not _is_chief(strategy):
        # It does all that the chief does, since much of that takes all workers; nobody reads it.
        with tempfile.TemporaryDirectory() as scratch:
            _fit(recipe, settings, strategy, Path(scratch), pictures={})
        return None
    _check_run_dir(settings)
    fresh = not settings.run_dir.exists()
    try:
        pictures = recipe.pictures()
        model, rows = _fit(recipe, settings, strategy, settings.run_dir, pictures)
        figures = _finish(recipe, settings, model, rows, pictures, started)
    except BaseException:
        # But for the state before its first step, which a training that was refused leaves too.
        left = {path.name for path in settings.run_dir.glob("checkpoints/*.npz")}
        left |= {path.name for path in settings.run_dir.glob("*.keras")}
        if fresh and left <= {"000000000.npz"}:
            shutil.rmtree(settings.run_dir, ignore_errors=True)
        raise
    shutil.rmtree(settings.run_dir / "checkpoints")
    return figures


def _strategy(name):
    if name is None:
        return tf.distribute.get_strategy()
    if name == "multi_worker" and "TF_CONFIG" not in os.environ:
        raise ValueError(
            "--strategy multi_worker: the environment variable TF_CONFIG must name the workers and "
            "which of them this is; docs/scaling.md shows how"
        )
    return STRATEGIES[name]()


def _is_chief(strategy):
    """Whether this process is the one that writes: the first worker, or the only one."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_type or resolver.task_id == 0


def _check_run_dir(settings):
    run_dir = settings.run_dir
    if settings.resume:
        if (run_dir / "card.json").exists() and not (run_dir / "checkpoints").exists():
            raise ValueError(f"--resume: {run_dir} holds no unfinished run")
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise ValueError(
            f"--run-dir {run_dir} is not empty: choose another, or --resume what it holds"
        )


def _fit(recipe, settings, strategy, directory, pictures):
    """Trains from the start or from where the run stopped; all files go to a directory.

    Returns:
        The model, and the history of the epochs.
    """
    # All that can be refused is, before a directory is made.
    training = Training(recipe, settings, strategy, directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write_config(recipe, settings, training.model, directory)
    if directory == settings.run_dir:
        parameters = training.model.count_params()
        print(f"{settings.recipe_name}: {recipe.description}; {parameters:,} parameters")
        print(f"run directory: {settings.run_dir}", flush=True)
    training.fit(pictures)
    return training.model, training.rows


def _finish(recipe, settings, model, rows, pictures, started):
    """Evaluates the best model, draws, exports and says the figures."""
    run_dir = settings.run_dir
    if not (run_dir / "model.keras").exists():
        raise ValueError(
            "training diverged: no validation gave a number; try a lower --learning-rate than "
            f"{settings.learning_rate:g}"
        )
    images_seen = _images_seen(model, recipe, settings)
    model = keras.models.load_model(run_dir / "model.keras")
    figures = {
        split: _limited(recipe.load(split, settings.batch_size, shuffle=False), settings)
        for split in tfnvp.data.SPLITS
    }
    figures = {
        split: model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
        for split, images in figures.items()
    }
    if model.num_classes:
        images = _limited(recipe.load("test", settings.batch_size), settings)
        figures["accuracy"] = _accuracy(model, images)
    for name, draw in pictures.items():
        plotting.save_png(draw(model), run_dir / f"{name}.png")
    history = {name: [row[name] for row in rows] for name in rows[0]}
    plotting.training_curves(history).savefig(run_dir / "curves.png")
    figures |= {"seconds": time.time() - started, "images_seen": images_seen}
    card = _card(figures, recipe, settings, model)
    exported = settings.export_to and tfnvp.export_saved_model(model, settings.export_to, card=card)
    _write_json(run_dir / "card.json", card)
    _print_table(figures, recipe.report(model), settings, exported)
    return figures


def _accuracy(model, images):
    """Share of the images whose class is the likeliest, by Bayes' rule with equal classes."""
    hits = [
        keras.ops.convert_to_numpy(tf.argmax(model.classify(x), axis=1) == y) for x, y in images
    ]
    return float(np.concatenate(hits).mean())


def _limited(images, settings):
    return images if settings.limit_steps is None else images.take(settings.limit_steps)


def _images_seen(model, recipe, settings):
    """Images that the optimizer has seen, over all parts of the run."""
    images = len(recipe.load("train", None))
    epochs, steps = divmod(
        steps_taken(model),
        -(-images // settings.batch_size),
    )
    return epochs * images + steps * settings.batch_size


def recorded_settings(run_dir):
    """The settings that a run was started with, a dictionary.

    Raises:
        ValueError: if the directory holds no run.
    """
    path = run_dir / "config.json"
    try:
        return json.loads(path.read_text())["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"--resume: {run_dir} holds no unfinished run") from error


def _write_config(recipe, settings, model, directory):
    config = {
        "recipe": dataclasses.asdict(recipe) | {"load": str(recipe.load)},
        "settings": dataclasses.asdict(settings),
        "model": model.get_config(),
    }
    _write_json(directory / "config.json", _circumstances() | config)


def _card(figures, recipe, settings, model):
    """What there is to know of the trained model, for those who get its weights."""
    card = {
        "recipe": settings.recipe_name,
        "preset": recipe.preset,
        "data": recipe.description,
        "parameters": model.count_params(),
        "images": {split: len(recipe.load(split, None)) for split in tfnvp.data.SPLITS},
        "bits_per_dim": {split: round(figures[split], 4) for split in tfnvp.data.SPLITS},
        **({"accuracy": round(figures["accuracy"], 4)} if "accuracy" in figures else {}),
        "dequantization": "uniform" if model.levels > 1 else None,
        "images_seen": figures["images_seen"],
        "epochs": settings.epochs,
        "seed": settings.seed,
        "mixed_precision": settings.mixed_precision,
        "remat": settings.remat,
        "seconds": round(figures["seconds"]),
    }
    return _circumstances() | card


def _circumstances():
    return {
        "command": shlex.join(["python", "-m", "train", *sys.argv[1:]]),
        "versions": {
            "tfnvp": tfnvp.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
    }


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")


def _print_table(figures, report, settings, exported):
    rows = [
        ("train bits/dim", f"{figures['train']:.3f}"),
        ("validation bits/dim", f"{figures['validation']:.3f}"),
        ("test bits/dim", f"{figures['test']:.3f}"),
        *report.items(),
        ("seconds", f"{figures['seconds']:.0f}"),
        ("images seen", f"{figures['images_seen']:,}"),
        ("run directory", settings.run_dir),
        ("SavedModel", exported or "not exported"),
    ]
    if "accuracy" in figures:
        rows.insert(3, ("test accuracy", f"{figures['accuracy']:.3f}"))
    print()
    for name, value in rows:
        print(f"{name:<20} {value}")

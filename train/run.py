"""One training run: from a recipe to a run directory and a SavedModel."""

import csv
import dataclasses
import json
import shlex
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfnvp
from tfnvp import plotting
from tfnvp.callbacks import Watch
from train.callbacks import BestModel, StopAfter

# How training is spread over devices.
STRATEGIES = {"mirrored": tf.distribute.MirroredStrategy}


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


def train(recipe, settings):
    """Trains, evaluates and exports.

    Args:
        recipe: a `train.recipe.Recipe`.
        settings: `Settings`.

    Returns:
        A dictionary of the final figures: bits/dim of each split, seconds, images seen.

    Raises:
        ValueError: for settings or data that cannot be used; no run directory is left then.
    """
    started = time.time()
    keras.utils.set_random_seed(settings.seed)
    done = _epochs_done(settings)
    # All that can be refused is, before a directory is made.
    training = recipe.load(
        "train", settings.batch_size, seed=settings.seed + done, flip=recipe.flip
    )
    validation = _limited(recipe.load("validation", settings.batch_size), settings)
    policy = "mixed_bfloat16" if settings.mixed_precision else "float32"
    strategy = (
        STRATEGIES[settings.strategy]() if settings.strategy else tf.distribute.get_strategy()
    )
    with strategy.scope():
        model = recipe.model(remat=settings.remat, dtype=policy)
        model.compile(
            optimizer=_optimizer(recipe, settings, len(training)),
            # A limit is counted between executions.
            steps_per_execution=1 if settings.limit_steps else recipe.steps_per_execution,
        )

    pictures = recipe.pictures()
    fresh = not settings.run_dir.exists()
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        _write_config(recipe, settings, model)
        print(f"{settings.recipe_name}: {recipe.description}; {model.count_params():,} parameters")
        print(f"run directory: {settings.run_dir}", flush=True)
        model.fit(
            training,
            validation_data=validation,
            epochs=settings.epochs,
            callbacks=_callbacks(settings, pictures, best=_best_so_far(settings)),
            verbose=1 if sys.stdout.isatty() else 2,
            shuffle=False,  # the data set is shuffled already
        )
        if not (settings.run_dir / "model.keras").exists():
            raise ValueError(
                "training diverged before its first validation: try a lower --learning-rate than "
                f"{settings.learning_rate:g}"
            )
        images_seen = _images_seen(model, recipe, settings)
        model = keras.models.load_model(settings.run_dir / "model.keras")
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
            plotting.save_png(draw(model), settings.run_dir / f"{name}.png")
        rows = _history(settings.run_dir)
        history = {name: [row[name] for row in rows] for name in rows[0]}
        plotting.training_curves(history).savefig(settings.run_dir / "curves.png")
        figures |= {"seconds": time.time() - started, "images_seen": images_seen}
        card = _card(figures, recipe, settings, model)
        exported = settings.export_to and tfnvp.export_saved_model(
            model, settings.export_to, card=card
        )
    except BaseException:
        if fresh and not (settings.run_dir / "model.keras").exists():
            shutil.rmtree(settings.run_dir, ignore_errors=True)
        raise
    _write_json(settings.run_dir / "card.json", card)
    _print_table(figures, recipe.report(model), settings, exported)
    return figures


def _accuracy(model, images):
    """Share of the images whose class is the likeliest, by Bayes' rule with equal classes."""
    hits = [
        keras.ops.convert_to_numpy(tf.argmax(model.classify(x), axis=1) == y) for x, y in images
    ]
    return float(np.concatenate(hits).mean())


def _optimizer(recipe, settings, steps_per_epoch):
    steps = settings.epochs * steps_per_epoch
    if settings.limit_steps is not None:
        steps = min(steps, settings.limit_steps)
    return recipe.optimizer(steps, settings.learning_rate)


def _callbacks(settings, pictures, best):
    run_dir, logs = settings.run_dir, settings.run_dir / "logs"
    callbacks = [
        # Before all others: what it restores is theirs to go on from.
        keras.callbacks.BackupAndRestore(str(run_dir / "backup")),
        keras.callbacks.TerminateOnNaN(),
        BestModel(run_dir / "model.keras", best),
        keras.callbacks.CSVLogger(str(run_dir / "history.csv"), append=settings.resume),
        keras.callbacks.TensorBoard(str(logs), write_graph=False),
        Watch(pictures, run_dir / "watched", logs / "train", every=max(1, settings.epochs // 10)),
    ]
    if settings.limit_steps is not None:
        callbacks.append(StopAfter(settings.limit_steps))
    return callbacks


def _epochs_done(settings):
    """Epochs that an earlier part of the run completed."""
    run_dir = settings.run_dir
    if not settings.resume:
        if run_dir.exists() and any(run_dir.iterdir()):
            raise ValueError(
                f"--run-dir {run_dir} is not empty: choose another, or --resume what it holds"
            )
        return 0
    if not (run_dir / "backup").is_dir():
        raise ValueError(f"--resume: {run_dir} holds no unfinished run")
    return len(_history(run_dir))


def _best_so_far(settings):
    history = _history(settings.run_dir) if settings.resume else []
    return min((float(row["val_bits_per_dim"]) for row in history), default=float("inf"))


def _history(run_dir):
    path = run_dir / "history.csv"
    if not path.exists():
        return []
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def _limited(images, settings):
    return images if settings.limit_steps is None else images.take(settings.limit_steps)


def _images_seen(model, recipe, settings):
    """Images that the optimizer has seen, over all parts of the run."""
    images = len(recipe.load("train", None))
    epochs, steps = divmod(
        int(keras.ops.convert_to_numpy(model.optimizer.iterations)),
        -(-images // settings.batch_size),
    )
    return epochs * images + steps * settings.batch_size


def _write_config(recipe, settings, model):
    config = {
        "recipe": dataclasses.asdict(recipe) | {"load": str(recipe.load)},
        "settings": dataclasses.asdict(settings),
        "model": model.get_config(),
    }
    _write_json(settings.run_dir / "config.json", _circumstances() | config)


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

"""One training run: from a recipe to a run directory and a SavedModel."""

import dataclasses
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp import atomic_file, plotting
from tfnvp._version import __version__
from tfnvp.checks import check_choice
from tfnvp.data import SPLITS
from tfnvp.models import FlowModel
from tfnvp.serving import export_saved_model
from tfnvp.training.checkpoints import steps_taken
from tfnvp.training.fit import Training
from tfnvp.training.recipes import Recipe

# Each name says how training is spread over devices.
STRATEGIES = {
    "mirrored": tf.distribute.MirroredStrategy,
    "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The choices of the command line about a run; its help tells what each is.

    `limit_steps` is None for no limit, `export_to` for no export, `strategy` for one device, `jit`
    for what Keras chooses.
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
    jit: bool | None = None


def train(recipe: Recipe, settings: Settings) -> dict[str, float] | None:
    """Trains, evaluates and exports.

    Returns:
        The final figures: bits/dim of each split, seconds, images (or rows) seen. None on a worker
        that is not the chief.

    Raises:
        ValueError: for settings or data that cannot be used, in which case no run directory is
            left, and for a training that diverges.
        OSError: if something cannot be written. Where it is the export, the run is whole but for
            that.
        tfnvp.training.Terminated: at SIGTERM, when the state is saved.
        tfnvp.training.WorkerGone: if another worker ends.
    """
    started = time.time()
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)
    keras.utils.set_random_seed(settings.seed)
    # Several workers need their strategy before any operation has run.
    strategy = _strategy(settings.strategy)
    if not _is_chief(strategy):
        # It does all that the chief does, since much of that takes all workers; nobody reads it.
        with tempfile.TemporaryDirectory() as scratch:
            Training(recipe, settings, strategy, Path(scratch)).fit(pictures={})
        return None
    run_dir = settings.run_dir
    _check_run_dir(run_dir, settings.resume)
    if settings.export_to is not None:
        _check_export_to(settings.export_to)
    fresh = not run_dir.exists()
    try:
        pictures = recipe.pictures()
        # Whatever is refused is refused here, before a directory is made.
        training = Training(recipe, settings, strategy, run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        config = {
            "recipe": dataclasses.asdict(recipe) | {"load": str(recipe.load)},
            "settings": dataclasses.asdict(settings),
            "model": training.model.get_config(),
        }
        _write_json(run_dir / "config.json", _circumstances() | config)
        parameters = training.model.count_params()
        print(f"{settings.recipe_name}: {recipe.description}; {parameters:,} parameters")
        print(f"run directory: {run_dir}", flush=True)
        training.fit(pictures)
        figures = _finish(training, pictures, started)
    except BaseException:
        # The state of step 0 does not count: a training that was refused leaves one too.
        left = {path.name for path in run_dir.glob("checkpoints/*.npz")}
        left |= {path.name for path in run_dir.glob("*.keras")}
        if fresh and left <= {"000000000.npz"}:
            shutil.rmtree(run_dir, ignore_errors=True)
        raise
    shutil.rmtree(run_dir / "checkpoints")
    return figures


def _strategy(name: str | None) -> tf.distribute.Strategy:
    if name is None:
        return tf.distribute.get_strategy()
    check_choice("--strategy", name, sorted(STRATEGIES))
    if name == "multi_worker" and "TF_CONFIG" not in os.environ:
        raise ValueError(
            "--strategy multi_worker: the environment variable TF_CONFIG must name the workers and "
            "which of them this is; docs/scaling.md shows how"
        )
    if name == "multi_worker" and tf.config.list_physical_devices("GPU"):
        # Left alone, TensorFlow exchanges by a ring over the hosts, on GPUs too.
        nccl = tf.distribute.experimental.CommunicationImplementation.NCCL
        options = tf.distribute.experimental.CommunicationOptions(implementation=nccl)
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    return STRATEGIES[name]()


def _is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes: the first worker, or the only one."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_type or resolver.task_id == 0


def _check_run_dir(run_dir: Path, resume: bool) -> None:
    left = {path.name for path in run_dir.iterdir()} if run_dir.exists() else set()
    if resume and "card.json" in left and "checkpoints" not in left:
        raise ValueError(f"--resume: {run_dir} holds no unfinished run")
    if left and not resume:
        remedy = "choose another, or --resume what it holds"
        raise ValueError(f"--run-dir {run_dir} is not empty: {remedy}")


def _check_export_to(directory: Path) -> None:
    """Refuses what no directory can be made of, before a training and not after it."""
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not place.is_dir():
        raise ValueError(f"--export-to must be a directory, and {place} is a file")
    try:
        # Permissions do not tell all: some directories take no file from anybody.
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=place):
            pass
    except OSError as error:
        raise ValueError(f"--export-to {directory} cannot be written: {error}") from error


def _finish(training: Training, pictures: dict[str, Callable], started: float) -> dict[str, float]:
    """Evaluates the best model, draws, exports and prints the figures."""
    recipe, settings, run_dir = training.recipe, training.settings, training.settings.run_dir
    if not (run_dir / "model.keras").exists():
        raise ValueError(
            "training diverged: no validation gave a number; try a lower --learning-rate than "
            f"{settings.learning_rate:g}"
        )
    epochs, steps = divmod(steps_taken(training.model), training.steps_per_epoch)
    model = keras.models.load_model(run_dir / "model.keras")
    limit = settings.limit_steps or -1  # a data set of which -1 batches are taken is whole
    counts, figures = {}, {}
    for split in SPLITS:
        counts[split] = len(recipe.load(split, None, shuffle=False))
        batches = recipe.load(split, settings.batch_size, shuffle=False).take(limit)
        figures[split] = model.evaluate(batches, verbose=0, return_dict=True)["bits_per_dim"]
    if model.num_classes:  # The last split is that of the test.
        figures["accuracy"] = _accuracy(model, batches)
    for name, draw in pictures.items():
        plotting.save_png(draw(model), run_dir / f"{name}.png")
    history = {name: [row[name] for row in training.rows] for name in training.rows[0]}
    plotting.save_png(plotting.pixels(plotting.training_curves(history)), run_dir / "curves.png")
    figures["seconds"] = time.time() - started
    of_epochs = epochs * len(recipe.load("train", None))
    figures[f"{recipe.unit}_seen"] = of_epochs + steps * settings.batch_size
    card = _card(training, model, counts, figures)
    # The export comes last, for a disk may be full, and the figures took the time.
    _write_json(run_dir / "card.json", card)
    _print_table(figures, recipe.unit, recipe.report(model), run_dir)
    export = settings.export_to is not None
    _print_row("SavedModel", _exported(model, settings, card) if export else "not exported")
    return figures


def _exported(model: FlowModel, settings: Settings, card: dict[str, Any]) -> Path:
    try:
        return export_saved_model(model, settings.export_to, card=card)
    except OSError as error:
        path = settings.run_dir / "model.keras"
        remedy = f"tfnvp export {path} --to {settings.export_to}"
        raise OSError(f"not exported ({error}); all else is whole, go on with {remedy}") from error


def _accuracy(model: FlowModel, batches: tf.data.Dataset) -> float:
    """Share of the images whose class is the likeliest, by Bayes' rule with equal classes."""
    hits = [tf.argmax(model.classify(x), axis=1) == y for x, y in batches]
    return float(np.concatenate(hits).mean())


def recorded_settings(run_dir: Path) -> dict[str, Any]:
    """The settings that a run was started with.

    Raises:
        ValueError: if the directory holds no run.
    """
    path = run_dir / "config.json"
    try:
        return json.loads(path.read_text())["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"--resume: {run_dir} holds no unfinished run") from error


def _card(
    training: Training, model: FlowModel, counts: dict[str, int], figures: dict[str, float]
) -> dict[str, Any]:
    """The facts about the trained model, for those who get its weights."""
    settings, unit = training.settings, training.recipe.unit
    card = {
        "recipe": settings.recipe_name,
        "preset": training.recipe.preset,
        "data": training.recipe.description,
        "parameters": model.count_params(),
        unit: counts,
        "bits_per_dim": {split: round(figures[split], 4) for split in SPLITS},
        **({"accuracy": round(figures["accuracy"], 4)} if "accuracy" in figures else {}),
        "dequantization": "uniform" if model.levels > 1 else None,
        f"{unit}_seen": figures[f"{unit}_seen"],
    }
    chosen = {key: getattr(settings, key) for key in ("epochs", "seed", "mixed_precision", "remat")}
    return _circumstances() | card | chosen | {"seconds": round(figures["seconds"])}


def _circumstances() -> dict[str, Any]:
    """The command line of this process, and the versions of what it runs."""
    installed = Path(sys.argv[0]).stem == "tfnvp"
    program = ["tfnvp"] if installed else ["python", "-m", "train"]
    versions = {"tfnvp": __version__, "tensorflow": tf.__version__, "keras": keras.__version__}
    return {"command": shlex.join([*program, *sys.argv[1:]]), "versions": versions}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_file.writing(path) as written:
        written.write_text(json.dumps(content, indent=2, default=str) + "\n")


def _print_table(
    figures: dict[str, float], unit: str, report: dict[str, str], run_dir: Path
) -> None:
    rows = {f"{split} bits/dim": f"{figures[split]:.3f}" for split in SPLITS}
    if "accuracy" in figures:
        rows["test accuracy"] = f"{figures['accuracy']:.3f}"
    rows |= report | {
        "seconds": f"{figures['seconds']:.0f}",
        f"{unit} seen": f"{figures[f'{unit}_seen']:,}",
        "run directory": run_dir,
    }
    print()
    for name, value in rows.items():
        _print_row(name, value)


def _print_row(name: str, value: object) -> None:
    print(f"{name:<20} {value}", flush=True)

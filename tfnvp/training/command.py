"""The command that trains a recipe: `tfnvp train`, and `python -m train` in a checkout."""

import datetime
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import tensorflow as tf
import typer

from tfnvp.checks import one_line
from tfnvp.training import Terminated, WorkerGone, hardware, recipes, run

# A disk or a memory that is full is TensorFlow's `ResourceExhaustedError`, or Python's own; an
# ImportError names the extra that is missing.
_ENDINGS = (ValueError, OSError, ImportError, MemoryError, tf.errors.ResourceExhaustedError)

# Rich would take "[default: 0]" of a help for a style, and leave it out.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help=f"one of {', '.join(recipes.names())}")
    ] = "digits",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="how often the training set is seen [default: the recipe's]"),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="rows a step, of all devices [default: the recipe's]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="peak of the schedule [default: the recipe's]")
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="for all that the run writes [default: runs/RECIPE/TIMESTAMP]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of weights, order, noise [default: 0]")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="go on with the run in --run-dir or the newest one, as it began"
        ),
    ] = False,
    mixed_precision: Annotated[
        bool | None,
        typer.Option(help="conditioners in bfloat16 [default: by the recipe and the hardware]"),
    ] = None,
    jit: Annotated[
        bool | None,
        typer.Option(help="compile steps by XLA [default: on one GPU, as Keras does]"),
    ] = None,
    remat: Annotated[
        bool | None,
        typer.Option("--remat", help="less memory, more time: couplings are rematerialised"),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="mirrored: on all GPUs of this machine, each with its part of a batch; "
            "multi_worker: on the machines that TF_CONFIG names, see docs/scaling.md"
        ),
    ] = None,
    checkpoint_every: Annotated[
        int,
        typer.Option(min=1, help="steps between saved states, of which --resume takes the last"),
    ] = 1000,
    deterministic: Annotated[
        bool | None,
        typer.Option("--deterministic", help="the same bits in each run on a device; slower"),
    ] = None,
    limit_steps: Annotated[
        int | None, typer.Option(min=1, help="optimizer steps in all, batches of each evaluation")
    ] = None,
    export_to: Annotated[
        Path | None,
        typer.Option(help="for the SavedModel's versions [default: saved_models/RECIPE]"),
    ] = None,
    no_export: Annotated[bool, typer.Option("--no-export", help="write no SavedModel")] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="of the recipe folder: a directory of PNG and JPEG files; of table: a CSV file"
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="of the recipe folder: height and width")
    ] = None,
) -> None:
    """Trains RECIPE on its data set, evaluates it and exports a SavedModel.

    Example: tfnvp train digits --epochs 10 --run-dir runs/mine
    """
    asked = dict(locals())
    try:
        if export_to is not None and no_export:
            raise ValueError("--export-to and --no-export exclude each other")
        if learning_rate is not None and not learning_rate > 0:
            raise ValueError(f"--learning-rate must be positive, got {learning_rate}")
        if strategy == "multi_worker" and run_dir is None:
            raise ValueError("--strategy multi_worker needs --run-dir, the same for all workers")
        chosen = recipes.get(recipe, data=data, image_size=image_size)
        if run_dir is None:
            now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            run_dir = _newest(recipe) if resume else Path("runs", recipe, now)
        if export_to is None and not no_export:
            export_to = Path("saved_models", recipe)
        training = {
            name: getattr(chosen, name) for name in ("epochs", "batch_size", "learning_rate")
        }
        training["mixed_precision"] = chosen.mixed_precision and hardware.has_bfloat16()
        training |= {"remat": False, "seed": 0, "limit_steps": None, "deterministic": False}
        training["jit"] = None
        given = {name: asked[name] for name in training if asked[name] is not None}
        if resume:
            recorded = run.recorded_settings(run_dir)
            _check_resumed(run_dir, {"recipe_name": recipe, **given}, recorded)
            training = {name: recorded.get(name, training[name]) for name in training}
        training |= given
        training |= {name: asked[name] for name in ("resume", "strategy", "checkpoint_every")}
        run.train(chosen, run.Settings(recipe, run_dir, export_to=export_to, **training))
    except (*_ENDINGS, Terminated, WorkerGone) as error:
        print(f"train: {one_line(error)}", file=sys.stderr, flush=True)
        if isinstance(error, WorkerGone):
            # The process ends at once: TensorFlow would wait for the other workers.
            os._exit(1)
        raise typer.Exit(error.status if isinstance(error, Terminated) else 2) from None
    except KeyboardInterrupt:
        print("train: ended by Ctrl-C", file=sys.stderr, flush=True)
        raise typer.Exit(128 + signal.SIGINT) from None


def _check_resumed(run_dir: Path, given: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Refuses options with which a resumed run would not be the training that it was."""
    for name, value in given.items():
        if value != recorded.get(name):
            option = "RECIPE" if name == "recipe_name" else "--" + name.replace("_", "-")
            raise ValueError(
                f"--resume: the run in {run_dir} has {option} {recorded.get(name)}, got {value}: "
                "leave that out, or start another run"
            )


def _newest(recipe: str) -> Path:
    runs = sorted(Path("runs", recipe).glob("*/"))
    if not runs:
        raise ValueError(f"--resume: runs/{recipe} holds no run; name one with --run-dir")
    return runs[-1]


def show_warnings_of(program: str) -> None:
    """Shows warnings as lines of a program, without the places in the code that they come from."""
    # A warning is for the user, who did not write the line that it came from.
    warnings.formatwarning = lambda message, *_: f"{program}: {message}\n"
    # Pillow looks into EXIF data for more than the orientation, and does not say of which file.
    warnings.filterwarnings("ignore", "Corrupt EXIF data", module="PIL")


def main(prog_name: str) -> None:
    """Runs the command by itself, which its help calls `prog_name`."""
    show_warnings_of("train")
    app(prog_name=prog_name)

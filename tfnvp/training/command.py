"""`python -m train RECIPE`: trains a Real NVP and leaves a run directory and a SavedModel."""

import os

# Before TensorFlow is imported, the only moment at which it listens.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import datetime
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from tfnvp.training import Terminated, WorkerGone

app = typer.Typer(add_completion=False)


@app.command()
def train_recipe(
    recipe: Annotated[str, typer.Argument(help="a file of train/recipes")] = "digits",
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="peak of the schedule")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="directory of the run [default: runs/RECIPE/TIMESTAMP]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="of weights, data order and noise [default: 0]")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="go on with the run in --run-dir or the newest one, as it began"
        ),
    ] = False,
    mixed_precision: Annotated[
        bool | None,
        typer.Option(
            "--mixed-precision/--no-mixed-precision",
            help="conditioners in bfloat16 [default: by the recipe, where the hardware has it]",
        ),
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
        int | None,
        typer.Option(min=1, help="steps between saved states, of which --resume takes the last"),
    ] = None,
    deterministic: Annotated[
        bool | None,
        typer.Option("--deterministic", help="the same bits in each run on a device; slower"),
    ] = None,
    limit_steps: Annotated[
        int | None, typer.Option(min=1, help="optimizer steps in all, batches of each evaluation")
    ] = None,
    export_to: Annotated[
        Path | None,
        typer.Option(help="directory for the SavedModel [default: saved_models/RECIPE]"),
    ] = None,
    no_export: Annotated[bool, typer.Option("--no-export", help="write no SavedModel")] = False,
    data: Annotated[
        Path | None, typer.Option(help="of the recipe folder: directory of PNG and JPEG files")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="of the recipe folder: height and width")
    ] = None,
):
    """Trains RECIPE on its data set, evaluates it and exports a SavedModel.

    Example: python -m train digits --epochs 10 --run-dir runs/mine
    """
    try:
        import tfnvp  # noqa: F401  (before all that imports TensorFlow: it keeps it quiet)
        from tfnvp.checks import check_choice
        from tfnvp.training import hardware
        from tfnvp.training import recipe as recipes
        from tfnvp.training.run import STRATEGIES, Settings, recorded_settings, train

        options = {"data": data, "image_size": image_size}
        options = {name: value for name, value in options.items() if value is not None}
        if options and recipe != "folder":
            raise ValueError("--data and --image-size are options of the recipe 'folder' alone")
        if export_to is not None and no_export:
            raise ValueError("--export-to and --no-export exclude each other")
        if learning_rate is not None and not learning_rate > 0:
            raise ValueError(f"--learning-rate must be positive, got {learning_rate}")
        if strategy is not None:
            check_choice("--strategy", strategy, sorted(STRATEGIES))
        if strategy == "multi_worker" and run_dir is None:
            raise ValueError("--strategy multi_worker needs --run-dir, the same for all workers")
        chosen = recipes.get(recipe, **options)
        if run_dir is None:
            run_dir = _newest(recipe) if resume else Path("runs", recipe, _timestamp())
        if export_to is None and not no_export:
            export_to = Path("saved_models", recipe)
        training = {
            "recipe_name": recipe,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "mixed_precision": mixed_precision,
            "remat": remat,
            "seed": seed,
            "limit_steps": limit_steps,
            "deterministic": deterministic,
        }
        if resume:
            defaults = recorded_settings(run_dir)
            _check_resumed(run_dir, training, defaults)
        else:
            defaults = {
                "epochs": chosen.epochs,
                "batch_size": chosen.batch_size,
                "learning_rate": chosen.learning_rate,
                "mixed_precision": chosen.mixed_precision and hardware.has_bfloat16(),
                "remat": False,
                "seed": 0,
                "limit_steps": None,
                "deterministic": False,
            }
        training = {
            name: defaults[name] if value is None else value for name, value in training.items()
        }
        settings = Settings(
            **training,
            run_dir=run_dir,
            resume=resume,
            export_to=export_to,
            strategy=strategy,
            **({"checkpoint_every": checkpoint_every} if checkpoint_every else {}),
        )
        train(chosen, settings)
    except (ValueError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except Terminated as error:
        print(f"train: {error}", file=sys.stderr)
        raise typer.Exit(128 + signal.SIGTERM) from None
    except WorkerGone as error:
        print(f"train: {error}", file=sys.stderr, flush=True)
        # At once: TensorFlow would wait for the other workers.
        os._exit(1)


def _check_resumed(run_dir, given, recorded):
    """Refuses options with which a resumed run would not be the training that it was."""
    for name, value in given.items():
        if value is not None and value != recorded.get(name):
            option = "RECIPE" if name == "recipe_name" else "--" + name.replace("_", "-")
            raise ValueError(
                f"--resume: the run in {run_dir} has {option} {recorded.get(name)}, got {value}: "
                "leave that out, or start another run"
            )


def _timestamp():
    return datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _newest(recipe):
    runs = sorted(Path("runs", recipe).glob("*/"))
    if not runs:
        raise ValueError(f"--resume: runs/{recipe} holds no run; name one with --run-dir")
    return runs[-1]


def main(prog_name):
    """The training program, with the command line of this process."""
    # A warning is for the user, who did not write the line that it came from.
    warnings.formatwarning = lambda message, *_: f"train: {message}\n"
    app(prog_name=prog_name)

"""`python -m train RECIPE`: trains a Real NVP and leaves a run directory and a SavedModel."""

import os

# Before TensorFlow is imported, the only moment at which it listens.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import datetime
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def main(
    recipe: Annotated[str, typer.Argument(help="a file of train/recipes")] = "digits",
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="peak of the schedule")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="directory of the run [default: runs/RECIPE/TIMESTAMP]")
    ] = None,
    seed: Annotated[int, typer.Option(help="of weights, data order and noise")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with the run in --run-dir, or the newest")
    ] = False,
    mixed_precision: Annotated[
        bool | None,
        typer.Option(
            "--mixed-precision/--no-mixed-precision",
            help="conditioners in bfloat16 [default: by the recipe, where the hardware has it]",
        ),
    ] = None,
    remat: Annotated[
        bool, typer.Option("--remat", help="less memory, more time: couplings are rematerialised")
    ] = False,
    strategy: Annotated[
        str | None,
        typer.Option(help="mirrored: on all GPUs of this machine, each with its part of a batch"),
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
        from train import hardware
        from train import recipe as recipes
        from train.run import STRATEGIES, Settings, train

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
        chosen = recipes.get(recipe, **options)
        if run_dir is None:
            run_dir = _newest(recipe) if resume else Path("runs", recipe, _timestamp())
        if export_to is None and not no_export:
            export_to = Path("saved_models", recipe)
        if mixed_precision is None:
            mixed_precision = chosen.mixed_precision and hardware.has_bfloat16()
        settings = Settings(
            recipe_name=recipe,
            run_dir=run_dir,
            epochs=epochs or chosen.epochs,
            batch_size=batch_size or chosen.batch_size,
            learning_rate=learning_rate or chosen.learning_rate,
            mixed_precision=mixed_precision,
            remat=remat,
            seed=seed,
            resume=resume,
            limit_steps=limit_steps,
            export_to=export_to,
            strategy=strategy,
        )
        train(chosen, settings)
    except (ValueError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _timestamp():
    return datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _newest(recipe):
    runs = sorted(Path("runs", recipe).glob("*/"))
    if not runs:
        raise ValueError(f"--resume: runs/{recipe} holds no run; name one with --run-dir")
    return runs[-1]


if __name__ == "__main__":
    # A warning is for the user, who did not write the line that it came from.
    warnings.formatwarning = lambda message, *_: f"train: {message}\n"
    app(prog_name="python -m train")

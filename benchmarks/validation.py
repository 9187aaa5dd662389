"""Does validation follow training? A narrow `cifar10_small` or whole recipes, epoch by epoch.

    python -m benchmarks.validation [--run NAME] [--epochs N] > validation.jsonl
    python -m benchmarks.validation --recipe NAME [NAME ...] [--seed N] > validation.jsonl
    python -m benchmarks.validation --plot FIGURE.png validation.jsonl [...]

Each run is `cifar10_small` at 16 filters and 1 block, by the batch and rate in its name. After
every epoch the training images and the validation images are scored in inference mode; a JSON line
has both, in bits per dimension, and the mean of the epoch's steps, which is in training mode. A
run's last line has the largest gap, validation less training images. With --recipe whole recipes
are trained instead, as `python -m train` does it, and twice, for it scores one set an epoch. With
--plot, it reads lines of runs and draws them.
"""

import argparse
import contextlib
import csv
import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import keras

from tfnvp.training import recipes
from tfnvp.training.hardware import has_bfloat16
from tfnvp.training.run import Settings, train

RECIPE = "cifar10_small"
NARROW = {"filters": 16, "residual_blocks": 1}
# Each run has a batch of its own, and a factor on the recipe's learning rate.
RUNS = {
    "batch 8": (8, 1),
    "batch 64": (64, 1),
    "batch 256": (256, 1),
    "batch 64, 3 x learning rate": (64, 3),
}


class Gaps(keras.callbacks.Callback):
    """Scores training and validation images after each epoch."""

    def __init__(self, record, training, validation):
        super().__init__()
        self.record = record
        self.training = training
        self.validation = validation
        self.gaps = []

    def on_epoch_end(self, epoch, logs=None):
        """Prints the epoch's line."""
        train, validation = (
            self.model.evaluate(images, verbose=0, return_dict=True)["bits_per_dim"]
            for images in (self.training, self.validation)
        )
        self.gaps.append(validation - train)
        line = {"epoch": epoch + 1, "train": train, "validation": validation}
        line["steps_mean"] = logs["bits_per_dim"]
        print(json.dumps({**self.record, **line}), flush=True)


def run(name, epochs, seed):
    """Trains one run, and prints its lines."""
    recipe = recipes.get(RECIPE)
    batch_size, factor = RUNS[name]
    learning_rate = factor * recipe.learning_rate
    keras.utils.set_random_seed(seed)
    images = recipe.load("train", batch_size, seed=seed, flip=recipe.flip)
    model = tfnvp.ImageRealNVP.from_preset(recipe.preset, **NARROW)
    steps = epochs * len(images)
    model.compile(optimizer=recipe.optimizer(steps, learning_rate))
    record = {"benchmark": "validation", "run": name, "learning_rate": learning_rate}
    gaps = Gaps(record, recipe.load("train", 128, shuffle=False), recipe.load("validation", 128))
    model.fit(images, epochs=epochs, callbacks=[gaps], verbose=0, shuffle=False)
    print(json.dumps({**record, "epochs": epochs, "largest_gap": max(gaps.gaps)}), flush=True)


def follow(name, seed):
    """Trains a recipe twice, and prints lines as `run` does, without the mean of the steps."""
    recipe = recipes.get(name)

    def load_training(split, *args, **options):
        return recipe.load("train" if split == "validation" else split, *args, **options)

    validation = _scores_by_epoch(name, recipe, seed)
    training = _scores_by_epoch(name, dataclasses.replace(recipe, load=load_training), seed)
    record = {"benchmark": "validation", "recipe": name, "seed": seed}
    for epoch, pair in enumerate(zip(training, validation, strict=True)):
        line = {"epoch": epoch + 1, "train": pair[0], "validation": pair[1]}
        print(json.dumps({**record, **line}), flush=True)
    largest = max(v - t for t, v in zip(training, validation, strict=True))
    print(json.dumps({**record, "epochs": len(training), "largest_gap": largest}), flush=True)


def _scores_by_epoch(name, recipe, seed):
    """Gives the bits/dim of the recipe's validation images after each epoch of its training."""
    precision = recipe.mixed_precision and has_bfloat16()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        settings = Settings(
            recipe_name=name,
            run_dir=Path(scratch) / "run",
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            mixed_precision=precision,
            remat=False,
            seed=seed,
            resume=False,
            limit_steps=None,
            export_to=None,
        )
        train(recipe, settings)
        with (settings.run_dir / "history.csv").open() as file:
            return [float(row["val_bits_per_dim"]) for row in csv.DictReader(file)]


def plot(paths, figure):
    """Draws the lines of files: training dashed, validation solid."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = []
    for path in paths:
        with open(path) as file:
            lines += [json.loads(line) for line in file]
    lines = [line for line in lines if "run" in line and "epoch" in line]
    drawn, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name in RUNS:
        rows = [line for line in lines if line["run"] == name]
        epochs = [row["epoch"] for row in rows]
        (curve,) = axes.plot(epochs, [row["validation"] for row in rows], label=name)
        axes.plot(epochs, [row["train"] for row in rows], "--", color=curve.get_color())
    axes.set(xlabel="epoch", ylabel="bits/dim, inference mode", title="validation, training dashed")
    axes.legend()
    drawn.savefig(figure, dpi=110)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.validation", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--run", choices=RUNS, help="one run [default: all]")
    parser.add_argument("--epochs", type=int, help="of a run [default: 20]")
    parser.add_argument("--seed", type=int, default=0)
    images = sorted({*recipes.names()} - {"folder", "moons", "table"})
    parser.add_argument("--recipe", nargs="+", choices=images, help="whole recipes instead")
    parser.add_argument("--plot", metavar="FIGURE", help="draw the files' lines instead")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    if args.plot:
        plot(args.files, args.plot)
        return
    if args.recipe and (args.run or args.epochs):
        parser.error("--run and --epochs are not of --recipe: recipes are trained whole")
    for name in args.recipe or ():
        follow(name, args.seed)
    if not args.recipe:
        for name in [args.run] if args.run else RUNS:
            run(name, args.epochs or 20, args.seed)


if __name__ == "__main__":
    main()

"""Bits per dimension against images seen: the paper's recipes at a quarter of their width.

    TFDS_DATA_DIR=DIR python -m benchmarks.learning_curves [--recipe NAME ..] [--images N]
    python -m benchmarks.learning_curves --plot FIGURE.png LINES.jsonl [...]

Each recipe trains as it says, but with a quarter of the filters and for N images: the paper's by
Adam at a level rate, ours by Muon and a rate that falls to zero over the N. After 1,000 images and
each doubling, and in the end, up to 512 validation images are scored with moments taken anew; a
JSON line has their bits/dim and the mean of the steps since the line before. With --plot, it reads
such lines and draws them.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import keras
import numpy as np

from benchmarks.onlooker import left_as_it_was
from tfnvp.models import presets
from tfnvp.training import recipes
from tfnvp.training.hardware import has_bfloat16

RECIPES = ("cifar10", "cifar10_plus", "imagenet32", "imagenet32_plus")
FIRST, ROWS = 1000, 512


class Curve(keras.callbacks.Callback):
    """Prints a line at the first thousand images, at each doubling and at the last step."""

    def __init__(self, record, batch_size, steps, training, validation):
        super().__init__()
        self.record, self.batch_size, self.steps = record, batch_size, steps
        self.training, self.validation = training, validation
        self.step, self.due = 0, FIRST

    def on_train_batch_end(self, batch, logs=None):
        """Scores, where it is due."""
        self.step += 1
        seen = self.step * self.batch_size
        if seen < self.due and self.step < self.steps:
            return
        self.due *= 2
        line = {"images": seen, "steps_mean": float(logs["bits_per_dim"])}
        with left_as_it_was(self.model):
            self.model.refresh_moments(self.training)
            scores = [self.model.bits_per_dim(x) for x in self.validation]
        line["validation"] = float(np.mean(np.concatenate(scores)))
        print(json.dumps({**self.record, **line}), flush=True)


def run(name, images, seed=0):
    """Trains a recipe at a quarter of its width, and prints its lines."""
    recipe = recipes.get(name)
    filters = presets.get(recipe.preset)["filters"] // 4
    steps = images // recipe.batch_size
    keras.utils.set_random_seed(seed)
    policy = "mixed_bfloat16" if recipe.mixed_precision and has_bfloat16() else "float32"
    model = tfnvp.ImageRealNVP.from_preset(recipe.preset, filters=filters, dtype=policy)
    model.compile(optimizer=recipe.optimizer(steps, recipe.learning_rate))
    training = recipe.load("train", recipe.batch_size, seed=seed, flip=recipe.flip)
    validation = list(recipe.load("validation", 64).unbatch().take(ROWS).batch(64))
    record = {"benchmark": "learning_curves", "recipe": name, "filters": filters}
    record |= {"parameters": model.count_params(), "policy": policy}
    curve = Curve(record, recipe.batch_size, steps, training, validation)
    # The steps are one epoch, and the curve sees to the moments.
    fresh = tfnvp.callbacks.FreshMoments(None)
    model.fit(
        training.repeat(),
        steps_per_epoch=steps,
        callbacks=[curve, fresh],
        verbose=0,
        shuffle=False,
    )


def plot(paths, figure):
    """Draws the validation curves of files over images seen, on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for path in paths for line in Path(path).read_text().splitlines()]
    drawn, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharex=True)
    for name in RECIPES:
        rows = [line for line in lines if line["recipe"] == name]
        axis = axes[int(name.startswith("imagenet"))]
        axis.plot([r["images"] for r in rows], [r["validation"] for r in rows], "o-", label=name)
    for axis in axes:
        axis.set(xscale="log", xlabel="images seen", ylabel="validation, bits/dim")
        axis.legend()
    drawn.savefig(figure, dpi=110)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning_curves", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--recipe", choices=RECIPES, nargs="+", default=RECIPES)
    parser.add_argument("--images", type=int, default=32_000)
    parser.add_argument("--plot", metavar="FIGURE", help="draw the files' lines instead")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    if bool(args.plot) != bool(args.files):
        parser.error("--plot FIGURE takes files of lines, and files need it")
    if args.plot:
        plot(args.files, args.plot)
        return
    if args.images < FIRST:
        parser.error(f"--images must be {FIRST} or more, got {args.images}")
    for name in args.recipe:
        run(name, args.images)


if __name__ == "__main__":
    main()

"""Do scores hold between training and inference, while the weights change fast?

    python -m benchmarks.moments [--recipe NAME ..] [--batch B ..] [--rate-factor F ..] [--images N]
        [--decay]
    python -m benchmarks.moments --table LINES.jsonl

A recipe's model with 16 filters trains for N images by Muon at a level rate, which is harder than
the recipe's own that falls; with --decay it falls. Every 200 steps, and after each epoch that has
fewer, 256 training images and 256 validation images are scored: by the moments of batches of
training images, as training does; by the running averages of the last steps; and by moments that
`refresh_moments` has taken anew, as `fit` does before it validates. A JSON line has the five
figures, in bits per dimension, and the mean of the steps since the line before. With --table, it
reads such lines and prints the largest differences of each training.
"""

import argparse
import dataclasses
import itertools
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # noqa: F401  # isort: skip  (keeps TensorFlow quiet)
import keras
import numpy as np
import tensorflow as tf

from benchmarks.onlooker import left_as_it_was
from tfnvp.training import recipes
from tfnvp.training.schedules import make_optimizer

RECIPES = ("mnist", "cifar10_plus", "digits")
RATE, WARM_UP, ROWS, FILTERS = 4e-3, 50, 256, 16


class Figures(keras.callbacks.Callback):
    """Prints a line every so many steps: the batches of all epochs are one epoch of Keras."""

    def __init__(self, record, training, validation, batch, every):
        super().__init__()
        self.record, self.training, self.validation = record, training, validation
        self.batch, self.every = batch, every

    def on_train_begin(self, logs=None):
        """Makes the function that scores by a batch's own moments."""

        @tf.function(autograph=False)
        def by_batch(x):
            return self.model.bits(self.model(x, training=True))

        self._by_batch = by_batch

    def _bits(self, images):
        scores = [self.model.bits_per_dim(x) for x in np.array_split(images[:ROWS], ROWS // 64)]
        return float(np.mean(np.concatenate(scores)))

    def _by_the_batch(self):
        """Scores by the batches' own moments."""
        batches = np.array_split(self.training[:ROWS], max(1, ROWS // self.batch))
        with left_as_it_was(self.model):
            bits = [self._by_batch(x) for x in batches]
        return float(np.mean(np.concatenate(bits)))

    def on_train_batch_end(self, batch, logs=None):
        """Scores, where it is due."""
        if (batch + 1) % self.every:
            return
        line = {"step": batch + 1, "steps_mean": float(logs["bits_per_dim"])}
        line["batch_moments"] = self._by_the_batch()
        with left_as_it_was(self.model):
            for name in ("running", "fresh"):
                if name == "fresh":
                    self.model.refresh_moments(self.training, batch_size=self.batch)
                line[f"{name}_training"] = self._bits(self.training)
                line[f"{name}_validation"] = self._bits(self.validation)
        line = {key: round(x, 3) if isinstance(x, float) else x for key, x in line.items()}
        print(json.dumps({**self.record, **line}), flush=True)


def first(recipe, split, count):
    """The first images of a split, uint8."""
    batches = recipe.load(split, 500, shuffle=False).take(-(-count // 500))
    return np.concatenate(list(batches.as_numpy_iterator()))[:count]


def run(name, batch, factor, count, falls):
    """Trains a model for so many images, and prints its lines."""
    keras.utils.set_random_seed(0)
    recipe = recipes.get(name)
    model = dataclasses.replace(recipe, overrides={"filters": FILTERS}).model()
    training, validation = first(recipe, "train", count), first(recipe, "validation", ROWS)
    steps, rate = count // batch, factor * RATE
    decay = {"decay": falls, "weight_decay": recipe.weight_decay}
    model.compile(make_optimizer(steps, rate, WARM_UP, muon=True, **decay))
    record = {"benchmark": "moments", "recipe": name, "batch": batch, "rate": rate}
    record |= {"decay": True} if falls else {}
    every = min(200, len(training) // batch)
    figures = Figures(record, training, validation, batch, every)
    random = np.random.RandomState(0)
    epochs = -(-count // len(training))
    order = np.concatenate([random.permutation(len(training)) for _ in range(epochs)])
    rows = training[order[: steps * batch]]
    model.fit(rows, batch_size=batch, shuffle=False, verbose=0, callbacks=[figures])


def table(lines):
    """Gives the rows of a table in Markdown: the largest differences of each training."""
    trainings = {}
    for line in map(json.loads, lines):
        key = line["recipe"], line["batch"], line["rate"], line.get("decay", False)
        trainings.setdefault(key, []).append(line)
    for (name, batch, rate, _), looks in trainings.items():
        by_batch = [look["batch_moments"] for look in looks]
        apart = [
            max(
                (look[column] - other for look, other in zip(looks, by_batch, strict=True)), key=abs
            )
            for column in ("running_training", "fresh_training")
        ]
        apart.append(max(look["fresh_validation"] - look["fresh_training"] for look in looks))
        figures = " | ".join(f"{value:.3f}" for value in apart)
        yield f"| `{name}` | {batch} | {rate:g} | {len(looks)} | {figures} |"


def main(args):
    """Runs each combination."""
    if args.table:
        print(*table(args.table.read_text().splitlines()), sep="\n")
        return
    for combination in itertools.product(args.recipe, args.batch, args.rate_factor):
        run(*combination, args.images, args.decay)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--batch", nargs="+", type=int, default=[8, 32, 256])
    parser.add_argument("--rate-factor", nargs="+", type=float, default=[1, 3])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--decay", action="store_true", help="the rate falls, as the recipes' does")
    parser.add_argument("--table", type=Path, help="print a table of the file's lines instead")
    main(parser.parse_args())

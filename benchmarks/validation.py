"""Does validation follow training? `cifar10_small` at 16 filters and 1 block, epoch by epoch.

    python -m benchmarks.validation [--run NAME] [--epochs N] > validation.jsonl
    python -m benchmarks.validation --plot FIGURE.png validation.jsonl [...]

Each run follows the recipe `cifar10_small`, except for the batch and rate in its name. After every
epoch the training images and the validation images are scored in inference mode; a JSON line has
both, in bits per dimension, and the mean of the epoch's steps, which is in training mode. A run's
last line has the largest gap, validation less training images. With --plot, it reads such lines and
draws them.
"""

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import keras

from tfnvp.training import recipes

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


def run(name, epochs, seed=0):
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


def plot(paths, figure):
    """Draws the lines of files: training dashed, validation solid."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = []
    for path in paths:
        with open(path) as file:
            lines += [json.loads(line) for line in file]
    lines = [line for line in lines if line["benchmark"] == "validation" and "epoch" in line]
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
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--plot", metavar="FIGURE", help="draw the files' lines instead")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    if args.plot:
        plot(args.files, args.plot)
        return
    for name in [args.run] if args.run else RUNS:
        run(name, args.epochs)


if __name__ == "__main__":
    main()

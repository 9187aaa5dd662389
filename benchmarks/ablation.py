"""The worth of each step beyond the paper: test bits per dimension after the same time of training.

    TFDS_DATA_DIR=DIR python -m benchmarks.ablation [--variant NAME ...] [--minutes M] [--seed N]

It trains `cifar10_small` and its variants on the CIFAR-10 of TFDS_DATA_DIR, one after the other,
each for M minutes of wall clock: building, tracing and training. The batch is the recipe's, and the
learning rate warms up and falls by a cosine over that time. A JSON line for each variant has the
bits/dim of validation and test images, images seen and steps. Run it alone on the machine, or pin
it to a core by taskset. Variants that did not pay are deleted; docs/results.md says what they
reached, and which commit has them.
"""

import argparse
import json
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import keras

from tfnvp.training import recipes
from tfnvp.training.schedules import make_optimizer

RECIPE = "cifar10_small"


class TimedSchedule(keras.callbacks.Callback):
    """Warms up by steps, follows a cosine by the clock, and ends when the time is over."""

    def __init__(self, peak, warmup_steps, started, seconds, decay=True):
        super().__init__()
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.started = started
        self.seconds = seconds
        self.decay = decay
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the learning rate."""
        passed = (time.time() - self.started) / self.seconds
        rate = self.peak * min(1.0, (self.steps + 1) / self.warmup_steps)
        if self.decay:
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, passed)))
        self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch, logs=None):
        """Stops when the time is over."""
        self.steps += 1
        if time.time() - self.started >= self.seconds:
            self.model.stop_training = True


VARIANTS = {
    "paper": {},
    "constant learning rate": {"decay": False},
    "invertible 1x1 convolutions": {"mixing": True},
    "Muon": {"muon": True},
    "Muon, invertible 1x1 convolutions": {"muon": True, "mixing": True},
}


def run(name, minutes, seed):
    """Trains one variant; returns its record."""
    started = time.time()
    variant = VARIANTS[name]
    recipe = recipes.get(RECIPE)
    keras.utils.set_random_seed(seed)
    images = recipe.load("train", recipe.batch_size, seed=seed, flip=recipe.flip)
    model = tfnvp.ImageRealNVP.from_preset(recipe.preset, mixing=variant.get("mixing", False))
    model.compile(
        optimizer=make_optimizer(
            1, recipe.learning_rate, decay=False, muon=variant.get("muon", False)
        )
    )
    schedule = TimedSchedule(
        recipe.learning_rate,
        recipe.warmup_steps,
        started,
        60 * minutes,
        variant.get("decay", True),
    )
    model.fit(images, epochs=1000, callbacks=[schedule], verbose=0, shuffle=False)
    bits_per_dim = {
        split: model.evaluate(recipe.load(split, 128), verbose=0, return_dict=True)["bits_per_dim"]
        for split in ("validation", "test")
    }
    return {
        "benchmark": "ablation",
        "variant": name,
        "minutes": minutes,
        "seed": seed,
        "steps": schedule.steps,
        "images": schedule.steps * recipe.batch_size,
        "parameters": model.count_params(),
        **bits_per_dim,
    }


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--variant", choices=VARIANTS, nargs="*", default=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.variant:
        print(json.dumps(run(name, args.minutes, args.seed)), flush=True)


if __name__ == "__main__":
    main()

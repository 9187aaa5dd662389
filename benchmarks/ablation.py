"""The worth of each choice of a recipe: bits per dimension after the same time of training.

    TFDS_DATA_DIR=DIR python -m benchmarks.ablation [--recipe NAME] [--variant NAME ...]
        [--minutes M] [--seed N]

It trains the recipe and variants of it, one after the other, each for M minutes of wall clock:
building, tracing and training. The learning rate warms up and falls by a cosine over that time. A
JSON line for each variant has the bits/dim of validation images, by which variants are to be
compared, of test images, images seen and steps. Run it alone on the machine, or pin it to a core by
taskset. Variants that did not pay are deleted; docs/results.md says what they reached, and which
commit has them.
"""

import argparse
import dataclasses
import json
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import keras

from tfnvp.training import recipes
from tfnvp.training.hardware import has_bfloat16
from tfnvp.training.schedules import make_optimizer


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


# Each variant changes fields of the recipe, and of its model the overrides.
VARIANTS = {
    "cifar10_small": {
        "paper": {"muon": False},
        "constant learning rate": {"muon": False, "decay": False},
        "invertible 1x1 convolutions": {"muon": False, "overrides": {"mixing": True}},
        "Muon": {},
        "Muon, invertible 1x1 convolutions": {"overrides": {"mixing": True}},
    },
    "cifar10_plus": {
        "recipe": {},
        "affine couplings": {"overrides": {"spline_bins": 0}},
        "equalized": {"overrides": {"equalized": True}},
    },
    "mnist": {
        "recipe": {},
        "affine couplings": {"overrides": {"spline_bins": 0}},
        "four bins": {"overrides": {"spline_bins": 4}},
        "not equalized": {"overrides": {"equalized": False, "alpha": 0.05}},
        "alpha 0.05": {"overrides": {"alpha": 0.05}},
        "three scales of 24 filters": {"overrides": {"num_scales": 3, "filters": 24}},
        "one block of 48 filters": {"overrides": {"residual_blocks": 1, "filters": 48}},
        "batches of 16": {"batch_size": 16},
    },
}


def run(recipe_name, variant, minutes, seed):
    """Trains one variant; returns its record."""
    started = time.time()
    recipe = recipes.get(recipe_name)
    recipe = dataclasses.replace(recipe, **VARIANTS[recipe_name][variant])
    keras.utils.set_random_seed(seed)
    images = recipe.load("train", recipe.batch_size, seed=seed, flip=recipe.flip)
    policy = "mixed_bfloat16" if recipe.mixed_precision and has_bfloat16() else "float32"
    model = recipe.model(dtype=policy)
    model.compile(optimizer=make_optimizer(1, recipe.learning_rate, decay=False, muon=recipe.muon))
    schedule = TimedSchedule(
        recipe.learning_rate, recipe.warmup_steps, started, 60 * minutes, recipe.decay
    )
    # Nobody looks at the moments before the end.
    fresh = tfnvp.callbacks.FreshMoments(None)
    model.fit(images, epochs=1000, callbacks=[schedule, fresh], verbose=0, shuffle=False)
    model.refresh_moments(images)
    bits_per_dim = {
        split: model.evaluate(recipe.load(split, 128), verbose=0, return_dict=True)["bits_per_dim"]
        for split in ("validation", "test")
    }
    return {
        "benchmark": "ablation",
        "recipe": recipe_name,
        "variant": variant,
        "policy": policy,
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
    parser.add_argument("--recipe", choices=VARIANTS, default="cifar10_small")
    parser.add_argument("--variant", nargs="*", help="all of the recipe's, if none is named")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    known = VARIANTS[args.recipe]
    for name in args.variant or known:
        if name not in known:
            parser.error(f"--variant must be one of {', '.join(known)}, got {name!r}")
        print(json.dumps(run(args.recipe, name, args.minutes, args.seed)), flush=True)


if __name__ == "__main__":
    main()

"""Is a digit unusual to a model that was trained on all but it?

    TFDS_DATA_DIR=DIR python -m benchmarks.left_out --digit D ... [--minutes M] [--seed N]

The recipe `mnist` is trained for M minutes of wall clock on the images of the other nine digits, by
a learning rate that falls by a cosine over that time. A JSON line has the bits/dim of validation
images and the area under the ROC curve of each score of `tfnvp.anomaly`: 1,000 test images of the
nine digits against those of the digit that was left out.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import keras
import numpy as np

from benchmarks.ablation import TimedSchedule
from benchmarks.anomalies import areas
from tfnvp.training import recipes
from tfnvp.training.hardware import has_bfloat16
from tfnvp.training.schedules import make_optimizer

IMAGES = 1000


def read(split, digit):
    """The images of a split without a digit, and those of it."""
    batches = list(tfnvp.data.load("mnist", split, 1000, shuffle=False, labels=True))
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images[labels != digit], images[labels == digit]


def run(digit, minutes, seed):
    """Trains on all but a digit; returns the record."""
    started = time.time()
    keras.utils.set_random_seed(seed)
    recipe = recipes.get("mnist")
    images, _ = read("train", digit)
    model = recipe.model(dtype="mixed_bfloat16" if has_bfloat16() else "float32")
    model.compile(optimizer=make_optimizer(1, recipe.learning_rate, decay=False, muon=recipe.muon))
    schedule = TimedSchedule(recipe.learning_rate, recipe.warmup_steps, started, 60 * minutes)
    options = {"batch_size": recipe.batch_size, "epochs": 1000, "verbose": 0}
    model.fit(images, callbacks=[schedule], **options)
    held_out, _ = read("validation", digit)
    usual, unusual = read("test", digit)
    detector = tfnvp.anomaly.Detector(model, held_out[:IMAGES])
    return {
        "benchmark": "left_out",
        "model": f"mnist without {digit}",
        "against": str(digit),
        "minutes": minutes,
        "seed": seed,
        "images_seen": schedule.steps * recipe.batch_size,
        "validation": float(np.mean(model.bits_per_dim(held_out[:IMAGES]))),
        **areas(detector.scores(usual[:IMAGES]), detector.scores(unusual)),
        "usual": len(usual[:IMAGES]),
        "unusual": len(unusual),
    }


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.left_out", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--digit", type=int, nargs="+", choices=range(10), required=True)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for digit in args.digit:
        print(json.dumps(run(digit, args.minutes, args.seed)), flush=True)


if __name__ == "__main__":
    main()

"""Do scores hold between training and inference, while the weights change fast?

    python -m benchmarks.moments [--dataset NAME ..] [--batch B ..] [--rate-factor F ..] [--steps N]

A model of two scales with 16 filters and 2 blocks trains by Muon at a level rate. Every 200 steps
256 training images and 256 validation images are scored: by the moments of batches of training
images, as training does; by the running averages of the last steps; and by moments that
`refresh_moments` has taken anew. A JSON line has the five figures, in bits per dimension, and the
mean of the steps since the line before.
"""

import argparse
import itertools
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import keras
import numpy as np

from tfnvp import data
from tfnvp.training.schedules import make_optimizer

RATE, WARM_UP, ROWS = 4e-3, 50, 256


class Figures(keras.callbacks.Callback):
    """Prints a line every so many steps."""

    def __init__(self, record, training, validation, batch, every):
        super().__init__()
        self.record, self.training, self.validation = record, training, validation
        self.batch, self.every = batch, every

    def _bits(self, images):
        scores = [self.model.bits_per_dim(x) for x in np.array_split(images[:ROWS], ROWS // 64)]
        return float(np.mean(np.concatenate(scores)))

    def _by_the_batch(self):
        """Scores by the batches' own moments, and leaves the model as it was."""
        before = self.model.get_weights()
        batches = np.array_split(self.training[:ROWS], max(1, ROWS // self.batch))
        bits = [self.model.bits(self.model(x, training=True)) for x in batches]
        self.model.set_weights(before)
        return float(np.mean(np.concatenate(bits)))

    def on_train_batch_end(self, batch, logs=None):
        """Scores, where it is due."""
        if (batch + 1) % self.every:
            return
        line = {"step": batch + 1, "steps_mean": float(logs["bits_per_dim"])}
        line["batch_moments"] = self._by_the_batch()
        before = self.model.get_weights()
        for name in ("running", "fresh"):
            if name == "fresh":
                self.model.refresh_moments(self.training, batch_size=self.batch)
            line[f"{name}_training"] = self._bits(self.training)
            line[f"{name}_validation"] = self._bits(self.validation)
        # Training goes on as if nobody had looked.
        self.model.set_weights(before)
        self.model.reset_metrics()
        line = {key: round(x, 3) if isinstance(x, float) else x for key, x in line.items()}
        print(json.dumps({**self.record, **line}), flush=True)


def images(name, split, count):
    """The first images of a split, uint8."""
    batches = data.load(name, split, 500, shuffle=False).take(-(-count // 500))
    return np.concatenate(list(batches.as_numpy_iterator()))[:count]


def run(name, batch, factor, steps):
    """Trains a model, and prints its lines."""
    keras.utils.set_random_seed(0)
    info = data.info(name)
    training, validation = images(name, "train", 20_000), images(name, "validation", 1000)
    model = tfnvp.ImageRealNVP(info.image_shape, 2, 16, 2, levels=info.levels, mixing=True)
    model.compile(make_optimizer(steps, factor * RATE, WARM_UP, decay=False, muon=True))
    record = {"benchmark": "moments", "dataset": name, "batch": batch, "rate": factor * RATE}
    figures = Figures(record, training, validation, batch, min(200, steps))
    epochs = -(-steps * batch // len(training))
    random = np.random.RandomState(0)
    order = np.concatenate([random.permutation(len(training)) for _ in range(epochs)])
    rows = training[order[: steps * batch]]
    model.fit(rows, batch_size=batch, shuffle=False, verbose=0, callbacks=[figures])


def main(args):
    """Runs each combination."""
    for combination in itertools.product(args.dataset, args.batch, args.rate_factor):
        run(*combination, args.steps)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--dataset", nargs="+", default=["mnist", "cifar10", "digits"])
    parser.add_argument("--batch", nargs="+", type=int, default=[8, 32, 256])
    parser.add_argument("--rate-factor", nargs="+", type=float, default=[1, 3])
    parser.add_argument("--steps", type=int, default=600)
    main(parser.parse_args())

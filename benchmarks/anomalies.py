"""How well each score of `tfnvp.anomaly` tells unusual pictures from test images of the training.

    python -m benchmarks.anomalies MODEL --dataset mnist [--against NAME ...] [--images N]
                                   [--held-out N]

MODEL is what the command `tfnvp` takes, a .keras file or the name of a model that ships. For each
kind of unusual pictures it prints a JSON line with the area under the ROC curve of each score, the
test images of the data set against as many unusual ones: 1 ranks all of these higher, 0.5 is
chance, and below that the score takes them for the more usual. Kinds are

- digits: scikit-learn's 8x8 digits of 17 levels, enlarged to the images' size;
- inverted, blurred (a Gaussian of 1 pixel), shifted (by 7 pixels down and right, wrapped), noisy
  (normal noise of an eighth of the range), patches (of a quarter of the side, shuffled): the test
  images so changed;
- flat: one colour each, drawn uniformly; noise: each value drawn uniformly;
- the test images of another data set of the same shape, by its name.

Typicality and the joint score are relative to the first --held-out images of validation.
"""

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import numpy as np
import tensorflow as tf
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score

from tfnvp.cli import loading


def digits(images, levels, random):
    """The 8x8 digits at the images' size."""
    enlarged = tf.image.resize(read("digits", "test", len(images)), images.shape[1:3]) / 16
    pixels = np.rint(enlarged * (levels - 1)).astype("uint8")
    return np.repeat(pixels, images.shape[-1], axis=-1)


def inverted(images, levels, random):
    """Dark where they were bright."""
    return (levels - 1 - images).astype("uint8")


def blurred(images, levels, random):
    """Blurred by a Gaussian of one pixel."""
    layers = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3])
    soft = [np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(1))) for x in layers]
    return np.moveaxis(np.reshape(soft, (len(images), -1, *images.shape[1:3])), 1, -1)


def shifted(images, levels, random):
    """Shifted by seven pixels both ways; what leaves on one side enters on the other."""
    return np.roll(images, (7, 7), axis=(1, 2))


def noisy(images, levels, random):
    """With normal noise."""
    noise = random.normal(0, levels / 8, images.shape)
    return np.clip(np.rint(images + noise), 0, levels - 1).astype("uint8")


def patches(images, levels, random):
    """Cut into 4 x 4 patches, which are shuffled."""
    n, height, width, channels = images.shape
    cut = images.reshape(n, 4, height // 4, 4, width // 4, channels).swapaxes(2, 3)
    cut = cut.reshape(n, 16, height // 4, width // 4, channels)
    cut = np.stack([rows[random.permutation(16)] for rows in cut])
    whole = cut.reshape(n, 4, 4, height // 4, width // 4, channels).swapaxes(2, 3)
    return whole.reshape(images.shape)


def flat(images, levels, random):
    """Each image of one colour."""
    colours = random.integers(0, levels, (len(images), 1, 1, images.shape[-1]))
    return np.broadcast_to(colours, images.shape).astype("uint8")


def noise(images, levels, random):
    """Noise alone."""
    return random.integers(0, levels, images.shape).astype("uint8")


CHANGES = {
    change.__name__: change
    for change in (digits, inverted, blurred, shifted, noisy, patches, flat, noise)
}


def read(name, split, count):
    """The first images of a split."""
    return np.concatenate(list(tfnvp.data.load(name, split, 100, shuffle=False)))[:count]


def areas(usual, unusual):
    """The area under the ROC curve of each score, of usual and of unusual images."""
    found = {}
    for name, scores in usual.items():
        both = np.append(scores, unusual[name])
        is_unusual = np.arange(len(both)) >= len(scores)
        found[name] = round(roc_auc_score(is_unusual, both), 4)
    return found


def records(model, dataset, against, images, held_out):
    """Yields the record of each kind of unusual pictures."""
    held_out = read(dataset, "validation", held_out)
    detector = tfnvp.anomaly.Detector(model, held_out)
    usual = read(dataset, "test", images)
    scored = detector.scores(usual)
    for name in against:
        if name in CHANGES:
            unusual = CHANGES[name](usual, model.levels, np.random.default_rng(0))
        else:
            unusual = read(name, "test", images)
        found = areas(scored, detector.scores(unusual))
        counts = {"usual": len(usual), "unusual": len(unusual), "held_out": len(held_out)}
        yield {"dataset": dataset, "against": name, **found, **counts}


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.anomalies", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("model", help="a .keras file, or the name of a model that ships")
    parser.add_argument("--dataset", required=True, choices=tfnvp.data.names())
    parser.add_argument(
        "--against",
        nargs="+",
        choices=[*CHANGES, *tfnvp.data.names()],
        default=list(CHANGES)[:5],
        help="kinds of unusual pictures [default: the first five]",
    )
    parser.add_argument("--images", type=int, default=1000, help="test images at most")
    parser.add_argument("--held-out", type=int, default=1000, help="validation images at most")
    args = parser.parse_args()
    model = loading.load(args.model)
    for record in records(model, args.dataset, args.against, args.images, args.held_out):
        print(json.dumps({"benchmark": "anomalies", "model": args.model, **record}), flush=True)


if __name__ == "__main__":
    main()

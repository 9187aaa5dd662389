"""Models in files that another set of versions reads, or has written.

    python tests/compat/exchange.py write DIR
    python tests/compat/exchange.py read DIR ...

`write` trains three small models for two steps and leaves, of each, a `.keras` file, its weights,
an export, and log_prob of some rows. `read` loads them, trains on, and prints the largest
difference of log_prob for each directory, nats, as a line of JSON. It is an error where a weight,
or the state of an optimizer, is not the same to the bit, or where an optimizer takes other steps.
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import tensorflow as tf

import tfnvp

LEVELS = 17
NAMES = ("images", "images_of_classes", "vectors")
# Two versions may add up a float32 in another order.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-4}


def rows(name):
    """The data and the labels of a model."""
    random = np.random.default_rng(0)
    if name == "vectors":
        # One column is rounded, so that the model has cells.
        x = random.normal(size=(32, 3)) * [1, 5, 1]
        x[:, 1] = np.round(x[:, 1])
        return x.astype("float32"), None
    labels = random.integers(0, 3, 32) if name == "images_of_classes" else None
    return random.integers(0, LEVELS, (32, 4, 4, 1)).astype("uint8"), labels


def made(name):
    """A model that has trained for two steps."""
    x, labels = rows(name)
    if name == "images":
        model = tfnvp.ImageRealNVP((4, 4, 1), 2, filters=4, residual_blocks=2, levels=LEVELS)
        optimizer = tfnvp.optimizers.Adam(1e-2)
    elif name == "images_of_classes":
        model = tfnvp.ImageRealNVP(
            (4, 4, 1), 1, 4, 1, levels=LEVELS, num_classes=3, label_dropout=0.1, mixing=True
        )
        optimizer = tfnvp.optimizers.Muon(1e-2)
    else:
        model = tfnvp.VectorRealNVP(3, num_couplings=2, hidden_units=[8])
        model.adapt(x)
        optimizer = "adam"
    model.compile(optimizer=optimizer)
    model.fit(x, labels, batch_size=16, epochs=1, verbose=0)
    return model


def state(model):
    """Every array that a file of a model keeps."""
    return [np.asarray(v) for v in [*model.weights, *model.optimizer.variables]]


def steps():
    """Weights after a few steps of each optimizer on gradients that are the same everywhere."""
    random, after = np.random.default_rng(0), []
    for kind in (tfnvp.optimizers.Adam, tfnvp.optimizers.Muon):
        # Muon steps matrices, and leaves the rest to Adam.
        shapes = [(3,), (5, 4), (4, 7), (2, 2, 3)]
        weights = [keras.Variable(random.normal(size=shape), dtype="float32") for shape in shapes]
        optimizer = kind(0.1, weight_decay=0.1)
        for _ in range(4):
            optimizer.apply(
                [tf.constant(random.normal(size=w.shape), w.dtype) for w in weights], weights
            )
        after += [weight.numpy() for weight in weights]
    return after


def write(directory):
    """Leaves the files of each model, and the steps."""
    np.savez(directory / "steps.npz", *steps())
    for name in NAMES:
        model, (x, labels) = made(name), rows(name)
        model.save(directory / f"{name}.keras")
        model.save_weights(directory / f"{name}.weights.h5")
        tfnvp.export_saved_model(model, directory / name, ["log_prob"])
        arrays = {f"state_{i}": array for i, array in enumerate(state(model))}
        np.savez(directory / f"{name}.npz", log_prob=model.log_prob(x, labels), **arrays)


def read(directory):
    """Compares what each file gives with what its writer had, and trains on."""
    with np.load(directory / "steps.npz") as written:
        for array, other in zip(written.values(), steps(), strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-5)
    largest = 0.0
    for name in NAMES:
        x, labels = rows(name)
        with np.load(directory / f"{name}.npz") as written:
            expected = written["log_prob"]
            arrays = [written[f"state_{i}"] for i in range(len(written) - 1)]
        whole = keras.saving.load_model(directory / f"{name}.keras")
        for array, other in zip(arrays, state(whole), strict=True):
            np.testing.assert_array_equal(array, other)
        weights = type(whole).from_config(whole.get_config())
        weights.load_weights(directory / f"{name}.weights.h5")
        export = tfnvp.serving.SavedModel(directory / name / "1")
        for model in (whole, weights, export):
            found = np.asarray(model.log_prob(x, labels))
            np.testing.assert_allclose(found, expected, **TOLERANCE)
            largest = max(largest, float(np.abs(found - expected).max()))
        whole.fit(x, labels, batch_size=16, epochs=1, verbose=0)
        assert np.all(np.isfinite(whole.log_prob(x, labels))), name
    return largest


if __name__ == "__main__":
    # Tracing takes longer than the few steps.
    tf.config.run_functions_eagerly(True)
    what, *directories = sys.argv[1:]
    if what == "write":
        Path(directories[0]).mkdir(parents=True)
        write(Path(directories[0]))
    else:
        print(json.dumps([read(Path(directory)) for directory in directories]))

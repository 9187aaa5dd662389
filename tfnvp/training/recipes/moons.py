"""Two moons: a density in two dimensions, and the paper's figure of it."""

import numpy as np

import tfnvp
from tfnvp import callbacks
from tfnvp.data import pipeline
from tfnvp.training.recipe import Recipe

# Passes over the points that count as an epoch: one takes less time than what follows it.
_PASSES = 10


def load(split, batch_size=None, *, shuffle=None, seed=0, flip=False, epochs=None, indices=False):
    """As `tfnvp.data.load("moons", ...)`; shuffled, an epoch has each point ten times."""
    points = tfnvp.data.load("moons", split, shuffle=False, flip=flip, indices=indices)
    shuffle = split == "train" if shuffle is None else shuffle
    if shuffle:
        points = points.repeat(_PASSES)
    options = {"shuffle": shuffle, "seed": seed, "epochs": epochs}
    return pipeline.feed(points, split, batch_size, flip=False, **options)


class MoonsRecipe(Recipe):
    """A recipe of vectors: `overrides` are constructor arguments of `VectorRealNVP`."""

    def model(self, remat=False, dtype="float32"):
        """The model, standardised by the training points."""
        if remat:
            raise ValueError("--remat: a vector model has nothing to rematerialise")
        model = tfnvp.VectorRealNVP(2, **self.overrides, dtype=dtype)
        model.adapt(self.load("train", 1000, shuffle=False))
        return model

    def pictures(self):
        """The paper's figure."""
        return {"density": callbacks.density(_points("test"))}

    def report(self, model):
        """The test log-likelihood, and the integral of the density over a grid."""
        nats = np.mean(model.log_prob(_points("test")))
        return {
            "test log-likelihood": f"{nats:.3f} nats",
            "integral": f"{integral(model):.4f}",
        }


def integral(model, step=0.01):
    """The integral of a model's density [2] over a grid that reaches 2 beyond the points."""
    x = _points("train")
    axes = [np.arange(lo - 2, hi + 2, step) for lo, hi in zip(x.min(0), x.max(0), strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2).astype("float32")
    parts = [grid[i : i + 50_000] for i in range(0, len(grid), 50_000)]
    return float(sum(np.exp(model.log_prob(part)).sum(dtype="float64") for part in parts) * step**2)


def _points(split):
    return next(iter(load(split, 10_000, shuffle=False))).numpy()


def recipe():
    """Two moons; less than a minute on two cores."""
    return MoonsRecipe(
        description="two moons (scikit-learn)",
        preset=None,
        load=load,
        epochs=12,
        batch_size=250,
        learning_rate=4e-3,
        steps_per_execution=20,
    )

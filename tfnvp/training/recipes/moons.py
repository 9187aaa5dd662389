"""The recipe `moons`: a density in two dimensions, and the paper's figure of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfnvp import callbacks, data
from tfnvp.data import pipeline
from tfnvp.models import FlowModel, VectorRealNVP
from tfnvp.training.recipes.recipe import Recipe

# An epoch passes over the points ten times: one pass takes less time than the validation after it.
_PASSES = 10


def load(
    split: str,
    batch_size: int | None = None,
    *,
    shuffle: bool | None = None,
    indices: bool = False,
    **order: Any,
) -> tf.data.Dataset:
    """The set `moons` of `tfnvp.data.load`; shuffled, an epoch has each point ten times."""
    points = data.load("moons", split, shuffle=False, indices=indices)
    shuffle = split == "train" if shuffle is None else shuffle
    if shuffle:
        points = points.repeat(_PASSES)
    order = {"seed": 0, "flip": False} | order
    return pipeline.feed(points, split, batch_size, shuffle=shuffle, **order)


class MoonsRecipe(Recipe):
    """A recipe of vectors: `overrides` are constructor arguments of `VectorRealNVP`."""

    def model(self, remat: bool = False, dtype: str = "float32") -> VectorRealNVP:
        """Makes the model, standardised by the training points."""
        if remat:
            raise ValueError("--remat: a vector model has nothing to rematerialise")
        model = VectorRealNVP(2, **self.overrides, dtype=dtype)
        model.adapt(self.load("train", 1000, shuffle=False))
        return model

    def pictures(self) -> dict[str, Callable[[FlowModel], np.ndarray]]:
        """The paper's figure."""
        return {"density": callbacks.density(_points("test"))}

    def report(self, model: FlowModel) -> dict[str, str]:
        """The test log-likelihood, and the integral of the density over a grid."""
        nats = np.mean(model.log_prob(_points("test")))
        return {"test log-likelihood": f"{nats:.3f} nats", "integral": f"{integral(model):.4f}"}


_HOW = {"epochs": 12, "batch_size": 250, "learning_rate": 4e-3, "steps_per_execution": 20}
RECIPE = MoonsRecipe("two moons (scikit-learn)", preset=None, load=load, unit="rows", **_HOW)


def integral(model: FlowModel, step: float = 0.01) -> float:
    """The integral of a model's density [2] over a grid that reaches 2 beyond the points."""
    x = _points("train")
    axes = [np.arange(lo - 2, hi + 2, step) for lo, hi in zip(x.min(0), x.max(0), strict=True)]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2).astype("float32")
    parts = [grid[i : i + 50_000] for i in range(0, len(grid), 50_000)]
    return float(sum(np.exp(model.log_prob(part)).sum(dtype="float64") for part in parts) * step**2)


def _points(split: str) -> np.ndarray:
    return next(iter(load(split, 10_000, shuffle=False))).numpy()

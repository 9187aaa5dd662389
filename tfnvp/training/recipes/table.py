"""The recipe `table`: the density of the rows of a CSV file."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfnvp.data import pipeline
from tfnvp.data.csv_table import read_csv
from tfnvp.models import FlowModel, VectorRealNVP
from tfnvp.models.fitting import default_dropout, default_kept_rows, default_steps
from tfnvp.training.recipes.recipe import Recipe

_BATCH = 256


class TableRecipe(Recipe):
    """A recipe of the rows of a table, of which a tenth each validates and tests."""

    def model(self, remat: bool = False, dtype: str = "float32") -> VectorRealNVP:
        """Makes the model, adapted to the training rows."""
        if remat:
            raise ValueError("--remat: a vector model has nothing to rematerialise")
        x = self._rows("train")
        model = VectorRealNVP(
            x.shape[1],
            dropout=default_dropout(len(x)),
            kept_rows=default_kept_rows(len(x)),
            dtype=dtype,
            **self.overrides,
        )
        model.adapt(x)
        return model

    def pictures(self) -> dict[str, Any]:
        """Gives no pictures: a table has none."""
        return {}

    def report(self, model: FlowModel) -> dict[str, str]:
        """Gives the test log-likelihood."""
        return {"test log-likelihood": f"{np.mean(model.log_prob(self._rows('test'))):.3f} nats"}

    def _rows(self, split: str) -> np.ndarray:
        return np.concatenate(list(self.load(split, 10_000, shuffle=False)))


def recipe(path: Path) -> TableRecipe:
    """Makes the recipe of a CSV file."""
    names, x = read_csv(path)
    order = np.random.RandomState(0).permutation(len(x))
    first, second = int(0.8 * len(x)), int(0.9 * len(x))
    if not 0 < first < second < len(x):
        raise ValueError(f"{path} must have 10 rows or more, got {len(x)}")
    parts = np.split(x[order].astype("float32"), [first, second])
    splits = dict(zip(pipeline.SPLITS, parts, strict=True))
    # An epoch passes over few rows several times, lest validation takes most of the time.
    passes = max(1, 50 * _BATCH // first)
    steps = default_steps(first)
    epochs = max(1, round(steps * min(_BATCH, first) / (passes * first)))
    return TableRecipe(
        f"{len(x):,} rows of {len(names)} columns of {path}",
        preset=None,
        load=functools.partial(_load, splits, passes),
        epochs=epochs,
        batch_size=min(_BATCH, first),
        learning_rate=2e-3,
        warmup_steps=min(100, steps // 10),
        averaged=0.1,
        unit="rows",
    )


def _load(
    splits: dict[str, np.ndarray],
    passes: int,
    split: str,
    batch_size: int | None = None,
    *,
    shuffle: bool | None = None,
    indices: bool = False,
    **order: Any,
) -> tf.data.Dataset:
    """Gives a split as `tfnvp.data.load` does; shuffled, an epoch has each row several times."""
    rows = tf.data.Dataset.from_tensor_slices(splits[split])
    shuffle = split == "train" if shuffle is None else shuffle
    if shuffle:
        rows = rows.repeat(passes)
    order = {"seed": 0, "flip": False} | order
    return pipeline.feed(rows, split, batch_size, shuffle=shuffle, indices=indices, **order)

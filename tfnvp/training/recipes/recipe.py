"""`Recipe`: a model, the data that it is trained on, and how."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp import callbacks
from tfnvp.models import FlowModel, ImageRealNVP
from tfnvp.training.schedules import make_optimizer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model, the data that it is trained on, and how.

    Attributes:
        preset: name of the architecture in `tfnvp.presets`; None where `model` makes another.
        load: takes a split ("train", "validation" or "test"), a batch size and the keyword
            arguments shuffle, seed, flip, epochs and indices, as `tfnvp.data.load` does.
        learning_rate: the peak, warmed up to from zero and, with `decay`, left by a cosine to zero.
        weight_decay: decoupled, as in AdamW; 0 for none.
        muon: whether the kernels of conditioners get Muon's steps, or Adam's as all the rest.
        flip: whether training images are mirrored left to right at random.
        mixed_precision: whether conditioners compute in bfloat16 where the hardware has it.
        overrides: constructor arguments of the model in place of the preset's.
        averaged: the share of all steps over which a running average of the weights reaches, which
            is what validation sees and what is kept; 0 for the weights themselves.
        unit: what the data is of, for those who read of its progress.
        steps_per_execution: steps that Keras runs at a time, if they divide an epoch: more than
            one for steps of milliseconds, around which its loop would take as long.
        paper_bits_per_dim: the paper's test figure for the same data and architecture, if any.
    """

    description: str
    preset: str | None
    load: Callable[..., tf.data.Dataset]
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay: bool = True
    weight_decay: float = 0.0
    muon: bool = False
    flip: bool = False
    mixed_precision: bool = False
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    paper_bits_per_dim: float | None = None
    averaged: float = 0.0
    unit: str = "images"
    steps_per_execution: int = 1

    def model(self, remat: bool = False, dtype: str = "float32") -> FlowModel:
        """Makes the model, yet to be trained; the arguments are those of `ImageRealNVP`."""
        model = ImageRealNVP.from_preset(self.preset, **self.overrides, remat=remat, dtype=dtype)
        if model.equalized:
            model.adapt(self.load("train", 1000, shuffle=False))
        return model

    def pictures(self) -> dict[str, Callable[[FlowModel], np.ndarray]]:
        """The pictures that `callbacks.Watch` draws as the model trains, and a run in the end."""
        pictures = {"samples": callbacks.samples(), "interpolation": callbacks.interpolation()}
        scored = {}
        for split in ("train", "validation"):
            batches = self.load(split, 100, shuffle=False).take(2)
            # A labelled set has pairs, of which the images are drawn.
            scored[split] = np.concatenate([b[0] if isinstance(b, tuple) else b for b in batches])
        return pictures | {"bits_per_dim": callbacks.bits_per_dim(scored)}

    def report(self, model: FlowModel) -> dict[str, str]:
        """Further lines of the table that ends a run: names, and the figures beside them."""
        figure = self.paper_bits_per_dim
        return {"the paper's test": f"{figure:.2f}"} if figure else {}

    def optimizer(self, steps: int, learning_rate: float) -> keras.optimizers.Optimizer:
        """The optimizer of a training of so many steps, with a learning rate of that peak."""
        return make_optimizer(
            steps,
            learning_rate,
            self.warmup_steps,
            self.decay,
            self.weight_decay,
            self.muon,
            self.averaged,
        )

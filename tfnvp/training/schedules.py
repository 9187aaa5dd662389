"""The optimizer of a recipe: Adam or Muon, with a schedule and the paper's clipping."""

import math

import keras

from tfnvp import optimizers

# Muon makes orthogonal steps of matrices, such as the directions of the conditioners' convolutions.
# Adam trains the last convolution of each network, and the matrices of 1x1 convolutions on images.
_NOT_MUONS = ["output_conv", "invertible_matrix"]


def make_optimizer(
    steps: int,
    learning_rate: float,
    warmup_steps: int = 0,
    decay: bool = True,
    weight_decay: float = 0.0,
    muon: bool = False,
    averaged: float = 0.0,
) -> keras.optimizers.Optimizer:
    """Adam or Muon, with a linear warm-up and then, with `decay`, a cosine to zero.

    Gradients are clipped to a global norm of 100, as in the authors' code of Real NVP. The warm-up
    takes a third of all steps at most, and weight decay is decoupled, as in AdamW. Muon's steps are
    orthogonalised momentum (Liu et al., arXiv 2502.16982); all but the kernels of conditioners get
    Adam's then. With `averaged` the optimizer keeps a running average of the weights over about
    that share of the steps.
    """
    warmup = min(warmup_steps, steps // 3)
    if decay:
        learning_rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else learning_rate,
            decay_steps=max(1, steps - warmup),
            warmup_target=learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    options = {"weight_decay": weight_decay or None, "global_clipnorm": 100.0}
    if averaged:
        options |= {"use_ema": True, "ema_momentum": math.exp(-1 / max(1.0, averaged * steps))}
    if not muon:
        return optimizers.Adam(learning_rate, **options)
    return optimizers.Muon(
        learning_rate,
        adam_weight_decay=options["weight_decay"],
        exclude_layers=_NOT_MUONS,
        rms_rate=0.6,
        **options,
    )

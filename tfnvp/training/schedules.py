"""The optimizer of a recipe: Adam or Muon, with a schedule and the paper's clipping."""

import keras

from tfnvp import optimizers

# Of the conditioners the convolutions' directions are matrices that Muon makes orthogonal steps of;
# the last of them, and the matrices of 1x1 convolutions on images, are Adam's.
_NOT_MUONS = ["output_conv", "invertible_matrix"]


def make_optimizer(steps, learning_rate, warmup_steps=0, decay=True, weight_decay=0.0, muon=False):
    """Adam or Muon, with a linear warm-up and then, with `decay`, a cosine to zero.

    Gradients are clipped to a global norm of 100, as the authors' code of Real NVP has it.

    Args:
        steps: optimizer steps in all.
        learning_rate: the peak.
        warmup_steps: steps from zero to the peak; a third of all steps at most.
        decay: whether the learning rate falls to zero, or stays.
        weight_decay: decoupled, as in AdamW; 0 for none.
        muon: whether the kernels of conditioners get Muon's steps (orthogonalised momentum, Liu et
            al., arXiv 2502.16982) and all other weights Adam's, or all get Adam's.

    Returns:
        A `keras.optimizers.Optimizer`.
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
    if not muon:
        return optimizers.Adam(learning_rate, **options)
    return optimizers.Muon(
        learning_rate,
        adam_weight_decay=options["weight_decay"],
        exclude_layers=_NOT_MUONS,
        rms_rate=0.6,
        **options,
    )

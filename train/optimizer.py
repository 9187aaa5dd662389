"""The optimizer of a recipe: Adam with a schedule and the paper's clipping."""

import keras


def make_optimizer(steps, learning_rate, warmup_steps=0, decay=True, weight_decay=0.0):
    """Adam, its learning rate warmed up linearly and then, with `decay`, left by a cosine to zero.

    Gradients are clipped to a global norm of 100, as the authors' code of Real NVP has it.

    Args:
        steps: optimizer steps in all.
        learning_rate: the peak.
        warmup_steps: steps from zero to the peak; a third of all steps at most.
        decay: whether the learning rate falls to zero, or stays.
        weight_decay: of AdamW, decoupled; 0 for Adam.

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
    if weight_decay:
        return keras.optimizers.AdamW(
            learning_rate, weight_decay=weight_decay, global_clipnorm=100.0
        )
    return keras.optimizers.Adam(learning_rate, global_clipnorm=100.0)

"""ImageNet at 32 x 32 with what pays beyond the paper."""

import dataclasses

from tfnvp.training.recipes import imagenet32


def recipe():
    """The paper's data and steps of training, with 1x1 convolutions, Muon, warm-up and decay."""
    return dataclasses.replace(
        imagenet32.recipe(),
        description="ImageNet at 32x32 (TFDS downsampled_imagenet/32x32 2.0.0), beyond the paper",
        preset="imagenet32_plus",
        warmup_steps=2000,
        muon=True,
        decay=True,
        mixed_precision=True,
        paper_bits_per_dim=None,
    )

"""ImageNet at 64 x 64: 1,281,149 images, of which 98% train; no flips."""

from tfnvp.training.recipe import of_the_paper


def recipe():
    """ImageNet at 64x64, as in the paper; hours on a GPU."""
    return of_the_paper(
        "imagenet64",
        "ImageNet at 64x64 (TFDS downsampled_imagenet/64x64 2.0.0), the paper's model",
        epochs=10,
        bits_per_dim=3.98,
        flip=False,
    )

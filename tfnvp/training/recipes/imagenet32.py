"""ImageNet at 32 x 32: 1,281,149 images, of which 98% train; no flips."""

from tfnvp.training.recipe import of_the_paper


def recipe():
    """ImageNet at 32x32, as in the paper; hours on a GPU."""
    return of_the_paper(
        "imagenet32",
        "ImageNet at 32x32 (TFDS downsampled_imagenet/32x32 2.0.0), the paper's model",
        epochs=10,
        bits_per_dim=4.28,
        flip=False,
    )

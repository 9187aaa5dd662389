"""CIFAR-10: 50,000 images, of which 47,500 train; horizontal flips."""

from tfnvp.training.recipe import of_the_paper


def recipe():
    """CIFAR-10, as in the paper; hours on a GPU."""
    return of_the_paper(
        "cifar10",
        "CIFAR-10, 32x32 colour (TFDS cifar10 3.0.2), the paper's model",
        epochs=270,
        bits_per_dim=3.49,
    )

"""LSUN churches: 126,227 images, of which 98% train; smaller side 96, 64 x 64 crops, flips."""

from tfnvp.training.recipe import of_the_paper


def recipe():
    """LSUN churches, as in the paper; hours on a GPU."""
    return of_the_paper(
        "lsun_church_outdoor",
        "LSUN churches, 64x64 crops (TFDS lsun/church_outdoor 3.1.0), the paper's model",
        epochs=100,
        bits_per_dim=3.08,
    )

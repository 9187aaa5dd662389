"""LSUN towers: 708,264 images, of which 98% train; smaller side 96, 64 x 64 crops, flips."""

from tfnvp.training.recipe import of_the_paper


def recipe():
    """LSUN towers, as in the paper; hours on a GPU."""
    return of_the_paper(
        "lsun_tower",
        "LSUN towers, 64x64 crops (TFDS lsun/tower 3.1.0), the paper's model",
        epochs=18,
        bits_per_dim=2.81,
    )

"""LSUN bedrooms: 3,033,042 images, of which 98% train; smaller side 96, 64 x 64 crops, flips."""

from tfnvp.training.recipe import of_the_paper


def recipe():
    """LSUN bedrooms, as in the paper; hours on a GPU."""
    return of_the_paper(
        "lsun_bedroom",
        "LSUN bedrooms, 64x64 crops (TFDS lsun/bedroom 3.1.0), the paper's model",
        epochs=4,
        bits_per_dim=2.72,
    )

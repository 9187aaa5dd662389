"""CelebA: 162,770 images train; central 148 x 148 pixels, resized to 64 x 64, flips."""

from tfnvp.training.recipe import of_the_paper


def recipe():
    """CelebA, as in the paper; hours on a GPU."""
    return of_the_paper(
        "celeb_a",
        "CelebA, central 148x148 at 64x64 (TFDS celeb_a 2.1.0), the paper's model",
        epochs=80,
        bits_per_dim=3.02,
    )

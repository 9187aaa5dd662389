"""The 8 x 8 digits given their class: p(x | y), and with it a classifier by Bayes' rule."""

import dataclasses
import functools

import tfnvp
from tfnvp.training.recipe import Recipe
from tfnvp.training.recipes import digits


def recipe() -> Recipe:
    """The digits with labels, trained as without."""
    return dataclasses.replace(
        digits.recipe(),
        description="8x8 handwritten digits given their class, 17 levels (scikit-learn)",
        preset="digits_conditional",
        load=functools.partial(tfnvp.data.load, "digits", labels=True),
    )

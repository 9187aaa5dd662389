"""The image model at the least size that has all its parts."""

import dataclasses
from unittest import mock

import keras

import tfnvp
from tfnvp.models.multiscale import Multiscale
from tfnvp.training.recipes import Recipe

COUPLINGS = Multiscale.couplings


@keras.saving.register_keras_serializable(package="tests")
class FewCouplings(tfnvp.ImageRealNVP):
    """A model with one coupling for each three in a row, and two for the four at its end.

    It is traced, differentiated and compiled in about half the time.
    """

    def build_distribution(self):
        """Makes the flow of fewer couplings."""
        with mock.patch.object(Multiscale, "couplings", _fewer):
            return super().build_distribution()


def _fewer(self, partition, count, *sizes):
    return COUPLINGS(self, partition, count // 2, *sizes)


@dataclasses.dataclass(frozen=True)
class FewCouplingsRecipe(Recipe):
    """A recipe of such a model."""

    def model(self, remat=False, dtype="float32"):
        """Makes the model."""
        return FewCouplings.from_preset(self.preset, **self.overrides, remat=remat, dtype=dtype)

    @classmethod
    def of(cls, recipe, **changes):
        """Makes it of another recipe."""
        sizes = {"filters": 4, "residual_blocks": 1, "num_scales": 1}
        return cls(**vars(recipe) | {"overrides": recipe.overrides | sizes} | changes)

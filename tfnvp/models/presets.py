"""Named architectures: constructor arguments of `ImageRealNVP`, and the weights that ship."""

import json
from pathlib import Path
from typing import Any

from tfnvp.checks import check_choice

_WEIGHTS = Path(__file__).with_name("weights")

# Paper section 4.1: 4 blocks and 32 filters at 32 x 32, 2 blocks and 32 filters at 64 x 64, scales
# down to 4 x 4; CIFAR-10 has 8 blocks and 64 filters, and downscales once.
_PAPER_32 = {"image_shape": (32, 32, 3), "num_scales": 4, "filters": 32, "residual_blocks": 4}
_PAPER_64 = {"image_shape": (64, 64, 3), "num_scales": 5, "filters": 32, "residual_blocks": 2}
_PAPER_CIFAR10 = {"image_shape": (32, 32, 3), "num_scales": 2, "filters": 64, "residual_blocks": 8}
# The paper's CIFAR-10 model at a size for a laptop.
_SMALL = _PAPER_CIFAR10 | {"filters": 32, "residual_blocks": 2}

_DIGITS = {"image_shape": (8, 8, 1), "num_scales": 2, "filters": 32, "residual_blocks": 1}
_DIGITS |= {"levels": 17}
_MNIST = {"image_shape": (28, 28, 1), "num_scales": 2, "filters": 32, "residual_blocks": 2}
_MNIST |= {"mixing": True, "equalized": True, "alpha": 0.005}
# The model learns p(x | y), and p(x) too, since a tenth of the labels is left out in training.
_TEN_CLASSES = {"num_classes": 10, "label_dropout": 0.1}

_PRESETS = {
    "cifar10": _PAPER_CIFAR10,
    "imagenet32": _PAPER_32,
    "imagenet64": _PAPER_64,
    "lsun_bedroom": _PAPER_64,
    "lsun_tower": _PAPER_64,
    "lsun_church_outdoor": _PAPER_64,
    "celeb_a": _PAPER_64,
    "cifar10_small": _SMALL,
    # These go beyond the paper; docs/results.md tells what each step is worth.
    "cifar10_plus": _SMALL | {"mixing": True, "spline_bins": 8},
    "imagenet32_plus": _PAPER_32 | {"mixing": True},
    # Its sizes were chosen on the digits' validation images.
    "digits": _DIGITS,
    "digits_conditional": _DIGITS | _TEN_CLASSES,
    "mnist": _MNIST | {"spline_bins": 8},
    "mnist_conditional": _MNIST | _TEN_CLASSES,
    "cifar10_conditional": _SMALL | _TEN_CLASSES,
    "photos": _SMALL | {"filters": 16, "residual_blocks": 1},
}


def names() -> list[str]:
    """The names of the presets, sorted."""
    return sorted(_PRESETS)


def get(name: str) -> dict[str, Any]:
    """The constructor arguments of a preset, in a new dictionary.

    Raises:
        ValueError: for an unknown name; it lists the known ones.
    """
    check_choice("preset", name, names())
    return dict(_PRESETS[name])


def trained() -> list[str]:
    """The names of the presets whose weights ship with tfnvp, sorted."""
    return sorted(path.name.removesuffix(".json") for path in _WEIGHTS.glob("*.json"))


def weights_path(name: str) -> Path:
    """The weights that ship for a preset, a `pathlib.Path`.

    Raises:
        ValueError: for an unknown name, or one without weights; it lists the others.
    """
    check_choice("preset", name, names())
    if name not in trained():
        raise ValueError(
            f"the preset {name!r} comes without weights, train it; those with weights: "
            f"{', '.join(trained())}"
        )
    return _WEIGHTS / f"{name}.weights.h5"


def card(name: str) -> dict[str, Any]:
    """The card of a preset's weights: data, bits/dim and the command that trained them.

    Returns:
        A dictionary, such as `python -m train` leaves in a run directory's `card.json`.

    Raises:
        ValueError: for an unknown name, or one without weights; it lists the others.
    """
    return json.loads(weights_path(name).with_name(f"{name}.json").read_text())

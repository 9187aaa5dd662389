"""Named architectures: constructor arguments of `ImageRealNVP`."""

from tfnvp.checks import check_choice

_PRESETS = {
    # Chosen on the digits' validation images.
    "digits": {
        "image_shape": (8, 8, 1),
        "num_scales": 2,
        "filters": 32,
        "residual_blocks": 1,
        "levels": 17,
    },
    "photos": {
        "image_shape": (32, 32, 3),
        "num_scales": 2,
        "filters": 16,
        "residual_blocks": 1,
    },
    # The paper's CIFAR-10 model (2 scales, 64 filters, 8 blocks) at a size for a laptop.
    "cifar10_small": {
        "image_shape": (32, 32, 3),
        "num_scales": 2,
        "filters": 32,
        "residual_blocks": 2,
    },
}


def names():
    """The names of the presets, sorted."""
    return sorted(_PRESETS)


def get(name):
    """The constructor arguments of a preset, a dictionary of the caller's own.

    Raises:
        ValueError: for an unknown name; it lists the known ones.
    """
    check_choice("preset", name, names())
    return dict(_PRESETS[name])

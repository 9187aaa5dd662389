import pytest

import tfnvp
from tfnvp import presets


def test_names_are_sorted_and_known():
    assert presets.names() == sorted(presets.names())
    assert {"digits", "photos", "cifar10_small"} <= set(presets.names())


@pytest.mark.parametrize("name", presets.names())
def test_each_preset_is_a_model(name):
    """Of its sizes; thin, to be quick."""
    model = tfnvp.ImageRealNVP(**{**presets.get(name), "filters": 1, "residual_blocks": 1})
    assert model.distribution.event_shape == presets.get(name)["image_shape"]


def test_a_preset_is_the_callers_own():
    presets.get("digits")["filters"] = 1
    assert presets.get("digits")["filters"] > 1


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"'digit'; known: {', '.join(presets.names())}"):
        presets.get("digit")

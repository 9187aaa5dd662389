from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.models import presets


def test_names_are_sorted_and_known():
    assert presets.names() == sorted(presets.names())
    assert {"digits", "photos", "cifar10_small"} <= set(presets.names())


def _thin(name):
    return {**presets.get(name), "filters": 1, "residual_blocks": 1}


# By what is left of them, for many differ in how thick they are alone.
THIN = {str(_thin(name)): name for name in presets.names()}


# Those of many scales take seconds each.
FEW_SCALES = ("cifar10_small", "digits", "digits_conditional")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in FEW_SCALES))
        for name in sorted(THIN.values())
    ],
)
def test_each_preset_is_a_model(name):
    """The model has the preset's sizes, but is thin, to be quick."""
    model = tfnvp.ImageRealNVP(**_thin(name))
    assert model.distribution.event_shape == presets.get(name)["image_shape"]


def test_a_preset_is_the_callers_own():
    presets.get("digits")["filters"] = 1
    assert presets.get("digits")["filters"] > 1


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"'digit'; known: {', '.join(presets.names())}"):
        presets.get("digit")


def test_a_preset_without_weights_lists_those_that_have_them():
    message = (
        r"'imagenet64' comes without weights, train it; those with weights: cifar10_small, digits, "
        "mnist"
    )
    with pytest.raises(ValueError, match=message):
        tfnvp.ImageRealNVP.from_preset("imagenet64", load_weights=True)


def test_what_ships_is_small():
    assert presets.trained() == ["cifar10_small", "digits", "mnist", "mnist_conditional"]
    for name in presets.trained():
        assert presets.weights_path(name).stat().st_size < 6e6
        assert presets.card(name)["preset"] == name


def test_weights_fit_their_own_architecture_alone():
    with pytest.raises(ValueError, match=r"'digits' do not fit .*'filters': 8"):
        tfnvp.ImageRealNVP.from_preset("digits", load_weights=True, filters=8)


# A whole test set through the larger ones takes long.
SLOW = [pytest.mark.slow]
SHIPPED = [pytest.param(x, marks=SLOW * (x != "digits")) for x in presets.trained()]


@pytest.mark.parametrize("name", SHIPPED)
def test_trained_presets_score_as_their_cards_say(name):
    """On the test images of the card's data set; without these, on nothing."""
    card = presets.card(name)
    data = {"cifar10_small": "cifar10", "mnist_conditional": "mnist"}.get(name, name)
    model = tfnvp.ImageRealNVP.from_preset(name, load_weights=True)
    try:
        batches = tfnvp.data.load(data, "test", 128, labels=bool(model.num_classes))
    except tfnvp.data.DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    # The card's figure of a conditional model is given the class.
    pairs = [batch if model.num_classes else (batch, None) for batch in batches]
    bits = np.concatenate([model.bits_per_dim(x, labels=y) for x, y in pairs])
    assert bits.mean() == pytest.approx(card["bits_per_dim"]["test"], abs=2e-3)
    # The SavedModel beside them is of the same weights.
    directory = Path(__file__).parents[2] / "saved_models" / name / "1"
    served = tf.saved_model.load(str(directory)).signatures["log_prob"]
    x, y = pairs[0]
    given = {"images": x} | ({"label": y} if model.num_classes else {})
    np.testing.assert_allclose(served(**given)["bits_per_dim"], bits[: len(x)], atol=1e-3)


# By tfnvp at 40c7173, whose convolutions had biases that are folded into running means now.
RECORDED = [-32925.336, -34700.61, -34945.34]


def test_folded_weights_are_the_same_density():
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype("uint8")[:3]
    model = tfnvp.ImageRealNVP.from_preset("cifar10_small", load_weights=True)
    np.testing.assert_allclose(model.log_prob(images), RECORDED, rtol=1e-5)

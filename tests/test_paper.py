"""The figures that docs/paper.md states of the presets are true, and what it names is there."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.bijectors import FactorOut
from tfnvp.models import presets

ROOT = Path(__file__).parents[1]
PAPER = (ROOT / "docs" / "paper.md").read_text()
DISTINCT = {str(presets.get(name)): name for name in reversed(presets.names())}


def _latents(model):
    """How many variables leave at each scale, and how many are left."""
    left = math.prod(model.image_shape)
    latents = []
    bijectors = model.distribution.bijector.bijectors
    while inner := [b for b in bijectors if isinstance(b, FactorOut)]:
        left //= 2
        latents.append(left)
        bijectors = inner[0].bijector.bijectors
    return [*latents, left]


def _receptive_field(network, size=48):
    """The side of the square of inputs that the middle of a conditioner's output depends on."""
    x = tf.random.stateless_normal([1, size, size, network.channels], (0, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        middle = network(x, training=False)[0, size // 2, size // 2]
    seen = np.any(tape.gradient(middle, x)[0] != 0, axis=-1)
    rows, columns = np.any(seen, axis=1).sum(), np.any(seen, axis=0).sum()
    assert rows == columns
    return rows


def _row(name, randomize):
    model = tfnvp.ImageRealNVP.from_preset(name)
    # A coupling's network, of few features: its reach depends on the blocks alone.
    network = tfnvp.layers.ResidualNetwork(1, 8, model.residual_blocks)
    network.build((None, None, None, 1))
    side = _receptive_field(randomize(network))
    latents = " + ".join(f"{n:,}" for n in _latents(model))
    return f"{model.count_params():,} | {latents} | {side} x {side} |"


# The others have thousands of variables each.
SMALL = ("cifar10_small", "digits", "photos")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in SMALL))
        for name in sorted(DISTINCT.values())
    ],
)
def test_sizes_are_as_stated(name, randomize):
    row = _row(name, randomize)
    for preset in presets.names():
        if presets.get(preset) == presets.get(name):
            assert f"| `{preset}` | {row}" in PAPER


def test_what_is_named_is_there():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAPER))
    assert len(named) > 20
    assert [name for name in sorted(named) if f"def {name}(" not in tests] == []
    files = set(re.findall(r"`((?:layers|bijectors)/\w+\.py)`", PAPER))
    assert len(files) > 5
    assert [file for file in sorted(files) if not (ROOT / "tfnvp" / file).is_file()] == []

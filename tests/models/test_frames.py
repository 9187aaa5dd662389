"""How far it is from a question to a network, for who follows it in a debugger."""

import traceback
from pathlib import Path

import numpy as np
import pytest

import tfnvp
from tfnvp.layers import WeightNormConv2D

PACKAGE = str(Path(tfnvp.__file__).parent)


@pytest.mark.parametrize("name", ["log_prob", "encode"])
def test_few_frames_lie_between_a_model_and_its_first_convolution(name, monkeypatch):
    """At most nine of the project's own."""
    model = tfnvp.ImageRealNVP((4, 4, 1), 1, filters=4, residual_blocks=1)
    stacks = []
    call = WeightNormConv2D.call

    def noted(self, x):
        stacks.append([f for f in traceback.extract_stack() if f.filename.startswith(PACKAGE)])
        return call(self, x)

    monkeypatch.setattr(WeightNormConv2D, "call", noted)
    getattr(model, name)(np.zeros((2, 4, 4, 1), "float32"))
    frames = [f"{Path(frame.filename).name}: {frame.name}" for frame in stacks[0]]
    assert frames[0].endswith(f": {name}")
    assert len(frames[1:]) <= 9, frames

"""The examples run as they stand, but for numbers: of epochs, rows and scales."""

import re
from pathlib import Path

import numpy as np
import pytest

import tfnvp

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, **replaced):
    """Runs a program of examples/ and returns its names; patterns are replaced in it before."""
    program = (EXAMPLES / f"{name}.py").read_text()
    for pattern, replacement in replaced.values():
        program, count = re.subn(pattern, replacement, program)
        assert count == 1
    names = {}
    exec(program, names)
    return names


# Two batches and one scale: most of the time goes into graphs.
SHORT = {
    "epochs": (r"epochs=\d+", "epochs=1"),
    "images": (r"(tfnvp\.data\.load\(.*\))", r"\1.take(2)"),
}


@pytest.fixture
def one_scale(monkeypatch):
    preset = tfnvp.presets.get
    monkeypatch.setattr(tfnvp.presets, "get", lambda name: {**preset(name), "num_scales": 1})


@pytest.mark.usefixtures("one_scale")
def test_the_image_model():
    names = run("image_model", **SHORT)
    assert names["dist"].event_shape.as_list() == [8, 8, 1]
    assert np.isfinite(names["dist"].log_prob(names["x"])).all()


def test_the_vector_model():
    rows = (r"make_moons\(10_000", "make_moons(64")
    names = run("vector_model", epochs=SHORT["epochs"], rows=rows)
    assert names["model"].log_prob(names["x"][:5]).shape == (5,)


def test_the_density_of_a_table(monkeypatch):
    monkeypatch.setattr(tfnvp.models.fitting, "default_steps", lambda rows: 30)
    small = (r"FlowDensity\(", "FlowDensity(2, (8,), ")
    names = run("table_density", small=small)
    assert np.isfinite(names["density"].score(names["x"]))


@pytest.mark.usefixtures("one_scale")
def test_the_conditional_model():
    names = run("conditional_model", **SHORT)
    assert names["model"].distribution_for(labels=names["y"]).batch_shape == [64]


def test_your_own_flow_learns():
    names = run("your_own_flow")
    bits = names["model"].history.history["bits_per_dim"]
    # The data's own entropy is near 0.4 bits/dim; a standard normal would pay 2.8.
    assert bits[-1] < 1.5 < bits[0]

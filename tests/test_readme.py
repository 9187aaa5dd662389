"""The README's programs run as they stand, but for numbers: of epochs, rows and scales."""

import re
from pathlib import Path

import numpy as np
import pytest

import tfnvp

README = Path(__file__).parents[1] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def run(monkeypatch):
    """run(program): its names. Two batches, one scale: most of the time goes into graphs."""
    preset = tfnvp.presets.get
    monkeypatch.setattr(tfnvp.presets, "get", lambda name: {**preset(name), "num_scales": 1})

    def run(program):
        names = {}
        program = re.sub(r"epochs=\d+", "epochs=1", program)
        program = program.replace("make_moons(10_000", "make_moons(64")
        exec(re.sub(r"(tfnvp\.data\.load\(.*\))", r"\1.take(2)", program), names)
        return names

    return run


def test_the_image_model(run):
    names = run(PROGRAMS[0])
    assert names["dist"].event_shape.as_list() == [8, 8, 1]
    assert np.isfinite(names["dist"].log_prob(names["x"])).all()


def test_the_vector_model(run):
    names = run(PROGRAMS[1])
    assert names["model"].log_prob(names["x"][:5]).shape == (5,)


def test_the_conditional_model(run):
    names = run(PROGRAMS[2])
    assert names["model"].distribution_for(labels=names["y"]).batch_shape == [64]


def test_your_own_flow_learns():
    names = {}
    exec(PROGRAMS[3], names)
    bits = names["model"].history.history["bits_per_dim"]
    # The data's own entropy is near 0.4 bits/dim; a standard normal would pay 2.8.
    assert bits[-1] < 1.5 < bits[0]


def test_there_is_nothing_else_to_run():
    assert len(PROGRAMS) == 4


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())))
)
def test_what_it_links_to_is_there(path):
    assert (README.parent / path).is_file()

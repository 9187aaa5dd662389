"""The schedule: up, down by a cosine, or level."""

import keras
import numpy as np
import pytest

from train.optimizer import make_optimizer


def rates(optimizer, steps):
    schedule = optimizer._learning_rate
    return np.array([float(schedule(step)) for step in range(steps + 1)])


def test_warms_up_and_falls_to_zero():
    learning_rate = rates(make_optimizer(100, 1e-2, warmup_steps=20), 100)
    assert learning_rate[0] == 0
    assert learning_rate[10] == pytest.approx(5e-3)
    assert learning_rate[20] == pytest.approx(1e-2)
    assert learning_rate[60] == pytest.approx(5e-3)  # half-way down
    assert learning_rate[100] == pytest.approx(0, abs=1e-9)


def test_a_short_run_warms_up_for_a_third_of_it():
    assert np.argmax(rates(make_optimizer(30, 1e-2, warmup_steps=200), 30)) == 10


def test_the_papers_is_level_and_clipped():
    """Section 4.1: Adam with a learning rate of 1e-3; clipped at 100 in the authors' code."""
    optimizer = make_optimizer(100, 1e-3, decay=False)
    assert type(optimizer) is keras.optimizers.Adam
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert optimizer.global_clipnorm == 100


def test_weight_decay_is_adamws():
    optimizer = make_optimizer(100, 1e-3, weight_decay=0.1)
    assert isinstance(optimizer, keras.optimizers.AdamW) and optimizer.weight_decay == 0.1

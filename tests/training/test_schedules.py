"""The schedule: up, down by a cosine, or level."""

import keras
import numpy as np
import pytest

import tfnvp
from tfnvp.training.schedules import make_optimizer


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
    assert type(optimizer) is tfnvp.optimizers.Adam
    assert float(optimizer.learning_rate) == pytest.approx(1e-3)
    assert optimizer.global_clipnorm == 100


def test_weight_decay_is_decoupled():
    """Without a gradient a weight shrinks by the learning rate times the decay."""
    weight = keras.Variable([2.0])
    optimizer = make_optimizer(100, 1e-2, decay=False, weight_decay=0.1)
    optimizer.apply([np.zeros(1, "float32")], [weight])
    assert weight.numpy() == pytest.approx(2 * (1 - 1e-3))


def test_muon_steps_the_kernels_of_conditioners_alone(tiny_model):
    model = tiny_model(mixing=True)
    optimizer = make_optimizer(100, 1e-3, decay=False, muon=True)
    optimizer.build(model.trainable_variables)
    pairs = zip(model.trainable_variables, optimizer.adam_velocities, strict=True)
    by_muon = {variable.path.split("/", 2)[-1] for variable, velocity in pairs if velocity is None}
    inner = ["input_conv", "block0_conv1", "block0_conv2", "skip0", "skip1"]
    assert by_muon == {f"{name}/direction" for name in inner}
    # Its step is as long in every direction of the kernel, whatever the gradient.
    kernel = next(v for v in model.trainable_variables if "block0_conv1/direction" in v.path)
    before = kernel.numpy()
    gradient = np.random.default_rng(0).normal(size=kernel.shape) * [1, 1, 1, 100]
    gradients = [
        np.float32(gradient if v is kernel else np.zeros(v.shape))
        for v in model.trainable_variables
    ]
    optimizer.apply(gradients, model.trainable_variables)
    lengths = np.linalg.svd(before - kernel.numpy(), compute_uv=False)
    assert lengths.max() / lengths.min() < 2

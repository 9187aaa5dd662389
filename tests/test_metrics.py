import numpy as np
import pytest
import tensorflow as tf

from tfnvp import metrics


def test_uniform_noise_costs_its_bits():
    """A uniform density over [0, 1) says nothing of a pixel: all of its bits are needed."""
    assert metrics.bits_per_dim(0.0, event_size=3072, levels=256) == 8
    assert metrics.bits_per_dim(0.0, event_size=64, levels=17) == pytest.approx(np.log2(17))


def test_nats_become_bits_of_each_dimension():
    log_prob = tf.constant([-12 * np.log(2), 0.0, 6 * np.log(2)])
    bits = metrics.bits_per_dim(log_prob, event_size=6)
    np.testing.assert_allclose(bits, [2, 0, -1], rtol=1e-6)


def test_density_of_a_known_discrete_distribution():
    """Levels of probability p have the density p * levels: the bound is the entropy."""
    p = np.array([0.5, 0.25, 0.125, 0.125])
    bits = metrics.bits_per_dim(np.log(p * 4), event_size=1, levels=4)
    assert np.sum(p * bits) == pytest.approx(1.75)


def test_global_mean_without_replicas_is_the_mean():
    assert metrics.global_mean(tf.constant([1.0, 2.0, 6.0])) == 3
    assert metrics.global_mean(tf.zeros([0])) == 0

"""Importance sampling of an unnormalised density: the free energy of a chain of double wells.

Sixteen coupled coordinates, each in one of two wells, have the density exp(-energy(x)) / Z, and Z
is an integral over sixteen dimensions. A flow, trained by reverse KL with no data at all, proposes
samples, and their weights correct what it has not learned ("Boltzmann generators", Noe et al. 2019,
arXiv 1812.01729). The program prints log Z with its standard error and the effective share of the
samples, beside those of a normal distribution of the same mean and covariance; Z is known here, by
a matrix product.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp

tfd = tfp.distributions
SITES, COUPLING = 16, 0.5
keras.utils.set_random_seed(0)


def well(x):
    return 0.5 * (x**2 - 1) ** 2


def energy(x):
    """Energies [...] of chains [..., sites], of which the last neighbours the first."""
    differences = x - tf.roll(x, 1, axis=-1)
    return tf.reduce_sum(well(x) + COUPLING / 2 * differences**2, axis=-1)


# The transfer matrix of a site and the next, on a grid: Z is the trace of its power.
grid = np.linspace(-4, 4, 801)
between = np.exp(-well(grid) / 2 - COUPLING / 2 * (grid[:, None] - grid) ** 2)
transfer = between * np.exp(-well(grid) / 2)[:, None] * (grid[1] - grid[0])
exact = np.log(np.trace(np.linalg.matrix_power(transfer, SITES)))

flow = tfnvp.VectorRealNVP(SITES, num_couplings=8, hidden_units=(64, 64))
steps = 2000
optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps))
optimizer.build(flow.trainable_variables)


@tf.function
def step():
    with tf.GradientTape() as tape:
        x, log_q = flow.distribution.experimental_sample_and_log_prob(256)
        loss = tf.reduce_mean(log_q + energy(x))  # KL(q | p) - log Z
    variables = flow.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return loss


for _ in range(steps):
    step()


def estimate(name, log_weights):
    """Prints log Z by weights p(x) Z / q(x), its standard error, and the effective share."""
    weights = np.exp(log_weights - np.max(log_weights))
    log_z = np.log(weights.mean()) + np.max(log_weights)
    error = weights.std() / weights.mean() / np.sqrt(len(weights))
    share = weights.mean() ** 2 / np.mean(weights**2)
    print(f"{name}: log Z = {log_z:.3f} +- {error:.3f}, effective share {share:.1%}")
    return log_z, error, share


x, log_q = flow.distribution.experimental_sample_and_log_prob(20_000, seed=(0, 1))
by_flow = estimate("flow", np.float64(-energy(x) - log_q))
scale = tf.linalg.cholesky(np.cov(x, rowvar=False).astype("float32"))
normal = tfd.MultivariateNormalTriL(tf.reduce_mean(x, axis=0), scale)
x = normal.sample(20_000, seed=(0, 2))
by_normal = estimate("normal", np.float64(-energy(x) - normal.log_prob(x)))
print(f"exact: log Z = {exact:.3f}")

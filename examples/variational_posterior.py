"""A flow as variational posterior: the dose of a drug at which half of the animals die.

The data are a classic of Bayesian statistics (Racine et al. 1986; Gelman et al., "Bayesian Data
Analysis", section 3.7): of five animals at each of four doses, how many died. The model is
logit P(death) = a + b dose, with a normal prior of (a, b), and the posterior is no Gaussian. A flow
learns it by reverse KL. The program prints the bound on the evidence log p(data), the same by
importance sampling, and means of the posterior, all beside figures of a fine grid, which two
parameters still allow.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp

tfd = tfp.distributions
keras.utils.set_random_seed(0)

dose = tf.constant([-0.86, -0.30, -0.05, 0.73])  # log g/ml
deaths, animals = tf.constant([0.0, 1.0, 3.0, 5.0]), 5.0
prior = tfd.MultivariateNormalDiag([0.0, 10.0], [2.0, 10.0])


def log_joint(parameters):
    """log p(data, a, b), [...], of parameters [..., 2]."""
    a, b = parameters[..., :1], parameters[..., 1:]
    likelihood = tfd.Binomial(animals, logits=a + b * dose)
    return prior.log_prob(parameters) + tf.reduce_sum(likelihood.log_prob(deaths), axis=-1)


posterior = tfnvp.VectorRealNVP(2, num_couplings=4, hidden_units=(32,))
posterior.adapt(prior.sample(10_000, seed=0))  # The flow starts at the prior's mean and spread.
steps = 1500
optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, steps))
optimizer.build(posterior.trainable_variables)


@tf.function
def step():
    with tf.GradientTape() as tape:
        x, log_q = posterior.distribution.experimental_sample_and_log_prob(128)
        loss = tf.reduce_mean(log_q - log_joint(x))  # KL(q | posterior) - log p(data)
    variables = posterior.trainable_variables
    gradients = tape.gradient(loss, [v.value for v in variables])
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return loss


for _ in range(steps):
    step()

x, log_q = posterior.distribution.experimental_sample_and_log_prob(20_000)
log_weights = log_joint(x) - log_q
bound = float(tf.reduce_mean(log_weights))
evidence = float(tf.reduce_logsumexp(log_weights)) - np.log(len(x))
a, b = x[:, 0], x[:, 1]

axes = tf.linspace(-8.0, 12.0, 800), tf.linspace(-20.0, 60.0, 800)
grid = tf.reshape(tf.stack(tf.meshgrid(*axes), axis=-1), [-1, 2])
cell = float((axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0]))
exact_evidence = float(tf.reduce_logsumexp(log_joint(grid))) + np.log(cell)
exact_means = tf.linalg.matvec(grid, tf.nn.softmax(log_joint(grid)), transpose_a=True).numpy()

print(f"log p(data): bound {bound:.3f}, importance-weighted {evidence:.3f}, {exact_evidence:.3f}")
print(f"mean of a {np.mean(a):.2f}, by the grid {exact_means[0]:.2f}")
print(f"mean of b {np.mean(b):.2f}, by the grid {exact_means[1]:.2f}")
print(f"half of the animals die at {np.median(np.exp(-a / b)):.2f} g/ml")

"""Simulation-based inference on two moons: a posterior from simulations alone.

The task is of the benchmark of Lueckmann et al. (arXiv 2101.04653): a simulator turns two
parameters into two numbers, its likelihood is not asked for, and the posterior is a pair of moons.
A conditional flow learns p(parameters | data) of pairs that were simulated ("neural posterior
estimation"), and answers for any data at once. The program prints how well a classifier tells its
samples from the true posterior's, which here can be drawn: 0.5 is not at all, 1 is always; and
writes both to two_moons_posterior.png.
"""

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.model_selection import cross_val_score
from sklearn.neural_network import MLPClassifier

import tfnvp

random = np.random.default_rng(0)
keras.utils.set_random_seed(0)


def noise(n):
    """Points of a thin crescent, [n, 2]."""
    angle, radius = random.uniform(-np.pi / 2, np.pi / 2, n), random.normal(0.1, 0.01, n)
    return np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=-1)


def simulate(parameters):
    """Data [n, 2] of parameters [n, 2]."""
    a, b = parameters.T / np.sqrt(2)
    return noise(len(parameters)) + np.stack([-np.abs(a + b), b - a], axis=-1)


def true_posterior(data, n):
    """Parameters [n, 2] that have led to data [2], drawn exactly: the simulator backwards."""
    shift = data - noise(n)
    sign = random.choice([-1, 1], n)  # |a + b| leaves the sign open.
    a, b = -sign * shift[:, 0] - shift[:, 1], -sign * shift[:, 0] + shift[:, 1]
    return np.stack([a, b], axis=-1) / np.sqrt(2)


simulations, n = 20_000, 2000
parameters = random.uniform(-1, 1, (simulations, 2))  # They are draws of the prior.
data = simulate(parameters)

model = tfnvp.VectorRealNVP(2, num_couplings=8, hidden_units=(64, 64), context_size=2)
model.adapt(parameters)
epochs, batch_size = 60, 256
decay = keras.optimizers.schedules.CosineDecay(2e-3, epochs * len(data) // batch_size)
model.compile(optimizer=keras.optimizers.Adam(decay))
model.fit(parameters, data.astype("float32"), batch_size=batch_size, epochs=epochs, verbose=0)

observed = np.zeros(2, "float32")
learned = model.sample(n, labels=observed, seed=0).numpy()
reference = true_posterior(observed, n)

both = np.concatenate([learned, reference]) / reference.std(axis=0)
which = np.repeat([0, 1], n)
classifier = MLPClassifier((20, 20), max_iter=1000, random_state=0)
accuracy = cross_val_score(classifier, both, which, cv=5, n_jobs=1).mean()
print(f"a classifier is right in {accuracy:.2f} of the cases, and in 0.5 if all is well")

figure = Figure(figsize=(8, 4), layout="constrained")
panels = zip(figure.subplots(1, 2), [learned, reference], ["flow", "truth"], strict=True)
for axes, points, title in panels:
    axes.scatter(*points.T, s=2)
    axes.set(title=title, xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
figure.savefig("two_moons_posterior.png")

"""A density of vectors, of two moons: standardised by the data and trained on it."""

import sklearn.datasets

import tfnvp

x = sklearn.datasets.make_moons(10_000, noise=0.05)[0]
model = tfnvp.VectorRealNVP(2)
model.adapt(x)
model.compile(optimizer="adam")
model.fit(x, epochs=20)
model.log_prob(x)  # nats

"""A flow as prior of a VAE: handwritten digits in eight latents, and what the prior is worth.

Encoder and decoder are two dense networks; a pixel counts 0 to 16 and is binomial. The aggregate of
the encoder's posteriors is no standard normal, and a flow as prior, trained with the rest, follows
it ("Variational Lossy Autoencoder", arXiv 1611.02731). The program trains a VAE with either prior
and prints for each the bound on log p of test images, nats, the higher the better; sixteen samples
of the second go to vae.png.
"""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp

tfd = tfp.distributions
LATENTS, COUNTS = 8, 16.0


class VAE(keras.Model):
    """A variational autoencoder of counts [64] whose prior is any distribution over latents."""

    def __init__(self, prior_flow=None):
        super().__init__()
        # Keras finds the weights of the flow since it is an attribute.
        self.prior_flow = prior_flow
        hidden = {"units": 256, "activation": "relu"}
        layers = keras.layers
        self.encoder = keras.Sequential([layers.Dense(**hidden), layers.Dense(2 * LATENTS)])
        self.decoder = keras.Sequential([layers.Dense(**hidden), layers.Dense(64)])

    def prior(self):
        if self.prior_flow is None:
            return tfd.MultivariateNormalDiag(tf.zeros(LATENTS), tf.ones(LATENTS))
        return self.prior_flow.distribution

    def likelihood(self, z):
        return tfd.Independent(tfd.Binomial(COUNTS, logits=self.decoder(z)), 1)

    def call(self, x):
        """The loss of each image, -log p(x) at most, nats."""
        mean, log_scale = tf.split(self.encoder(x / COUNTS), 2, axis=-1)
        posterior = tfd.MultivariateNormalDiag(mean, tf.exp(log_scale))
        z = posterior.sample()
        kl = posterior.log_prob(z) - self.prior().log_prob(z)
        return kl - self.likelihood(z).log_prob(x)


def counts(split):
    images = np.concatenate(list(tfnvp.data.load("digits", split, batch_size=500)))
    return images.reshape(-1, 64).astype("float32")


def mean_of_losses(_, losses):
    return losses


def bound(model, epochs=100):
    """Trains a model, and gives the bound of the test images."""
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=mean_of_losses)
    # Keras asks for a target, which this loss has no use for.
    x = counts("train")
    model.fit(x, x, batch_size=64, epochs=epochs, verbose=0)
    # Each posterior is sampled ten times, since one sample makes a noisy bound.
    return -float(np.mean(model(np.tile(counts("test"), (10, 1)))))


keras.utils.set_random_seed(0)
print(f"standard normal prior: {(plain := bound(VAE())):.2f} nats")
flow = tfnvp.VectorRealNVP(LATENTS, num_couplings=6, hidden_units=(64,))
print(f"flow as prior: {(learned := bound(model := VAE(flow))):.2f} nats")

samples = model.likelihood(model.prior().sample(16)).mean() / COUNTS
grid = tfnvp.plotting.image_grid(np.reshape(samples, [16, 8, 8, 1]))
tfnvp.plotting.save_png(grid, "vae.png")

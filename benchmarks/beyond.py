"""Steps beyond the paper that `benchmarks.ablation` tries; not yet measured."""

import math

import tensorflow as tf

import tfnvp
from tfnvp.layers import ResidualNetwork, RunningMoments
from tfnvp.layers.running_moments import global_moments
from tfnvp.masks import Checkerboard


class ActivationMoments(RunningMoments):
    """Moments that are learned, from those of the first batch on: activation normalization.

    Source: Glow (Kingma and Dhariwal 2018, arXiv 1807.03039), section 3.1.
    """

    def build(self, x_shape, weights_shape=None):
        super().build(x_shape, weights_shape)
        options = {"initializer": "zeros", "autocast": False}
        self.shift = self.add_weight((x_shape[-1],), name="shift", **options)
        self.log_scale = self.add_weight((x_shape[-1],), name="log_scale", **options)

    def call(self, x, weights=None, training=None):
        if training:
            first = tf.equal(self.batches, 0)
            mean, variance = map(
                tf.stop_gradient, global_moments(tf.cast(x, self.variable_dtype), weights)
            )
            self.mean.assign(tf.where(first, mean, self.mean))
            self.variance.assign(tf.where(first, variance, self.variance))
            self.batches.assign(1.0)
        mean, variance = tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.variance)
        mean += tf.sqrt(variance) * self.shift
        return mean, variance * tf.exp(2 * self.log_scale)


class ActivationNormalized(tfnvp.ImageRealNVP):
    """With activation normalization after each coupling, in place of batch normalization."""

    moments_class = ActivationMoments


class VariationallyDequantized(tfnvp.ImageRealNVP):
    """With noise drawn from a flow that sees the image, in place of uniform noise.

    u = sigmoid(1.7 y), y from normal noise by two checkerboard couplings that see the image too;
    log p(x + u) - log q(u | x) bounds the likelihood. Source: Flow++ (Ho et al. 2019, arXiv
    1902.00275), section 3.1.
    """

    def build_distribution(self):
        channels = self.image_shape[-1]
        self.noise_networks = [
            ResidualNetwork(
                channels, self.filters // 2, 1, checkerboard_parity=parity, dtype=self.dtype_policy
            )
            for parity in (0, 1)
        ]
        for network in self.noise_networks:
            network.build((None, None, None, 2 * channels))
        return super().build_distribution()

    def call(self, x, training=None):
        if not x.dtype.is_integer:
            return super().call(x, training=training)
        shape, dtype = tf.shape(x), self.variable_dtype
        if training:
            seed = self.dequantization._fresh_seed()
            noise = tf.random.stateless_normal(shape, seed, dtype=dtype, alg="philox")
        else:
            noise = tf.random.stateless_normal(shape[1:], [0, 0], dtype=dtype, alg="philox")
            noise = tf.broadcast_to(noise, shape)
        image = 2 * tf.cast(x, dtype) / self.levels - 1
        y, log_q = noise, -0.5 * (tf.square(noise) + math.log(2 * math.pi))
        for parity, network in enumerate(self.noise_networks):
            stays = Checkerboard(parity).stays(y)
            outputs = network(tf.concat([stays * y, image], axis=-1), training=training)
            log_scale, shift = tf.split((1 - stays) * outputs, 2, axis=-1)
            y = y * tf.exp(log_scale) + shift
            log_q -= log_scale
        y *= 1.7  # a logistic's noise, whose sigmoid is uniform, is about that much wider
        log_q -= math.log(1.7) - tf.math.softplus(y) - tf.math.softplus(-y)
        continuous = (tf.cast(x, dtype) + tf.sigmoid(y)) / self.levels
        return self.distribution.log_prob(continuous) - tf.reduce_sum(log_q, axis=[1, 2, 3])


def refresh_moments(model, images, batches=60):
    """Batch normalizations' averages anew, of the weights that the model has now."""

    @tf.function(reduce_retracing=True)
    def look(x):
        model(x, training=True)

    for x in images.take(batches):
        look(x)

"""A flow of your own: couplings and one of TFP's bijectors in a chain, trained by `FlowModel`."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

import tfnvp

tfb, tfd = tfp.bijectors, tfp.distributions


def coupling(parity):
    network = keras.Sequential([keras.layers.Dense(64, "relu"), keras.layers.Dense(2, "tanh")])
    return tfnvp.bijectors.AffineCoupling(tfnvp.masks.ChannelHalves(parity, event_ndims=1), network)


flow = tfb.Chain([tfb.Shift([1.0, -1.0]), coupling(0), coupling(1), coupling(0)])
model = tfnvp.FlowModel(tfd.TransformedDistribution(tfd.MultivariateNormalDiag([0.0, 0.0]), flow))
model.compile(optimizer=keras.optimizers.Adam(1e-2))

x = tf.random.normal([1024, 2])
model.fit(tf.stack([x[:, 0], x[:, 0] ** 2 + 0.1 * x[:, 1]], axis=-1), epochs=10)
model.distribution.log_prob([[0.0, 0.0]])

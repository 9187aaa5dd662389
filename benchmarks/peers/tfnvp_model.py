"""tfnvp itself, as its users run it."""

import numpy as np

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import tensorflow as tf


class Contender:
    """The model of tfnvp, behind the methods that `benchmarks.throughput` runs."""

    def __init__(self, architecture, options):
        if options.threads:
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        self.model = self.make_model(architecture, options)
        optimizer = tfnvp.optimizers.Adam(1e-3, global_clipnorm=100.0)
        self.model.compile(optimizer=optimizer, jit_compile=options.xla)
        self.parameters = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)
        self._data, self._batches = options.data, None

    def make_model(self, architecture, options):
        """The model to be measured."""
        return tfnvp.ImageRealNVP(**architecture, dtype=options.policy, remat=options.remat)

    def prepare(self, images):
        """Converts the images to what the methods below take."""
        return tf.constant(images)

    def train_step(self, images):
        """Takes a step as `fit` does; returns the loss."""
        if self._batches is None:
            batches = tf.data.Dataset.from_tensors(images)
            if self._data:
                batches = tfnvp.data.load(self._data, "train", len(images), flip=True)
            self._batches = iter(batches.repeat())
            self.model.make_train_function()
        return float(self.model.train_function(self._batches)["loss"])

    def log_prob(self, images):
        """Log-densities, an array."""
        return self.model.log_prob(images).numpy()

    def sample(self, images):
        """Draws as many samples as there are images, an array."""
        return self.model.sample(len(images)).numpy()

"""tfnvp as it is served: the signatures of an export."""

import tempfile

import numpy as np

import tfnvp  # isort: skip  (keeps TensorFlow quiet)
import tensorflow as tf

from benchmarks.peers import tfnvp_model


class Contender(tfnvp_model.Contender):
    """An export of tfnvp's model, called as a server calls it."""

    def __init__(self, architecture, options):
        super().__init__(architecture, options)
        with tempfile.TemporaryDirectory() as directory:
            path = tfnvp.export_saved_model(self.model, directory, ["log_prob", "sample"])
            self._served = tf.saved_model.load(str(path))

    def log_prob(self, images):
        """Log-densities, an array."""
        return self._served.signatures["log_prob"](images=images)["log_prob"].numpy()

    def sample(self, images):
        """Draws as many samples as there are images, an array of uint8."""
        count = len(images)
        seeds, temperature = np.arange(count), np.ones(count, "float32")
        drawn = self._served.signatures["sample"](
            seed=tf.constant(seeds, tf.int64), temperature=tf.constant(temperature)
        )
        return drawn["images"].numpy()

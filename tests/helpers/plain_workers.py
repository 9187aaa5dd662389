"""Workers that train Keras models without what tfnvp mends, for processes of their own."""

import keras
import numpy as np
import tensorflow as tf


class Plain(keras.Model):
    """A model with a step of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        """Multiplies."""
        return self.dense(x)

    def train_step(self, data):
        """Computes a loss."""
        return {"loss": tf.reduce_mean(self(data))}


class Built(Plain):
    """The same, which builds itself where Keras would build it from a batch."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        self.build((None, 1))


def main():
    """Prints of each whether it trains."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    images = tf.data.Dataset.from_tensor_slices(np.ones([4, 1], "float32")).batch(2)
    for kind in (Plain, Built):
        with strategy.scope():
            model = kind()
            model.compile(optimizer="sgd")
        try:
            model.fit(images, verbose=0)
            print(kind.__name__, "trains")
        except Exception:
            print(kind.__name__, "fails")

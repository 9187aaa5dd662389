"""Keras' `fit` under MultiWorkerMirroredStrategy, which Keras 3.15 breaks in two places.

Both are in https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py
and nothing else here depends on them. `tests/train/test_multi_worker.py` fails on the day that
Keras mends them: this file can go then.
"""

import tensorflow as tf


class MultiWorkerFit:
    """Mixed into a `keras.Model`: `fit` and `evaluate` under MultiWorkerMirroredStrategy."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would call the model on a batch of the data, which is then missing from the first
        # epoch, in a way that fails where it lies on several workers. A flow builds itself.
        with self.distribute_strategy.scope():
            self.build()

    def for_keras(self, metrics):
        """What a step returns: metrics, a dictionary of scalars, as Keras can reduce them."""
        # Keras takes the mean of each over an axis, which scalars do not have.
        if not isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return metrics
        return {name: tf.reshape(value, [1]) for name, value in metrics.items()}

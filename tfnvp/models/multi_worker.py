"""Keras' `fit` under MultiWorkerMirroredStrategy, which Keras 3.15 breaks in two places.

Both are in https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py
and nothing else here depends on them. `tests/test_multi_worker.py` fails on the day that Keras
mends them: this file can go then.
"""

import tensorflow as tf


class MultiWorkerFit:
    """Mixed into a `keras.Model`: `fit` and `evaluate` under MultiWorkerMirroredStrategy."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would take a batch from the data, which is then missing from the first epoch, and
        # looks at it in a way that fails where it lies on several workers.
        if not self._of_several_workers():
            return super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
        with self.distribute_strategy.scope():
            self.build()
        return None

    def for_keras(self, metrics):
        """What a step returns: metrics, a dictionary of scalars, as Keras can reduce them."""
        # Keras takes the mean of each over an axis, which scalars do not have.
        if not self._of_several_workers():
            return metrics
        return {name: tf.reshape(value, [1]) for name, value in metrics.items()}

    def _of_several_workers(self):
        return isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)

"""All that tfnvp uses of Keras beyond its public interface: what to look at when Keras changes."""

import tensorflow as tf

from tfnvp.graph import replicas


class MultiWorkerFit:
    """Mixed into a `keras.Model`: `fit` and `evaluate` under MultiWorkerMirroredStrategy.

    Keras 3.15 breaks them in two places, both in
    https://github.com/keras-team/keras/blob/v3.15.1/keras/src/backend/tensorflow/trainer.py
    `tests/train/test_multi_worker.py` fails on the day that Keras mends them: this can go then.
    """

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


class SummedGradients:
    """Mixed into a Keras optimizer: gradients are summed over replicas, and then clipped.

    Keras clips the gradients of each replica, and then sums them.
    """

    def apply(self, grads, trainable_variables=None):
        """As Keras has it: takes a step."""
        given = [tf.convert_to_tensor(gradient) for gradient in grads if gradient is not None]
        sums = iter(replicas.sum_over(given))
        grads = [None if gradient is None else next(sums) for gradient in grads]
        super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return list(grads_and_vars)


def with_inner_layers(layer):
    """A layer and all layers within it, at any depth."""
    return layer._flatten_layers()


def slot_index(optimizer, variable):
    """Place of a variable among those that an optimizer was built for, and so of its slots."""
    return optimizer._get_variable_index(variable)


def trained_variables(optimizer):
    """The Keras variables that an optimizer was built for, in the order of its slots."""
    return optimizer._trainable_variables

"""L2 penalties, summed together."""

import contextlib
import threading

import keras
import tensorflow as tf

from tfnvp.graph.replicas import SharedFunction


@keras.saving.register_keras_serializable(package="tfnvp")
class L2(keras.regularizers.L2):
    """Keras' L2, l2 * sum(x ** 2), that many small variables can have in few operations.

    Args:
        l2: the coefficient.

    Example:
        >>> import tensorflow as tf
        >>> from tfnvp.layers.l2 import L2, summed
        >>> with summed() as penalties:
        ...     _ = [L2(0.5)(tf.constant([1.0, 2.0])), L2(0.5)(tf.constant([3.0]))]
        >>> [float(penalty) for penalty in penalties]
        [7.0]
    """

    def __call__(self, x):
        if (seen := getattr(_local, "seen", None)) is None:
            return super().__call__(x)
        seen.setdefault(self.l2, []).append(tf.convert_to_tensor(x))
        return None


@contextlib.contextmanager
def summed():
    """Within this context L2s give None; after it, the list that it gave has their sums."""
    before, _local.seen = getattr(_local, "seen", None), {}
    sums = []
    try:
        yield sums
        sums += [l2 * sum_of_squares(tensors) for l2, tensors in _local.seen.items()]
    finally:
        _local.seen = before


@SharedFunction
def sum_of_squares(tensors):
    """Of all values of a list of tensors of a dtype: a scalar."""
    return 2 * tf.add_n([tf.nn.l2_loss(tensor) for tensor in tensors])


_local = threading.local()

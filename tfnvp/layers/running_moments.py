"""Running means and variances, the state of every batch normalization here."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfnvp")
class RunningMoments(keras.layers.Layer):
    """Mean and variance of each channel, averaged over recent batches.

    In training a call returns the moments of the batch, with gradients through them, and takes them
    into the averages; in inference it returns the averages (0 and 1 before any training). After t
    batches the averages give the batch i the weight momentum^(t - i), normalised to sum to one:
    they are right from the first batch on, with no start value to forget, so that validation is as
    good as training from the first epoch. Under a distribution strategy the moments are those of
    the global batch.

    Args:
        momentum: in [0, 1): averages reach over about 1 / (1 - momentum) batches.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [..., C], not cast to the policy's compute dtype: statistics are kept in full precision.
        weights: None, or a tensor of zeros and ones that broadcasts to x without its channels
            (last axis 1): moments are taken of the ones alone.
        training: as in Keras.

    Returns:
        mean [C] and variance [C], in the layer's variable dtype.

    Raises:
        ValueError: if momentum is outside [0, 1).

    Source: Real NVP (arXiv 1605.08803), section 3.7, which normalises by the averages in training
    too, and does not say their momentum. The batch's own moments were chosen by validation: on
    CIFAR-10 they train faster.
    """

    def __init__(self, momentum=0.9, **kwargs):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got momentum={momentum!r}")
        super().__init__(autocast=False, **kwargs)
        self.momentum = momentum

    def build(self, x_shape, weights_shape=None):
        channels = x_shape[-1]
        options = {"trainable": False, "autocast": False, "aggregation": "only_first_replica"}
        self.mean = self.add_weight((channels,), "zeros", name="mean", **options)
        self.variance = self.add_weight((channels,), "ones", name="variance", **options)
        self.batches = self.add_weight((), "zeros", name="batches", **options)

    def call(self, x, weights=None, training=None):
        if not training:
            return tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.variance)
        mean, variance = global_moments(tf.cast(x, self.variable_dtype), weights)
        self.update(mean, variance)
        return mean, variance

    def update(self, mean, variance):
        """Takes a batch's moments, [C] each, into the averages."""
        # In few operations: there are hundreds of these in a model.
        batches = self.momentum * tf.convert_to_tensor(self.batches) + 1
        self.batches.assign(batches)
        for average, value in ((self.mean, mean), (self.variance, variance)):
            before = tf.convert_to_tensor(average)
            average.assign(before + (value - before) / batches)

    def get_config(self):
        config = super().get_config()
        config.pop("autocast", None)
        return {**config, "momentum": self.momentum}


def global_moments(x, weights=None):
    """Mean and variance of each channel over the batch, and over all replicas' batches.

    Args:
        x: [..., C].
        weights: None, or zeros and ones that broadcast to [..., 1].

    Returns:
        mean [C], variance [C].
    """
    axes = list(range(x.shape.rank - 1))
    ones = tf.ones_like(x[..., :1])
    weights = ones if weights is None else ones * tf.cast(weights, x.dtype)
    count = _over_replicas(tf.reduce_sum(weights))
    # No rows at all (an empty last batch on every replica) must not divide zero by zero.
    count = tf.maximum(count, 1)
    mean = _over_replicas(tf.reduce_sum(weights * x, axes)) / count
    squares = weights * tf.math.squared_difference(x, mean)
    return mean, _over_replicas(tf.reduce_sum(squares, axes)) / count


def _over_replicas(value):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

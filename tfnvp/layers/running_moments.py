"""Running means and variances, the state of every batch normalization here."""

import keras
import tensorflow as tf

from tfnvp import replicas


@keras.saving.register_keras_serializable(package="tfnvp")
class RunningMoments(keras.layers.Layer):
    """Mean and variance of each channel, averaged over recent batches.

    In training a call returns the moments of the batch, with gradients through them, and takes them
    into the averages; in inference it returns the averages (0 and 1 before any training). After t
    batches the averages give the batch i the weight momentum^(t - i), normalised to sum to one:
    they are right from the first batch on, with no start value to forget, so that validation is as
    good as training from the first epoch.

    Args:
        momentum: in [0, 1): averages reach over about 1 / (1 - momentum) batches.
        synchronized: whether, under a distribution strategy, the moments are those of the batches
            of all replicas, as those of one device would be; each replica's own if not.
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

    def __init__(self, momentum=0.9, synchronized=True, **kwargs):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got momentum={momentum!r}")
        super().__init__(autocast=False, **kwargs)
        self.momentum = momentum
        self.synchronized = synchronized

    def build(self, x_shape, weights_shape=None):
        channels = x_shape[-1]
        # What is the same on all replicas need not be averaged over them.
        aggregation = "only_first_replica" if self.synchronized else "mean"
        options = {"trainable": False, "autocast": False, "aggregation": aggregation}
        self.mean = self.add_weight((channels,), "zeros", name="mean", **options)
        self.variance = self.add_weight((channels,), "ones", name="variance", **options)
        self.batches = self.add_weight((), "zeros", name="batches", **options)

    def call(self, x, weights=None, training=None):
        if not training:
            return tf.convert_to_tensor(self.mean), tf.convert_to_tensor(self.variance)
        mean, variance = self.of_batch(tf.cast(x, self.variable_dtype), weights)
        self.update(mean, variance)
        return mean, variance

    def update(self, mean, variance):
        """Takes a batch's moments, [C] each, into the averages."""
        # In few operations: there are hundreds of these in a model.
        batches = self.momentum * tf.convert_to_tensor(self.batches) + 1
        self.batches.assign(batches)
        share = 1 / batches
        if not self.synchronized:
            share *= replicas.rows_count(share.dtype)
        for average, value in ((self.mean, mean), (self.variance, variance)):
            before = tf.convert_to_tensor(average)
            average.assign(before + (value - before) * share)

    def of_batch(self, x, weights=None):
        """Mean [C] and variance [C] of the batch; arguments as those of a call."""
        axes = list(range(x.shape.rank - 1))
        if weights is None:
            count = tf.cast(tf.size(x), x.dtype) / x.shape[-1]
        else:
            weights = tf.ones_like(x[..., :1]) * tf.cast(weights, x.dtype)
            count = tf.reduce_sum(weights)
        # No rows at all must not divide zero by zero.
        divisor = tf.maximum(count, 1)
        mean = tf.reduce_sum(x if weights is None else weights * x, axes) / divisor
        squares = tf.math.squared_difference(x, mean)
        squares = squares if weights is None else weights * squares
        variance = tf.reduce_sum(squares, axes) / divisor
        if self.meets_replicas():
            _, mean, variance = over_replicas(count, mean, variance)
        return mean, variance

    def meets_replicas(self):
        """Whether the moments here and now are those of several replicas' batches."""
        return self.synchronized and replicas.several() is not None

    def get_config(self):
        config = super().get_config()
        config.pop("autocast", None)
        return {**config, "momentum": self.momentum, "synchronized": self.synchronized}


def over_replicas(count, mean, variance):
    """Count, mean [C] and variance [C] over all replicas from those of each one's values."""
    context = replicas.several()
    count *= replicas.rows_count(count.dtype)
    # A row for each replica, in which the others have zeros: one exchange, where sums of values
    # and then of squares about their mean would take two.
    place = tf.one_hot(
        context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=mean.dtype
    )
    rows = tf.concat([tf.reshape(count, [1]), mean, variance], axis=0)
    rows = replicas.sum_over(place[:, tf.newaxis] * rows)
    channels = mean.shape[0]
    counts, means, variances = tf.split(rows, [1, channels, channels], axis=1)
    # No rows on any replica must not divide zero by zero.
    count = tf.maximum(tf.reduce_sum(counts), 1)
    mean = tf.reduce_sum(counts * means, axis=0) / count
    variances += tf.math.squared_difference(means, mean)
    return count, mean, tf.reduce_sum(counts * variances, axis=0) / count

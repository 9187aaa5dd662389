"""Running means and variances, the state of every batch normalization here."""

import keras
import numpy as np
import tensorflow as tf

from tfnvp.graph import replicas
from tfnvp.shapes import over_event


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
        weights: None, or zeros and ones that broadcast to an event without its channels, [..., 1]:
            moments are taken of the ones alone.
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
        # One variable, since there are hundreds of these in a model: means, variances, and the
        # weight of the batches that these are over.
        self.averages = self.add_weight(
            (2 * channels + 1,),
            _before_any_batch,
            trainable=False,
            autocast=False,
            # What is the same on all replicas need not be averaged over them.
            aggregation="only_first_replica" if self.synchronized else "mean",
            name="averages",
        )

    @property
    def mean(self):
        """[C], the average of means."""
        return _apart(tf.convert_to_tensor(self.averages))[0]

    @property
    def variance(self):
        """[C], the average of variances."""
        return _apart(tf.convert_to_tensor(self.averages))[1]

    @property
    def batches(self):
        """The sum of momentum ** age over the batches so far."""
        return tf.convert_to_tensor(self.averages)[-1]

    def call(self, x, weights=None, training=None):
        averages = tf.convert_to_tensor(self.averages)
        if not training:
            mean, variance, _ = _apart(averages)
            return mean, variance
        x = tf.cast(x, self.variable_dtype)
        moments, after = _of_batch_and_after(x, weights, averages, self.momentum, self.synchronized)
        replicas.assign(self.averages, after)
        return moments

    def update(self, mean, variance):
        """Takes a batch's moments, [C] each, into the averages."""
        averages = tf.convert_to_tensor(self.averages)
        after = _after(averages, mean, variance, self.momentum, self.synchronized)
        replicas.assign(self.averages, after)

    def of_batch(self, x, weights=None):
        """Mean [C] and variance [C] of the batch; arguments as those of a call."""
        return _of_batch(x, weights, self.synchronized)

    def meets_replicas(self):
        """Whether the moments here and now are those of several replicas' batches."""
        return self.synchronized and replicas.several() is not None

    def save_own_variables(self, store):
        """As Keras has it: means, variances and batches."""
        for i, part in enumerate((self.mean, self.variance, self.batches)):
            store[str(i)] = part.numpy()

    def load_own_variables(self, store):
        """As Keras has it."""
        self.averages.assign(np.concatenate([np.ravel(store[str(i)]) for i in range(3)]))

    def get_config(self):
        config = super().get_config()
        config.pop("autocast", None)
        return {**config, "momentum": self.momentum, "synchronized": self.synchronized}


@replicas.SharedFunction
def _of_batch_and_after(x, weights, averages, momentum, synchronized):
    """The moments of a batch, and the averages that they are taken into."""
    moments = _of_batch(x, weights, synchronized)
    return moments, _after(averages, *moments, momentum, synchronized)


def _of_batch(x, weights, synchronized):
    # Of an event, [..., 1]: which positions count.
    weights = over_event(tf.ones([], x.dtype) if weights is None else weights, x[..., :1])
    weights = tf.cast(weights, x.dtype)
    count = tf.cast(tf.shape(x)[0], x.dtype) * tf.reduce_sum(weights)
    mean, variance = _mean_and_variance(x, weights, count)
    if synchronized and replicas.several() is not None:
        _, mean, variance = over_replicas(count, mean, variance)
    return mean, variance


@tf.custom_gradient
def _mean_and_variance(x, weights, count):
    # No rows at all must not divide zero by zero.
    weights /= tf.maximum(count, 1)

    # Over events first: TensorFlow is slow at sums that leave few channels.
    def average(values):
        values = weights * tf.reduce_sum(values, axis=0)
        return tf.reduce_sum(values, axis=list(range(values.shape.rank - 1)))

    mean = average(x)
    centred = x - over_event(mean, x)

    # In a third of the operations that autodiff makes of it.
    def gradient(to_mean, to_variance):
        return centred * (2 * weights * to_variance) + weights * to_mean, None, None

    return (mean, average(tf.square(centred))), gradient


def _after(averages, mean, variance, momentum, synchronized):
    """The averages after a batch of these moments."""
    # In few operations: there are hundreds of these in a model.
    *_, batches = _apart(averages)
    batches = momentum * batches + 1
    share = 1 / batches
    if not synchronized:
        share *= replicas.rows_count(share.dtype)
    moments = averages[:-1]
    moments += (tf.concat([mean, variance], axis=0) - moments) * share
    return tf.stop_gradient(tf.concat([moments, batches], axis=0))


def _before_any_batch(shape, dtype):
    channels = shape[0] // 2
    return tf.constant(channels * [0] + channels * [1] + [0], dtype)


def _apart(averages):
    """Means [C], variances [C], and the weight of batches [1]."""
    channels = averages.shape[0] // 2
    return tf.split(averages, [channels, channels, 1])


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
    shares = counts / count
    mean = tf.reduce_sum(shares * means, axis=0)
    variances += tf.math.squared_difference(means, mean)
    return count, mean, tf.reduce_sum(shares * variances, axis=0)

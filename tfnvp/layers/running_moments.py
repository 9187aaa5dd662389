"""Running means and variances, the state of every batch normalization here."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnvp.checks import check_share
from tfnvp.configured_layer import UncastLayer
from tfnvp.graph import replicas
from tfnvp.shapes import over_event


@keras.saving.register_keras_serializable(package="tfnvp")
class RunningMoments(UncastLayer):
    """Mean and variance of each channel, averaged over recent batches.

    In training a call returns the moments of the batch, with gradients through them, and takes them
    into the averages; in inference it returns the averages (0 and 1 before any training). After t
    batches the averages give the batch i the weight momentum^(t - i), normalised to sum to one:
    there is no start value to forget. They lag behind weights that change fast, and
    `FlowModel.refresh_moments` takes them anew.

    Rows that have weights, as `tfnvp.graph.replicas.weighing_rows` gives them, count by these: two
    of a row are a row of weight 2, and one of weight 0 is left out.

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

    def __init__(self, momentum: float = 0.9, synchronized: bool = True, **kwargs: Any) -> None:
        check_share("momentum", momentum)
        super().__init__(**kwargs)
        self.momentum = momentum
        self.synchronized = synchronized

    def build(self, x_shape: tuple, weights_shape: tuple | None = None) -> None:
        channels = x_shape[-1]
        # Means, variances and the weight of the batches behind them are one variable, since
        # there are hundreds of these layers in a model and each variable takes its time.
        self.averages = self.add_weight(
            (2 * channels + 1,),
            lambda shape, dtype: tf.constant(channels * [0] + channels * [1] + [0], dtype),
            trainable=False,
            autocast=False,
            # All replicas have the same averages, which then need not be averaged over them.
            aggregation="only_first_replica" if self.synchronized else "mean",
            name="averages",
        )

    @property
    def mean(self) -> tf.Tensor:
        """[C], the average of means."""
        return self._parts()[0]

    @property
    def variance(self) -> tf.Tensor:
        """[C], the average of variances."""
        return self._parts()[1]

    @property
    def batches(self) -> tf.Tensor:
        """The sum of momentum ** age over the batches so far."""
        return tf.convert_to_tensor(self.averages)[-1]

    def _parts(self) -> list[tf.Tensor]:
        channels = self.averages.shape[0] // 2
        return tf.split(tf.convert_to_tensor(self.averages), [channels, channels, 1])

    def call(
        self, x: tf.Tensor, weights: tf.Tensor | None = None, training: bool | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not training:
            return self.mean, self.variance
        count, mean, variance = self.of_batch(tf.cast(x, self.variable_dtype), weights)
        self.update(count, mean, variance)
        return mean, variance

    def of_batch(
        self, x: tf.Tensor, weights: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Computes the moments of a batch; arguments as those of a call.

        Returns:
            The count, or weight, of the values of a channel, a scalar; the mean [C] and the
            variance [C], 0 and 1 of rows that all have the weight 0.
        """
        weights = tf.ones([], x.dtype) if weights is None else tf.cast(weights, x.dtype)
        weights = over_event(weights, x[..., :1])
        rows = replicas.row_weights(x.dtype)
        of_each = rows is not None and rows.shape.rank == 1
        total = tf.reduce_sum(rows) if of_each else tf.cast(tf.shape(x)[0], x.dtype)
        if of_each:
            rows = tf.reshape(rows, [-1, *[1] * (x.shape.rank - 1)])
        count = total * tf.reduce_sum(weights)
        # A batch of no rows must not divide zero by zero.
        weights = tf.math.divide_no_nan(weights, count)

        # We sum over the batch first: TensorFlow is slow at sums that leave few channels.
        def average(values: tf.Tensor) -> tf.Tensor:
            values = weights * tf.reduce_sum(rows * values if of_each else values, axis=0)
            return tf.reduce_sum(values, axis=list(range(values.shape.rank - 1)))

        mean = average(x)
        variance = average(tf.square(x - over_event(mean, x)))
        if rows is not None and not of_each:
            count *= rows
        if self.meets_replicas():
            return over_replicas(count, mean, variance)
        return count, mean, _or_one(variance, count)

    def update(self, count: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Takes a batch's moments, as `of_batch` gives them, into the averages."""
        averages = tf.convert_to_tensor(self.averages)
        batches = self.momentum * averages[-1:] + 1
        share = 1 / batches
        if replicas.row_weights(share.dtype) is not None:
            # A batch of which no row counts leaves the averages as they are.
            batches = tf.where(count > 0, batches, averages[-1:])
            share = tf.where(count > 0, share, 0)
        moments = averages[:-1]
        moments += (tf.concat([mean, variance], axis=0) - moments) * share
        self.averages.assign(tf.stop_gradient(tf.concat([moments, batches], axis=0)))

    def weigh_all_alike(self, batches: int | tf.Tensor) -> None:
        """Has the next batch count as much as each of those before it, which were so many.

        An update multiplies the weight of the averages, the number of batches behind them, by the
        momentum and adds 1.
        """
        averages = tf.convert_to_tensor(self.averages)
        # Averages of momentum 0 are of the last batch alone.
        inverse = 1 / self.momentum if self.momentum else 0.0
        weight = inverse * tf.cast(tf.reshape(batches, [1]), averages.dtype)
        self.averages.assign(tf.concat([averages[:-1], weight], axis=0))

    def meets_replicas(self) -> bool:
        """Tells whether the moments here and now are those of several replicas' batches."""
        return self.synchronized and replicas.replica_context() is not None

    def save_own_variables(self, store: dict) -> None:
        """Writes means, variances and batches apart."""
        for i, part in enumerate((self.mean, self.variance, self.batches)):
            store[str(i)] = part.numpy()

    def load_own_variables(self, store: dict) -> None:
        """Reads means, variances and batches."""
        self.averages.assign(np.concatenate([np.ravel(store[str(i)]) for i in range(3)]))


def over_replicas(
    count: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes count, mean [C] and variance [C] over all replicas from those of each one."""
    context = replicas.replica_context()
    # Each replica fills a row, in which the others have zeros: that takes one exchange, where sums
    # of values and then of squares about their mean would take two.
    place = tf.one_hot(
        context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=mean.dtype
    )
    row = tf.concat([tf.reshape(count, [1]), mean, variance], axis=0)
    rows = replicas.sum_over(place[:, tf.newaxis] * row)
    channels = mean.shape[0]
    counts, means, variances = tf.split(rows, [1, channels, channels], axis=1)
    count = tf.reduce_sum(counts)
    shares = tf.math.divide_no_nan(counts, count)
    mean = tf.reduce_sum(shares * means, axis=0)
    variances += tf.math.squared_difference(means, mean)
    return count, mean, _or_one(tf.reduce_sum(shares * variances, axis=0), count)


def _or_one(variance: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Gives 1 as the variance of no rows, so that rows of weight 0 are not divided by zero."""
    return (
        variance if replicas.row_weights(count.dtype) is None else tf.where(count > 0, variance, 1)
    )

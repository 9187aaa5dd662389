"""Batch normalization as a layer of the flow."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.graph.replicas import SharedFunction, no_constant
from tfnvp.layers.running_moments import RunningMoments
from tfnvp.masks import ChannelHalves, Checkerboard
from tfnvp.shapes import over_event


class BatchNormalization(FlowBijector):
    """Normalises the changed part of an event by statistics of its channels.

    With m, v the mean and variance of a channel, data to latents is, where x changes,

        inverse(x) = (x - m) / sqrt(v + epsilon),
        log |det| = -1/2 log(v + epsilon), summed over the changed positions.

    In training, which Keras' call context decides, `inverse` uses the moments of the batch, with
    gradients through them, and takes them into running averages; these are used in inference, and
    always by `forward`. Source: Real NVP (arXiv 1605.08803), section 3.7; `RunningMoments` says
    where it departs from it.

    Args:
        mask: the partition of the coupling before: statistics are taken of the part that it
            changes, and only that part is normalised. None: of the whole image.
        moments: the `tfnvp.layers.RunningMoments` that holds the statistics; None makes one.
        epsilon: added to the variance.
        validate_args: nothing to check here; as TFP has it.
        name: of the bijector.

    Raises:
        TypeError: if mask is no partition.
        ValueError: if epsilon is not positive.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> normalization = tfnvp.bijectors.BatchNormalization(tfnvp.masks.Checkerboard(0))
        >>> normalization.inverse(tf.ones([2, 4, 4, 3])).shape.as_list()
        [2, 4, 4, 3]
    """

    def __init__(
        self,
        mask=None,
        moments=None,
        epsilon=1e-4,
        validate_args=False,
        name="batch_normalization",
    ):
        if mask is not None and not isinstance(mask, (Checkerboard, ChannelHalves)):
            raise TypeError(
                "mask must be None, or a tfnvp.masks.Checkerboard or ChannelHalves, got "
                f"mask={mask!r}"
            )
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive, got epsilon={epsilon!r}")
        # Before `parameters` is taken: a copy shares the statistics.
        moments = RunningMoments() if moments is None else moments
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self._mask = mask
            self._moments = moments
            self._epsilon = epsilon
            event_ndims = 3 if mask is None else mask.event_ndims
            super().__init__(event_ndims, parameters, validate_args=validate_args, name=name)

    @property
    def mask(self):
        """The partition whose changed part is normalised."""
        return self._mask

    @property
    def moments(self):
        """The Keras layer that holds the running statistics."""
        return self._moments

    @property
    def epsilon(self):
        """What is added to the variance."""
        return self._epsilon

    def _inverse_and_log_det(self, x):
        changes, where, merge = self._split(x)
        mean, variance = self.moments(changes, where)
        changed, log_det = _inverse(
            changes, where, mean, variance, self.epsilon, self.forward_min_event_ndims
        )
        return merge(changed), log_det

    def _forward_and_log_det(self, z):
        changes, where, merge = self._split(z)
        # `forward` undoes the inference-mode inverse, in whatever mode Keras is.
        moments = self.moments(changes, where, training=False)
        changed, log_det = _forward(
            changes, where, *moments, self.epsilon, self.forward_min_event_ndims
        )
        return merge(changed), log_det

    def _split(self, x):
        """What changes, where in it (None: everywhere), and how to join it to what stays."""
        if isinstance(self.mask, ChannelHalves):
            stays, changes = self.mask.split(x)
            return changes, None, lambda changed: self.mask.merge(stays, changed)
        where = None if self.mask is None else no_constant(1 - self.mask.stays(x))
        return x, where, lambda changed: changed


@SharedFunction
def _inverse(changes, where, mean, variance, epsilon, event_ndims):
    """What is normalised, and the log-det."""
    mean, log_scale = _of_event(changes, where, mean, variance, epsilon, event_ndims)
    return (changes - mean) * tf.exp(log_scale), tf.reduce_sum(log_scale)


@SharedFunction
def _forward(changes, where, mean, variance, epsilon, event_ndims):
    """The reverse, and its log-det."""
    mean, log_scale = _of_event(changes, where, mean, variance, epsilon, event_ndims)
    return changes * tf.exp(-log_scale) + mean, -tf.reduce_sum(log_scale)


def _of_event(changes, where, mean, variance, epsilon, event_ndims):
    """Mean and log-scale of each value of an event, [..., C], zero where nothing changes."""
    mean = tf.cast(mean, changes.dtype)
    log_scale = -0.5 * tf.math.log(tf.cast(variance, changes.dtype) + epsilon)
    both = (over_event(channels, changes, event_ndims) for channels in (mean, log_scale))
    return [channels if where is None else where * channels for channels in both]

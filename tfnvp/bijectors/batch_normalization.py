"""Batch normalization as a layer of the flow."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.graph.internals import in_training
from tfnvp.layers.running_moments import RunningMoments
from tfnvp.masks import Merge, Partition
from tfnvp.shapes import over_event


class BatchNormalization(FlowBijector):
    """Normalises the changed part of an event by statistics of its channels.

    With m, v the mean and variance of a channel, data to latents is, where x changes,

        inverse(x) = (x - m) / sqrt(v + epsilon),
        log |det| = -1/2 log(v + epsilon), summed over the changed positions.

    In training, which Keras' call context decides, `inverse` uses the moments of the batch, with
    gradients through them, and takes them into running averages; these are used in inference, and
    always by `forward`. In training a density therefore needs both results of one inverse pass, as
    `tfnvp.FlowDistribution` takes them; a plain `tfd.TransformedDistribution` would ask the forward
    direction for the log-det, and is refused. Source: Real NVP (arXiv 1605.08803), section 3.7;
    `RunningMoments` says where it departs from it.

    Args:
        mask: the partition of the coupling before: statistics are taken of the part that it
            changes, and only that part is normalised. None normalises the whole image.
        moments: the `tfnvp.layers.RunningMoments` that holds the statistics; None makes one.
        epsilon: added to the variance.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Raises:
        TypeError: if mask is no partition.
        ValueError: if epsilon is not positive; in training, for a log-det of the forward direction
            alone.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> normalization = tfnvp.bijectors.BatchNormalization(tfnvp.masks.Checkerboard(0))
        >>> normalization.inverse(tf.ones([2, 4, 4, 3])).shape.as_list()
        [2, 4, 4, 3]
    """

    def __init__(
        self,
        mask: Partition | None = None,
        moments: RunningMoments | None = None,
        epsilon: float = 1e-4,
        validate_args: bool = False,
        name: str = "batch_normalization",
    ) -> None:
        if not isinstance(mask, Partition | None):
            raise TypeError(
                "mask must be None, or a tfnvp.masks.Checkerboard or ChannelHalves, got "
                f"mask={mask!r}"
            )
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive, got epsilon={epsilon!r}")
        # The layer is created before arguments are captured, so that `copy()` reuses it.
        moments = RunningMoments() if moments is None else moments
        super().__init__(3 if mask is None else mask.event_ndims, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        changes, indicator, merge = self._split(x)
        mean, log_scale = self._over_event(changes, indicator, *self.moments(changes, indicator))
        return merge((changes - mean) * tf.exp(log_scale)), tf.reduce_sum(log_scale)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        changes, indicator, merge = self._split(z)
        # `forward` undoes the inference-mode inverse, in whatever mode Keras is.
        moments = self.moments(changes, indicator, training=False)
        mean, log_scale = self._over_event(changes, indicator, *moments)
        return merge(changes * tf.exp(-log_scale) + mean), -tf.reduce_sum(log_scale)

    def check_forward_log_det(self) -> None:
        """Raises a ValueError in training, where `inverse` alone normalises by the batch."""
        if in_training():
            raise ValueError(
                f"{self.name}: in training the log-det comes with the latents from the batch: use "
                "tfnvp.FlowDistribution, or FlowModel, in place of tfd.TransformedDistribution"
            )

    def _split(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None, Merge]:
        """Gives what is normalised, where in it, and how to join it to what stays."""
        if self.mask is None:
            return x, None, lambda changed: changed
        _, changes, merge = self.mask.split(x)
        return changes, self.mask.changing(changes), merge

    def _over_event(
        self, changes: tf.Tensor, indicator: tf.Tensor | None, mean: tf.Tensor, variance: tf.Tensor
    ) -> list[tf.Tensor]:
        """Spreads mean and log-scale [C] over an event, [..., C], zero where nothing changes."""
        log_scale = -0.5 * tf.math.log(tf.cast(variance, changes.dtype) + self.epsilon)
        event_ndims = self.forward_min_event_ndims
        both = (
            over_event(channels, changes, event_ndims)
            for channels in (tf.cast(mean, changes.dtype), log_scale)
        )
        return [channels if indicator is None else indicator * channels for channels in both]

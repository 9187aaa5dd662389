"""Values far out drawn in, so that heavy tails do not rule the training."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector


class LogTails(FlowBijector):
    """Takes the logarithm of what vectors have beyond a bound, value by value.

    Data to latents is, with e = max(|x| - bound, 0),

        inverse(x) = x where |x| <= bound, else sign(x) (bound + log(1 + e)),
        log |det| = -sum of log(1 + e),

    of slope one at the bound. A normal density of such latents falls like a power of x far out and
    no faster: a value of a thousand standard deviations costs tens of nats and not 500,000.

    Args:
        bound: up to where values stay, in units of the vectors, above 0.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Raises:
        ValueError: if bound is not above 0.

    Example:
        >>> import tfnvp
        >>> near, far = tfnvp.bijectors.LogTails(3.0).inverse([2.0, -1000.0])
        >>> round(float(near), 3), round(float(far), 3)
        (2.0, -9.906)
    """

    def __init__(
        self, bound: float = 3.0, validate_args: bool = False, name: str = "log_tails"
    ) -> None:
        if not bound > 0:
            raise ValueError(f"bound must be above 0, got bound={bound!r}")
        super().__init__(1, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.abs(x)
        log = tf.math.log1p(tf.nn.relu(size - self.bound))
        return tf.sign(x) * (tf.minimum(size, self.bound) + log), -tf.reduce_sum(log, axis=-1)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size = tf.abs(z)
        log = tf.nn.relu(size - self.bound)
        far = tf.minimum(size, self.bound) + tf.math.expm1(log)
        return tf.sign(z) * far, tf.reduce_sum(log, axis=-1)

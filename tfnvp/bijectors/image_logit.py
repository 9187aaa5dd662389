"""Pixel intensities to the real line."""

import math

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector


class ImageLogit(FlowBijector):
    """The logit of pixel intensities drawn away from 0 and 1.

    Data (intensities x) to latents, elementwise:

        inverse(x) = log p - log(1 - p),    p = alpha + (1 - 2 alpha) x,
        log |det| = log(1 - 2 alpha) - log p - log(1 - p).

    `forward` is onto (-a, 1 + a), a = alpha / (1 - 2 alpha): a little wider than the pixels' range.
    Beyond it there is no density: the log-det is -inf there, and the latent that of the range's
    nearest end, so that neither a value nor a gradient is NaN.
    Source: Real NVP (arXiv 1605.08803), section 4.1; 1 - 2 alpha as in the authors' published code
    (the text has 1 - alpha, which would map a white pixel to infinity).

    Args:
        alpha: in [0, 0.5); with 0, black and white pixels are mapped to infinity.
        validate_args: whether to check at run time that data lies within the range.
        name: of the bijector.

    Raises:
        ValueError: if alpha is outside [0, 0.5).

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> float(tfnvp.bijectors.ImageLogit().inverse(tf.constant(0.5)))
        0.0
    """

    tames_data = True

    def __init__(
        self, alpha: float = 0.05, validate_args: bool = False, name: str = "image_logit"
    ) -> None:
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha must be in [0, 0.5), got alpha={alpha!r}")
        super().__init__(0, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inside = self.contains(x)
        if self.validate_args:
            low, high = self.range
            message = f"{self.name}: data must lie within ({low:g}, {high:g})"
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(inside), [message])]):
                x = tf.identity(x)
        p = self.alpha + (1 - 2 * self.alpha) * x
        # Rounding makes the ends samples too; p is kept away from 0 and 1, so that its logit is
        # finite.
        rounding = _epsilon(x.dtype) if self.alpha else 0.0
        p = tf.clip_by_value(p, self.alpha * rounding, 1 - rounding)
        log_p, log_q = tf.math.log(p), tf.math.log1p(-p)
        log_det = math.log1p(-2 * self.alpha) - log_p - log_q
        return log_p - log_q, tf.where(inside, log_det, tf.constant(-math.inf, x.dtype))

    def _forward_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = (tf.sigmoid(y) - self.alpha) / (1 - 2 * self.alpha)
        log_det = -tf.math.softplus(y) - tf.math.softplus(-y) - math.log1p(-2 * self.alpha)
        return x, log_det

    @property
    def range(self) -> tuple[float, float]:
        """The ends of the interval that `forward` maps to."""
        margin = self.alpha / (1 - 2 * self.alpha)
        return -margin, 1 + margin

    def contains(self, x: tf.Tensor) -> tf.Tensor:
        """Tells, elementwise, whether data is within the range, but for rounding."""
        low, high = self.range
        rounding = 4 * _epsilon(x.dtype) if self.alpha else 0.0
        # NaN is not within the range.
        return (x >= low - rounding) & (x <= high + rounding)


def _epsilon(dtype: tf.DType) -> float:
    """The distance from 1 to the next larger number."""
    return float(tf.experimental.numpy.finfo(dtype.as_numpy_dtype).eps)

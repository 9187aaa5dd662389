"""Pixel intensities by how common they are."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.layers.intensity_histogram import IntensityHistogram


class Equalization(FlowBijector):
    """Maps pixel intensities through their distribution function: equalizes their histogram.

    Of a drawing most pixels have the intensity of the ground, and dequantised they are uniform over
    a 256th of the range, which affine maps of one pixel given others leave uniform, 0.25 bits from
    the nearest Gaussian. Equalized they are as wide as their share of the pixels, and the logit
    that follows bends all but their ends. Data (intensities x in [0, 1]) to latents, elementwise,
    with masses m_k that add up to one over K cells of equal width:

        inverse(x) = sum of m_j over j < k, + m_k (K x - k),    k = floor(K x),
        log |det| = log(K m_k).

    Outside [0, 1] it is the identity.

    Args:
        histogram: the `tfnvp.layers.IntensityHistogram` that holds the masses; None makes one.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> histogram = tfnvp.layers.IntensityHistogram(cells=2, spread=0.1)
        >>> equalization = tfnvp.bijectors.Equalization(histogram)
        >>> _ = equalization.inverse(tf.zeros([1]))
        >>> histogram.take([17, 1])
        >>> equalization.inverse([0.25, 0.5, 1.5]).numpy()
        array([0.45, 0.9 , 1.5 ], dtype=float32)
    """

    def __init__(
        self,
        histogram: IntensityHistogram | None = None,
        validate_args: bool = False,
        name: str = "equalization",
    ) -> None:
        # The layer is created before arguments are captured, so that `copy()` reuses it.
        histogram = IntensityHistogram() if histogram is None else histogram
        super().__init__(0, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        masses, below = self._masses(x)
        cells = masses.shape[0]
        index = tf.cast(tf.clip_by_value(tf.floor(x * cells), 0, cells - 1), tf.int32)
        mass = tf.gather(masses, index)
        y = tf.gather(below, index) + mass * (x * cells - tf.cast(index, x.dtype))
        inside = (x >= 0) & (x <= 1)
        return tf.where(inside, y, x), tf.where(inside, tf.math.log(mass * cells), 0.0)

    def _forward_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        masses, below = self._masses(y)
        cells = masses.shape[0]
        index = tf.searchsorted(below, tf.reshape(y, [-1]), side="right") - 1
        index = tf.reshape(tf.maximum(index, 0), tf.shape(y))
        mass = tf.gather(masses, index)
        x = (tf.cast(index, y.dtype) + (y - tf.gather(below, index)) / mass) / cells
        inside = (y >= 0) & (y <= 1)
        return tf.where(inside, x, y), tf.where(inside, -tf.math.log(mass * cells), 0.0)

    def _masses(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        masses = tf.cast(self.histogram(x), x.dtype)
        return masses, tf.cumsum(masses, exclusive=True)

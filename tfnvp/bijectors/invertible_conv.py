"""The invertible 1x1 convolution, which mixes the channels of each pixel."""

import math

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.layers.invertible_matrix import InvertibleMatrix
from tfnvp.shapes import sizes


class InvertibleConv1x1(FlowBijector):
    """Multiplies the channels of every pixel, or a vector, by one invertible matrix W.

    Data to latents is, for each pixel's row vector of channels,

        inverse(x) = x W,    log |det| = H W log |det W|.

    A checkerboard changes all channels of a pixel at once, and channel halves never meet within
    their half: the matrix lets a pixel's own channels be told from each other. Of vectors it turns
    the axes on which couplings act. Source: Glow (Kingma
    and Dhariwal 2018, arXiv 1807.03039), section 3.2.

    Args:
        matrix: the `tfnvp.layers.InvertibleMatrix` that holds W; None makes one.
        event_ndims: 3 for images [..., H, W, C], 1 for vectors [..., C].
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> mixing = tfnvp.bijectors.InvertibleConv1x1()
        >>> mixing.inverse(tf.ones([2, 4, 4, 3])).shape.as_list()
        [2, 4, 4, 3]
    """

    def __init__(
        self,
        matrix: InvertibleMatrix | None = None,
        event_ndims: int = 3,
        validate_args: bool = False,
        name: str = "invertible_conv_1x1",
    ) -> None:
        # The layer is created before arguments are captured, so that `copy()` reuses it.
        matrix = InvertibleMatrix() if matrix is None else matrix
        super().__init__(event_ndims, dict(locals()))

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        lower, upper, log_det, order = self._factors(x)
        matrix = tf.linalg.matmul(lower, upper)
        if order is not None:
            matrix = tf.gather(matrix, order)
        return _times(x, matrix), log_det

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        lower, upper, log_det, order = self._factors(z)
        identity = tf.eye(z.shape[-1], dtype=z.dtype)
        inverse = tf.linalg.triangular_solve(
            upper, tf.linalg.triangular_solve(lower, identity), lower=False
        )
        if order is not None:
            inverse = tf.gather(inverse, order, axis=1)
        return _times(z, inverse), -log_det

    def _factors(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Gives L, U, the log-det of all pixels, and the order of P."""
        *factors, order = self.matrix(x)
        lower, upper, log_det = (tf.cast(value, x.dtype) for value in factors)
        pixels = math.prod(sizes(x)[-self.event_ndims : -1])
        return lower, upper, log_det * tf.cast(pixels, x.dtype), order


def _times(x: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    # We multiply two matrices, since TensorFlow's product of batches would copy W for each.
    return tf.reshape(tf.linalg.matmul(tf.reshape(x, [-1, x.shape[-1]]), matrix), tf.shape(x))

"""A shift that depends on a context alone: the mean of a conditional base distribution."""

from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.types import TensorLike


class ContextShift(FlowBijector):
    """Shifts events by a function t of a context y, the same for all but the last axis.

        forward(z) = z + t(y),    log |det| = 0,

    so that a base distribution of mean 0 has the mean t(y).

    Args:
        layer: a Keras layer from contexts [N, K] to shifts [N, C], C the size of the events' last
            axis: channels [H, W, C] or dimensions [D].
        context: a float tensor [..., K]: the map is a batch of maps of batch shape `...`, which
            broadcasts with that of the events.
        event_ndims: the rank of the events.
        validate_args: for TFP; there is nothing to check.
        name: of the bijector.

    Example:
        >>> import keras, tensorflow as tf, tfnvp
        >>> layer = keras.layers.Dense(2, kernel_initializer="ones")
        >>> shift = tfnvp.bijectors.ContextShift(layer, tf.ones([3, 4]), event_ndims=1)
        >>> shift.forward(tf.zeros([3, 2])).numpy().tolist()
        [[4.0, 4.0], [4.0, 4.0], [4.0, 4.0]]
    """

    def __init__(
        self,
        layer: keras.Layer,
        context: TensorLike,
        event_ndims: int,
        validate_args: bool = False,
        name: str = "context_shift",
    ) -> None:
        context = tf.convert_to_tensor(context)
        super().__init__(event_ndims, dict(locals()), is_constant_jacobian=True)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return z + self._shift(z.dtype), tf.zeros([], z.dtype)

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return x - self._shift(x.dtype), tf.zeros([], x.dtype)

    def _shift(self, dtype: tf.DType) -> tf.Tensor:
        # Layers take batches, and a context may be alone: it becomes a batch of one.
        shift = tf.convert_to_tensor(self.layer(self.context[tf.newaxis])[0])
        for _ in range(self.event_ndims - 1):
            shift = shift[..., tf.newaxis, :]
        return tf.cast(shift, dtype)

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType) -> dict[str, Any]:
        return {"context": tfp.util.ParameterProperties(event_ndims=1)}

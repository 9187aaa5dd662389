"""A shift that depends on a context alone: the mean of a conditional base distribution."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector


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
        validate_args: nothing to check here; as TFP has it.
        name: of the bijector.

    Example:
        >>> import keras, tensorflow as tf, tfnvp
        >>> layer = keras.layers.Dense(2, kernel_initializer="ones")
        >>> shift = tfnvp.bijectors.ContextShift(layer, tf.ones([3, 4]), event_ndims=1)
        >>> shift.forward(tf.zeros([3, 2])).numpy().tolist()
        [[4.0, 4.0], [4.0, 4.0], [4.0, 4.0]]
    """

    def __init__(self, layer, context, event_ndims, validate_args=False, name="context_shift"):
        context = tf.convert_to_tensor(context)
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self._layer = layer
            self._context = context
            self._event_ndims = event_ndims
            super().__init__(
                event_ndims,
                parameters,
                validate_args=validate_args,
                is_constant_jacobian=True,
                name=name,
            )

    @property
    def layer(self):
        """The Keras layer that makes a shift of a context."""
        return self._layer

    @property
    def context(self):
        """What the shift depends on."""
        return self._context

    @property
    def event_ndims(self):
        """The rank of the events."""
        return self._event_ndims

    def _forward_and_log_det(self, z):
        return z + self._shift(z.dtype), tf.zeros([], z.dtype)

    def _inverse_and_log_det(self, x):
        return x - self._shift(x.dtype), tf.zeros([], x.dtype)

    def _shift(self, dtype):
        # Layers take batches: here of one, for a context may be alone.
        shift = tf.convert_to_tensor(self._layer(self._context[tf.newaxis])[0])
        for _ in range(self._event_ndims - 1):
            shift = shift[..., tf.newaxis, :]
        return tf.cast(shift, dtype)

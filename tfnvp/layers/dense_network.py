"""The conditioner of vector models."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfnvp.checks import check_share, checked_spline_bins
from tfnvp.configured_layer import ConfiguredLayer
from tfnvp.layers.bounded_log_scale import BoundedLogScale, bounded, outputs_per_channel
from tfnvp.seeds import fresh_seed, random_bytes


@keras.saving.register_keras_serializable(package="tfnvp")
class DenseNetwork(ConfiguredLayer):
    """The multilayer perceptron that gives a vector coupling its log-scales and shifts.

    Log-scales are a learned scale times a tanh. At the start the output is zero, and the coupling
    the identity. A context is concatenated to the input; a network takes one if it was built with
    one.

    Args:
        channels: the number of log-scales, and again of shifts: what the coupling changes.
        hidden_units: sizes of the hidden layers.
        activation: the activation of the hidden layers.
        dropout: probability with which training leaves out each hidden unit, in [0, 1), to
            a 256th.
        seed: the seed of the initial weights and of the dropout; None draws one.
        spline_bins: K, bins of the splines of a `SplineCoupling`; 0 for an `AffineCoupling`.
        **kwargs: further arguments of `keras.layers.Layer`.

    Call arguments:
        x: [N, D]. context: [N, K], or None. training: as in Keras.

    Returns:
        [N, 2 * channels], log-scales and then shifts, and with splines (3K - 1) * channels more,
        see `SplineCoupling`; in the layer's variable dtype.

    Raises:
        ValueError: if dropout is not in [0, 1), or spline_bins neither 0 nor 2 to 200.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> tfnvp.layers.DenseNetwork(channels=1, hidden_units=[32, 32])(tf.ones([5, 1])).shape
        TensorShape([5, 2])
    """

    def __init__(
        self,
        channels: int,
        hidden_units: Sequence[int],
        activation: str | Callable = "relu",
        dropout: float = 0.0,
        seed: int | None = None,
        spline_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        check_share("dropout", dropout)
        super().__init__(**kwargs)
        self.channels = channels
        self.hidden_units = list(hidden_units)
        self.activation = keras.activations.get(activation)
        self.dropout = dropout
        self.seed = seed
        self.spline_bins = checked_spline_bins(spline_bins)
        self._outputs = outputs_per_channel(self.spline_bins) * channels
        self.hidden = [
            keras.layers.Dense(
                units,
                self.activation,
                kernel_initializer=keras.initializers.GlorotUniform(
                    None if seed is None else seed + i
                ),
                dtype=self.dtype_policy,
                name=f"hidden{i}",
            )
            for i, units in enumerate(self.hidden_units)
        ]
        if dropout:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.output_layer = keras.layers.Dense(
            self._outputs, kernel_initializer="zeros", dtype=self.dtype_policy, name="output"
        )
        self.log_scale = BoundedLogScale(dtype=self.variable_dtype, name="log_scale")

    def build(self, x_shape: tuple, context_shape: tuple | None = None) -> None:
        context_size = 0 if context_shape is None else context_shape[-1]
        input_shape = (*x_shape[:-1], x_shape[-1] + context_size)
        for layer in [*self.hidden, self.output_layer]:
            layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.log_scale.build((*x_shape[:-1], 2 * self.channels))

    def call(
        self, x: tf.Tensor, context: tf.Tensor | None = None, training: bool | None = None
    ) -> tf.Tensor:
        if context is not None:
            x = tf.concat([x, context], axis=-1)
        thins = training and self.dropout and self.hidden
        factors = self._thinning(tf.shape(x)[0]) if thins else [1] * len(self.hidden)
        for layer, factor in zip(self.hidden, factors, strict=True):
            x = layer(x) * factor if thins else layer(x)
        outputs = tf.cast(self.output_layer(x), self.variable_dtype)
        return bounded(self.log_scale, outputs, self.channels)

    def _thinning(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """Draws, for each hidden layer, zeros that leave out units and factors that keep the mean.

        They differ from replica to replica.
        """
        # One draw for all layers, of a byte for each unit: floats would take as long as the rest.
        left_out = round(256 * self.dropout)
        shape = tf.stack([rows, sum(self.hidden_units)])
        kept = random_bytes(shape, fresh_seed(self.seed_generator)) >= left_out
        factors = tf.cast(kept, self.compute_dtype) / (1 - left_out / 256)
        return tf.split(factors, self.hidden_units, axis=-1)

    def compute_output_shape(self, x_shape: tuple, context_shape: tuple | None = None) -> tuple:
        return (*x_shape[:-1], self._outputs)

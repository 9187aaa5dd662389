"""The conditioner of the image model."""

from typing import Any

import keras
import tensorflow as tf

from tfnvp.checks import checked_spline_bins
from tfnvp.graph.concatenation import concatenate
from tfnvp.graph.pure_layer import PureLayer
from tfnvp.graph.replicas import hide_from_constant_folding
from tfnvp.layers.bounded_log_scale import BoundedLogScale, bounded, outputs_per_channel
from tfnvp.layers.fused_batch_normalization import FusedBatchNormalization
from tfnvp.layers.weight_norm_conv2d import WeightNormConv2D
from tfnvp.masks import checkerboard
from tfnvp.shapes import sizes


@keras.saving.register_keras_serializable(package="tfnvp")
class L2(keras.regularizers.L2):
    """Keras' L2 penalty, factor * sum(x^2), in fewer operations: a model has hundreds of them."""

    def __call__(self, x: keras.Variable | tf.Tensor) -> tf.Tensor:
        return 2 * float(self.l2) * tf.nn.l2_loss(tf.convert_to_tensor(x))


@keras.saving.register_keras_serializable(package="tfnvp")
class ResidualNetwork(PureLayer):
    """The residual network that gives an image coupling its log-scales and shifts.

    The input is batch-normalised, doubled where it came under a checkerboard (half of it is zeros),
    concatenated with its negation and with the mask, and rectified; a 3x3 convolution leads to
    residual blocks (batch normalization, ReLU, 3x3, batch normalization, ReLU, 3x3); a 1x1
    convolution of the features before each block and after the last are summed; batch
    normalization, ReLU and a 1x1 convolution end it. All convolutions are weight-normalised, and
    the last alone has a bias: batch normalization, which follows all others, would take it away.
    Log-scales are a learned scale times a tanh. At the start the output is zero, and the coupling
    the identity. Source: Real NVP (arXiv 1605.08803), section 4.1, and the authors' code.

    A context, beyond the paper, shifts the features before the blocks and within each, between its
    convolutions, by linear functions of it. A network takes one if it was built with one.

    Args:
        channels: the channels of log-scales, and again of shifts: what the coupling changes.
        filters: the number of features inside.
        blocks: the number of residual blocks.
        checkerboard_parity: the parity of the checkerboard under which the input came, None for
            channel halves.
        momentum: the memory of the batch normalizations' averages, see `RunningMoments`.
        scale_l2: the L2 coefficient on the lengths of the weight-normalised kernels.
        synchronized: whether the batches of all replicas are normalised as one, under a strategy.
        spline_bins: K, bins of the splines of a `SplineCoupling`; 0 for an `AffineCoupling`.
        **kwargs: further arguments of `PureLayer`: `remat`, `traces`, and those of
            `keras.layers.Layer`.

    Call arguments:
        x: [N, H, W, C]. context: [N, K], or None. training: as in Keras.

    Returns:
        [N, H, W, 2 * channels], log-scales and then shifts, and with splines (3K - 1) * channels
        more, see `SplineCoupling`; in the layer's variable dtype whatever the policy's compute
        dtype.

    Raises:
        ValueError: if blocks is negative, or spline_bins neither 0 nor 2 to 200.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        blocks: int,
        checkerboard_parity: int | None = None,
        momentum: float = 0.9,
        scale_l2: float = 5e-5,
        synchronized: bool = True,
        spline_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        if not isinstance(blocks, int) or blocks < 0:
            raise ValueError(f"blocks must be an integer of 0 or more, got blocks={blocks!r}")
        super().__init__(**kwargs)
        self.channels = channels
        self.filters = filters
        self.blocks = blocks
        self.checkerboard_parity = checkerboard_parity
        self.momentum = momentum
        self.scale_l2 = scale_l2
        self.synchronized = synchronized
        self.spline_bins = checked_spline_bins(spline_bins)
        self._outputs = outputs_per_channel(self.spline_bins) * channels

        def norm(name: str, **options: Any) -> FusedBatchNormalization:
            options = {"synchronized": synchronized, "dtype": self.dtype_policy, **options}
            return FusedBatchNormalization(momentum, name=name, **options)

        def conv(name: str, filters: int, size: int, **options: Any) -> WeightNormConv2D:
            options = {"use_bias": False, "dtype": self.dtype_policy, **options}
            if options.get("use_scale", True):
                options["scale_regularizer"] = L2(scale_l2)
            return WeightNormConv2D(filters, size, name=name, **options)

        self.input_norm = norm("input_norm", affine=False, dtype=self.variable_dtype)
        self.input_conv = conv("input_conv", filters, 3)
        # The list is flat: Keras before 3.15 does not save layers that sit in lists of lists.
        self.block_layers = [
            layer
            for i in range(blocks)
            for layer in (
                norm(f"block{i}_norm1"),
                conv(f"block{i}_conv1", filters, 3, use_scale=False),
                norm(f"block{i}_norm2"),
                conv(f"block{i}_conv2", filters, 3),
            )
        ]
        self.skips = [conv(f"skip{i}", filters, 1) for i in range(blocks + 1)]
        self.output_norm = norm("output_norm")
        self.output_conv = conv(
            "output_conv", self._outputs, 1, use_bias=True, scale_initializer="zeros"
        )
        self.context_shifts = [
            keras.layers.Dense(
                filters, use_bias=False, dtype=self.dtype_policy, name=f"context_shift{i}"
            )
            for i in range(blocks + 1)
        ]
        self.log_scale = BoundedLogScale(
            regularizer=L2(scale_l2), dtype=self.variable_dtype, name="log_scale"
        )

    def build(self, x_shape: tuple, context_shape: tuple | None = None) -> None:
        features = (*x_shape[:-1], self.filters)
        self.input_norm.build(x_shape)
        mask_channels = 0 if self.checkerboard_parity is None else 1
        self.input_conv.build((*x_shape[:-1], 2 * x_shape[-1] + mask_channels))
        for layer in [*self.block_layers, *self.skips, self.output_norm, self.output_conv]:
            layer.build(features)
        self.log_scale.build((*x_shape[:-1], 2 * self.channels))
        if context_shape is not None:
            for layer in self.context_shifts:
                layer.build(context_shape)

    def constants(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives the mask [H, W, 1] under which the input came, if it did."""
        if self.checkerboard_parity is None:
            return {}
        _, height, width, _ = sizes(x)
        mask = checkerboard(height, width, self.checkerboard_parity, self.variable_dtype)
        return {"mask": hide_from_constant_folding(mask)}

    def shared_config(self) -> dict[str, Any]:
        """Gives the configuration without the parity: both checkerboards share a trace."""
        masked = self.checkerboard_parity is not None
        return {**super().shared_config(), "checkerboard_parity": masked}

    def compute(
        self,
        x: tf.Tensor,
        context: tf.Tensor | None = None,
        training: bool = False,
        mask: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Computes log-scales and shifts, see `PureLayer`."""
        shifts = [layer(context) for layer in self.context_shifts if context is not None]

        def shifted(features: tf.Tensor, i: int) -> tf.Tensor:
            return features if context is None else features + shifts[i][:, None, None, :]

        x = self._with_negation(self.input_norm(x, training=training), mask)
        h = shifted(self.input_conv(tf.nn.relu(x)), 0)
        skipped = [self.skips[0](h)]
        for i in range(self.blocks):
            norm1, conv1, norm2, conv2 = self.block_layers[4 * i : 4 * i + 4]
            r = tf.nn.relu(norm1(h, training=training))
            if context is None:
                r = norm2.after(conv1, r, training)
            else:
                r = norm2(shifted(conv1(r), i + 1), training=training)
            h += conv2(tf.nn.relu(r))
            skipped.append(self.skips[i + 1](h))
        total = tf.add_n(skipped)
        outputs = self.output_conv(tf.nn.relu(self.output_norm(total, training=training)))
        outputs = tf.cast(outputs, self.variable_dtype)
        return bounded(self.log_scale, outputs, self.channels)

    def _with_negation(self, x: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """Concatenates the normalised input, its negation and the mask, where there is one."""
        if mask is None:
            return concatenate(x, -x)
        # Half of what came under a checkerboard is zeros.
        mask = tf.broadcast_to(mask, [*sizes(x)[:-1], 1])
        return concatenate(2 * x, -2 * x, mask)

    def compute_output_shape(self, x_shape: tuple, context_shape: tuple | None = None) -> tuple:
        return (*x_shape[:-1], self._outputs)

"""The conditioner of the image model."""

import keras
import tensorflow as tf

from tfnvp.graph.pure_layer import PureLayer
from tfnvp.graph.replicas import no_constant
from tfnvp.layers.bounded_log_scale import BoundedLogScale
from tfnvp.layers.fused_batch_normalization import FusedBatchNormalization
from tfnvp.layers.l2 import L2
from tfnvp.layers.weight_norm_conv2d import WeightNormConv2D
from tfnvp.masks import checkerboard
from tfnvp.shapes import sizes


@keras.saving.register_keras_serializable(package="tfnvp")
class ResidualNetwork(PureLayer):
    """The residual network that gives an image coupling its log-scales and shifts.

    The input is batch-normalised, doubled where it came under a checkerboard (half of it is zeros),
    concatenated with its negation and with the mask, and rectified; a 3x3 convolution leads to
    residual blocks (batch normalization, ReLU, 3x3, batch normalization, ReLU, 3x3); a 1x1
    convolution of the features before each block and after the last are summed; batch
    normalization, ReLU and a 1x1 convolution end it. All convolutions are weight-normalised.
    Log-scales are a learned scale times a tanh. At the start the output is zero, and the coupling
    the identity. Source: Real NVP (arXiv 1605.08803), section 4.1, and the authors' code.

    A context, beyond the paper, shifts the features before the blocks and within each, between its
    convolutions, by linear functions of it. A network takes one if it was built with one.

    Args:
        channels: of the log-scales, and again of the shifts: what the coupling changes.
        filters: features inside.
        blocks: residual blocks.
        checkerboard_parity: parity of the checkerboard under which the input came, None for
            channel halves.
        momentum: of the batch normalizations' averages, see `RunningMoments`.
        scale_l2: L2 coefficient on the lengths of the weight-normalised kernels.
        synchronized: whether the batches of all replicas are normalised as one, under a strategy.
        **kwargs: further arguments of `PureLayer`: `remat`, and those of `keras.layers.Layer`.

    Call arguments:
        x: [N, H, W, C]. context: [N, K], or None. training: as in Keras.

    Returns:
        [N, H, W, 2 * channels], log-scales and then shifts, in the layer's variable dtype whatever
        the policy's compute dtype.

    Raises:
        ValueError: if blocks is negative.
    """

    def __init__(
        self,
        channels,
        filters,
        blocks,
        checkerboard_parity=None,
        momentum=0.9,
        scale_l2=5e-5,
        synchronized=True,
        **kwargs,
    ):
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

        def norm(name, **options):
            options = {"synchronized": synchronized, "dtype": self.dtype_policy, **options}
            return FusedBatchNormalization(momentum, name=name, **options)

        def conv(name, filters, size, **options):
            if options.get("use_scale", True):
                options["scale_regularizer"] = L2(scale_l2)
            return WeightNormConv2D(filters, size, dtype=self.dtype_policy, name=name, **options)

        before_norm = {"use_bias": False, "use_scale": False}
        self.input_norm = norm("input_norm", affine=False, dtype=self.variable_dtype)
        self.input_conv = conv("input_conv", filters, 3)
        self.block_layers = [
            [
                norm(f"block{i}_norm1"),
                conv(f"block{i}_conv1", filters, 3, **before_norm),
                norm(f"block{i}_norm2"),
                conv(f"block{i}_conv2", filters, 3),
            ]
            for i in range(blocks)
        ]
        self.skips = [conv(f"skip{i}", filters, 1) for i in range(blocks + 1)]
        self.output_norm = norm("output_norm")
        self.output_conv = conv("output_conv", 2 * channels, 1, scale_initializer="zeros")
        self.context_shifts = [
            keras.layers.Dense(
                filters, use_bias=False, dtype=self.dtype_policy, name=f"context_shift{i}"
            )
            for i in range(blocks + 1)
        ]
        self.log_scale = BoundedLogScale(
            regularizer=L2(scale_l2), dtype=self.variable_dtype, name="log_scale"
        )

    def build(self, x_shape, context_shape=None):
        features = (*x_shape[:-1], self.filters)
        self.input_norm.build(x_shape)
        mask_channels = 0 if self.checkerboard_parity is None else 1
        self.input_conv.build((*x_shape[:-1], 2 * x_shape[-1] + mask_channels))
        inner = [layer for block in self.block_layers for layer in block]
        for layer in [*inner, *self.skips, self.output_norm, self.output_conv]:
            layer.build(features)
        self.log_scale.build((*x_shape[:-1], 2 * self.channels))
        if context_shape is not None:
            for layer in self.context_shifts:
                layer.build(context_shape)

    def constants(self, x):
        """The mask [H, W, 1] under which the input came, if it did."""
        if self.checkerboard_parity is None:
            return {}
        _, height, width, _ = sizes(x)
        mask = checkerboard(height, width, self.checkerboard_parity, self.variable_dtype)
        return {"mask": no_constant(mask)}

    def shared_config(self):
        """As of `PureLayer`, but for which of the two checkerboards it is."""
        masked = self.checkerboard_parity is not None
        return {**super().shared_config(), "checkerboard_parity": masked}

    def compute(self, x, context=None, training=False, mask=None):
        """Log-scales and shifts, see `PureLayer`."""

        def shifted(features, i):
            if context is None:
                return features
            return features + self.context_shifts[i](context)[:, tf.newaxis, tf.newaxis, :]

        # Features h, and their sum, stand without the biases, which are the same for all pixels:
        # batch normalizations, to which alone they matter, are told of them.
        biases = self._biases(training)
        h = self._with_negation(self.input_norm(x, training=training), mask)
        h = tf.cast(tf.nn.relu(h), self.compute_dtype)
        h = shifted(self.input_conv.convolve(h, self.input_conv.kernel()), 0)
        level = next(biases)
        total, total_level = self._skip(0, h, level, next(biases))
        for i, (norm1, conv1, norm2, conv2) in enumerate(self.block_layers, start=1):
            r = tf.nn.relu(norm1(h, level, training=training))
            if training or context is not None:
                r = norm2(shifted(conv1(r), i), training=training)
            else:
                # One operation, since both are linear.
                scale, offset = norm2.as_affine()
                r = conv1.convolve(r, conv1.kernel() * scale)
                r = tf.nn.bias_add(r, tf.cast(offset, r.dtype))
            h += conv2.convolve(tf.nn.relu(r), conv2.kernel())
            level += next(biases)
            skipped, skipped_level = self._skip(i, h, level, next(biases))
            total += skipped
            total_level += skipped_level
        outputs = self.output_norm(total, total_level, training=training)
        outputs = tf.cast(self.output_conv(tf.nn.relu(outputs)), self.variable_dtype)
        if training:
            outputs = _indifferent(outputs, *self._biases(training=False))
        return self.log_scale(outputs)

    def _biases(self, training):
        """Those that lead to batch normalizations, in order; in training without gradients."""
        convs = [self.input_conv, self.skips[0]]
        for (*_, conv2), skip in zip(self.block_layers, self.skips[1:], strict=True):
            convs += [conv2, skip]
        for conv in convs:
            bias = tf.cast(conv.bias, self.variable_dtype)
            yield tf.stop_gradient(bias) if training else bias

    def _skip(self, i, h, level, bias):
        """The convolution, 1x1, of features h + level, apart as these are."""
        kernel = self.skips[i].kernel()
        return self.skips[i].convolve(h, kernel), tf.linalg.matvec(kernel, level, True) + bias

    def _with_negation(self, x, mask):
        """The normalised input with its negation, and the mask where there is one."""
        channels, more = x.shape[-1], []
        if mask is not None:
            x *= 2
            more = [tf.broadcast_to(mask, [*sizes(x)[:-1], 1])]

        # TensorFlow's own gradient takes the axis from the function that ran forward. That the
        # function's result is a constant XLA does not see, and compiles every step anew.
        @tf.custom_gradient
        def joined(x):
            def gradient(upstream):
                return upstream[..., :channels] - upstream[..., channels : 2 * channels]

            return tf.concat([x, -x, *more], axis=-1), gradient

        return joined(x)

    def compute_output_shape(self, x_shape, context_shape=None):
        return (*x_shape[:-1], 2 * self.channels)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "filters": self.filters,
            "blocks": self.blocks,
            "checkerboard_parity": self.checkerboard_parity,
            "momentum": self.momentum,
            "scale_l2": self.scale_l2,
            "synchronized": self.synchronized,
        }


@tf.custom_gradient
def _indifferent(x, *parameters):
    """x, that does not depend on parameters: their gradients are zero, not missing."""
    return tf.identity(x), lambda d: (d, *map(tf.zeros_like, parameters))

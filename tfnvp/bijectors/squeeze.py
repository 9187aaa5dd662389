"""Space to channels, the reshaping that channel couplings need."""

import tensorflow as tf

from tfnvp.bijectors.flow_bijector import FlowBijector
from tfnvp.shapes import sizes


class Squeeze(FlowBijector):
    """Trades space for channels: each 2 x 2 block of pixels becomes one pixel of 4 C channels.

    Following the convention that `inverse` goes from data to latents,

        inverse: [..., H, W, C] -> [..., H/2, W/2, 4 C],    forward: the reverse,    log |det| = 0.

    Channels are grouped by sub-pixel, in the order (0,0), (0,1), (1,0), (1,1), so that the halves
    of the squeezed channels are the upper and the lower row of each block. Source: Real NVP
    (arXiv 1605.08803), section 3.6.

    Args:
        validate_args: whether to check sizes at run time where they are unknown before.
        name: of the bijector.

    Raises:
        ValueError: when called, if H or W is odd, or the channels to spread are not a multiple
            of 4.

    Example:
        >>> import tensorflow as tf, tfnvp
        >>> tfnvp.bijectors.Squeeze().inverse(tf.zeros([5, 8, 6, 3])).shape.as_list()
        [5, 4, 3, 12]
    """

    def __init__(self, validate_args: bool = False, name: str = "squeeze") -> None:
        super().__init__(3, dict(locals()), is_constant_jacobian=True)

    def _inverse_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return space_to_channels(x), tf.zeros([], x.dtype)

    def _forward_and_log_det(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return channels_to_space(z), tf.zeros([], z.dtype)

    def _inverse_event_shape(self, output_shape: tf.TensorShape) -> tf.TensorShape:
        height, width, channels = _even(output_shape)
        return tf.TensorShape(
            [_scaled(height, 1, 2), _scaled(width, 1, 2), _scaled(channels, 4, 1)]
        )

    def _forward_event_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        height, width, channels = _quarterable(input_shape)
        return tf.TensorShape(
            [_scaled(height, 2, 1), _scaled(width, 2, 1), _scaled(channels, 1, 4)]
        )

    def _inverse_event_shape_tensor(self, output_shape: tf.Tensor) -> tf.Tensor:
        return output_shape * [1, 1, 4] // [2, 2, 1]

    def _forward_event_shape_tensor(self, input_shape: tf.Tensor) -> tf.Tensor:
        return input_shape * [2, 2, 1] // [1, 1, 4]


def space_to_channels(x: tf.Tensor) -> tf.Tensor:
    """Maps [..., H, W, C] to [..., H/2, W/2, 4 C], channels grouped by sub-pixel."""
    _even(x.shape[-3:])
    *batch, height, width, channels = sizes(x)
    blocks = tf.reshape(x, [*batch, height // 2, 2, width // 2, 2, channels])
    return tf.reshape(_swap(blocks), [*batch, height // 2, width // 2, 4 * channels])


def channels_to_space(z: tf.Tensor) -> tf.Tensor:
    """Undoes `space_to_channels`."""
    _quarterable(z.shape[-3:])
    *batch, height, width, channels = sizes(z)
    blocks = tf.reshape(z, [*batch, height, width, 2, 2, channels // 4])
    return tf.reshape(_swap(blocks), [*batch, 2 * height, 2 * width, channels // 4])


def _swap(blocks: tf.Tensor) -> tf.Tensor:
    """Swaps the two middle ones of the last five axes."""
    n = blocks.shape.rank - 5
    return tf.transpose(blocks, [*range(n), n, n + 2, n + 1, n + 3, n + 4])


def _even(shape: tf.TensorShape) -> tf.TensorShape:
    height, width, channels = tf.TensorShape(shape).with_rank(3)
    if (height or 0) % 2 or (width or 0) % 2:
        raise ValueError(f"height and width must be even to be squeezed, got event shape {shape}")
    return height, width, channels


def _quarterable(shape: tf.TensorShape) -> tf.TensorShape:
    height, width, channels = tf.TensorShape(shape).with_rank(3)
    if (channels or 0) % 4:
        raise ValueError(
            f"channels must be a multiple of 4 to fill 2 x 2 pixels, got event shape {shape}"
        )
    return height, width, channels


def _scaled(size: int | None, numerator: int, denominator: int) -> int | None:
    return None if size is None else size * numerator // denominator

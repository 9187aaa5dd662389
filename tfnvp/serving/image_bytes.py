"""PNG and JPEG files as a server gets them: looked at before they are decoded."""

import tensorflow as tf

_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_JPEG = b"\xff\xd8\xff"
_HEADER = 26  # bytes of a PNG, up to the kind of its pixels
_WITH_ALPHA = (4, 6)  # kinds of PNG pixels: grey and colour, each with alpha
_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"  # after which there may be anything
# What is broken in between the decoder alone knows; the operation's name is then all that an error
# of TensorFlow's has of ours.
_DECODER = "image_bytes_must_hold_whole_PNG_or_JPEG_files"


def require(condition, message, value, *data):
    """The value, once the condition holds; else the graph's run fails with an InvalidArgument.

    Args:
        condition: a boolean tensor, all of which must be true.
        message: what is wrong otherwise.
        value: a tensor, for all that comes after the condition to depend on.
        *data: numbers, or vectors of them, to show after the message.

    Returns:
        The value.
    """
    shown = [tf.as_string(tensor) for tensor in data]
    asserted = tf.debugging.Assert(tf.reduce_all(condition), [message, *shown], summarize=8)
    with tf.control_dependencies([asserted]):
        return tf.identity(value)


def decode_files(files, shape):
    """The images of PNG and JPEG files.

    A file that is neither, is cut off, or has an alpha channel though none is asked for (or none
    though it is), 16 bits a value, or another size, is an InvalidArgument that names `image_bytes`.

    Args:
        files: strings [B], of one at least.
        shape: [height, width, channels]; height and width None for any that the files share.

    Returns:
        uint8 [B, height, width, channels].
    """
    height, width, channels = shape
    header = tf.cast(tf.io.decode_raw(files, tf.uint8, fixed_length=_HEADER), tf.int32)
    png, jpeg = _starts_with(header, _PNG), _starts_with(header, _JPEG)
    # JPEG has no alpha.
    known, kinds = (png, "PNG") if channels == 4 else (png | jpeg, "PNG or JPEG")
    files = require(known, f"image_bytes must hold {kinds} files, got something else", files)
    whole = tf.where(png, _holds(files, _PNG_END), _holds(files, _JPEG_END))
    files = require(whole, f"image_bytes must hold whole {kinds} files, got one cut off", files)
    bits, kind = tf.where(png, header[:, 24], 8), header[:, 25]
    message = "image_bytes must hold images of up to 8 bits a value, got"
    files = require(bits <= 8, message, files, tf.reduce_max(bits))
    alpha = png & tf.reduce_any(kind[:, None] == _WITH_ALPHA, axis=1)
    if channels == 4:
        files = require(alpha, "image_bytes must hold images with alpha, got one without", files)
    else:
        files = require(
            ~alpha, "image_bytes must hold images without alpha, got one with it", files
        )

    def size_of(args):
        file, is_png, size = args
        return tf.cond(
            is_png, lambda: size, lambda: tf.image.extract_jpeg_shape(file, name=_DECODER)[:2]
        )

    # The width comes first.
    sizes = tf.stack([_big_endian(header[:, 20:24]), _big_endian(header[:, 16:20])], axis=1)
    spec = tf.TensorSpec([2], tf.int32)
    sizes = tf.map_fn(size_of, (files, png, sizes), fn_output_signature=spec)
    if height is None:
        message = "image_bytes must hold images of one size, got sizes up to"
        expected = sizes[0]
    else:
        message = f"image_bytes must hold images of {height} x {width} pixels, got up to"
        expected = [height, width]
    files = require(sizes == expected, message, files, tf.reduce_max(sizes, axis=0))

    def decode(file):
        image = tf.io.decode_image(file, channels, expand_animations=False, name=_DECODER)
        return tf.ensure_shape(image, shape)

    return tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def _starts_with(header, start):
    return tf.reduce_all(header[:, : len(start)] == list(start), axis=1)


def _holds(files, mark):
    return tf.strings.split(files, mark).row_lengths() > 1


def _big_endian(four):
    # A size beyond 31 bits comes out negative, and fits nowhere.
    return tf.reduce_sum(four * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)

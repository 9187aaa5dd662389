"""PNG and JPEG files that a server is sent: they are checked in the graph, then decoded."""

from collections.abc import Sequence

import tensorflow as tf

from tfnvp.serving.inputs import require

_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_JPEG = b"\xff\xd8\xff"
_HEADER = 26  # A PNG has so many bytes up to the kind of its pixels.
_WITH_ALPHA = (4, 6)  # These kinds of PNG pixels are grey and colour, each with alpha.
_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"  # Anything may follow the end.
# Only the decoder sees damage between header and end. Its error is TensorFlow's, in which the name
# of the operation is all that we can choose.
_DECODER = "image_bytes_must_hold_whole_PNG_or_JPEG_files"


def decode_files(files: tf.Tensor, shape: Sequence[int | None]) -> tf.Tensor:
    """Decodes PNG and JPEG files.

    A file that is neither, is cut off, or has an alpha channel though none is asked for (or none
    though it is), 16 bits a value, or another size, is an InvalidArgument that names `image_bytes`.

    The files are strings [B], one at least. The shape is [height, width, channels], of which height
    and width are None for any size that the files share. The images are uint8 [B, *shape].
    """
    height, width, channels = shape
    header = tf.cast(tf.io.decode_raw(files, tf.uint8, fixed_length=_HEADER), tf.int32)
    png, jpeg = _starts_with(header, _PNG), _starts_with(header, _JPEG)
    # A JPEG file has no alpha.
    known, kinds = (png, "PNG") if channels == 4 else (png | jpeg, "PNG or JPEG")
    files = require(known, f"image_bytes must hold {kinds} files, got something else", files)
    whole = tf.where(png, _holds(files, _PNG_END), _holds(files, _JPEG_END))
    files = require(whole, f"image_bytes must hold whole {kinds} files, got one cut off", files)
    bits, kind = tf.where(png, header[:, 24], 8), header[:, 25]
    message = "image_bytes must hold images of up to 8 bits a value, got"
    files = require(bits <= 8, message, files, tf.reduce_max(bits))
    alpha = png & tf.reduce_any(kind[:, None] == _WITH_ALPHA, axis=1)
    wanted = "with alpha, got one without" if channels == 4 else "without alpha, got one with it"
    files = require(alpha == (channels == 4), f"image_bytes must hold images {wanted}", files)

    def size_of(args: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        file, is_png, size = args
        return tf.cond(
            is_png, lambda: size, lambda: tf.image.extract_jpeg_shape(file, name=_DECODER)[:2]
        )

    # A PNG header has the width first.
    sizes = tf.stack([_big_endian(header[:, 20:24]), _big_endian(header[:, 16:20])], axis=1)
    spec = tf.TensorSpec([2], tf.int32)
    sizes = tf.map_fn(size_of, (files, png, sizes), fn_output_signature=spec)
    expected, wanted = [height, width], f"{height} x {width} pixels, got up to"
    if height is None:
        expected, wanted = sizes[0], "one size, got sizes up to"
    message = f"image_bytes must hold images of {wanted}"
    files = require(sizes == expected, message, files, tf.reduce_max(sizes, axis=0))

    def decode(file: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(file, channels, expand_animations=False, name=_DECODER)
        return tf.ensure_shape(image, shape)

    return tf.map_fn(decode, files, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def _starts_with(header: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.reduce_all(header[:, : len(start)] == list(start), axis=1)


def _holds(files: tf.Tensor, mark: bytes) -> tf.Tensor:
    return tf.strings.split(files, mark).row_lengths() > 1


def _big_endian(four: tf.Tensor) -> tf.Tensor:
    # A size beyond 31 bits comes out negative, so that it fits nowhere.
    return tf.reduce_sum(four * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)

"""PNG and JPEG files that a server is sent: they are checked in the graph, then decoded."""

from collections.abc import Sequence

import tensorflow as tf

from tfnvp.serving.image_parts import orientation_and_transparency, turned
from tfnvp.serving.inputs import require, up_to_pixels

_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_JPEG = b"\xff\xd8\xff"
_HEADER = 26  # A PNG has so many bytes up to the kind of its pixels.
_WITH_ALPHA = (4, 6)  # These kinds of PNG pixels are grey and colour, each with alpha.
_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"  # Anything may follow the end.
# Only the decoder sees damage between header and end. Its error is TensorFlow's, in which the name
# of the operation is all that we can choose.
_DECODER = "image_bytes_must_hold_whole_PNG_or_JPEG_files"


def decode_files(
    files: tf.Tensor, shape: Sequence[int | None], max_pixels: int | None = None
) -> tf.Tensor:
    """Decodes PNG and JPEG files to the pixels that `tfnvp.data.read_images` reads, to the bit.

    They are turned by EXIF; of 16 bits the upper 8 remain; what is transparent is laid on white, or
    with 4 channels kept. No picture is cut or resized, so that one of another size is refused.

    A file that is neither, is cut off, is in CMYK, has no alpha channel though one is asked for, or
    has another size, is an InvalidArgument that names `image_bytes`.

    The files are strings [B], one at least. The shape is [height, width, channels], of which height
    and width are None for any size that the files share, up to `max_pixels`. The images are uint8
    [B, *shape].
    """
    height, width, channels = shape
    header = tf.cast(tf.io.decode_raw(files, tf.uint8, fixed_length=_HEADER), tf.int32)
    png, jpeg = _starts_with(header, _PNG), _starts_with(header, _JPEG)
    # A JPEG file has no alpha.
    known, kinds = (png, "PNG") if channels == 4 else (png | jpeg, "PNG or JPEG")
    files = require(known, f"image_bytes must hold {kinds} files, got something else", files)
    whole = tf.where(png, _holds(files, _PNG_END), _holds(files, _JPEG_END))
    files = require(whole, f"image_bytes must hold whole {kinds} files, got one cut off", files)
    if channels == 4:
        alpha = tf.reduce_any(header[:, 25, None] == _WITH_ALPHA, axis=1)
        message = "image_bytes must hold images with alpha, got one without"
        files = require(alpha, message, files)

    def about(args: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        file, is_png, size = args
        orientation, transparent = orientation_and_transparency(file, is_png)
        size, components = tf.cond(is_png, lambda: (size, 3), lambda: _jpeg_header(file))
        upright = tf.where(orientation > 4, size[::-1], size)
        return upright, orientation, transparent, components

    # A PNG header has the width first.
    sizes = tf.stack([_big_endian(header[:, 20:24]), _big_endian(header[:, 16:20])], axis=1)
    specs = [tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.bool)]
    sizes, orientations, transparent, components = tf.map_fn(
        about, (files, png, sizes), fn_output_signature=(*specs, specs[1])
    )
    # TensorFlow makes RGB of CMYK by another rounding than Pillow, and not always of inverted inks.
    message = "image_bytes must hold images of grey or RGB, got CMYK"
    files = require(components < 4, message, files)
    # TensorFlow fills in a wrong alpha where a PNG has none and fewer than 8 bits.
    opaque = (header[:, 24] < 8) & ~transparent
    expected, wanted = [height, width], f"{height} x {width} pixels, got up to"
    if height is None:
        files = up_to_pixels("image_bytes", max_pixels, tf.reduce_max(sizes, axis=0), files)
        expected, wanted = sizes[0], "one size, got sizes up to"
    message = f"image_bytes must hold images of {wanted}"
    files = require(sizes == expected, message, files, tf.reduce_max(sizes, axis=0))

    def decode(args: tuple[tf.Tensor, ...]) -> tf.Tensor:
        file, is_png, is_opaque, orientation = args
        image = tf.cond(
            is_png, lambda: _decoded_png(file, is_opaque, channels), lambda: _decoded_jpeg(file)
        )
        if channels == 1:
            image = _grey(image)
        return tf.ensure_shape(turned(image, orientation), shape)

    spec = tf.TensorSpec(shape, tf.uint8)
    return tf.map_fn(decode, (files, png, opaque, orientations), fn_output_signature=spec)


def _jpeg_header(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The height and width of a JPEG, and how many components a pixel has."""
    header = tf.image.extract_jpeg_shape(file, name=_DECODER)
    return header[:2], header[2]


def _decoded_png(file: tf.Tensor, is_opaque: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB on white, or RGBA for 4 channels."""
    image = tf.io.decode_png(file, 4, name=_DECODER)
    return image if channels == 4 else tf.where(is_opaque, image[..., :3], _on_white(image))


def _decoded_jpeg(file: tf.Tensor) -> tf.Tensor:
    """RGB, by the slower of TensorFlow's ways: the other is up to 7 levels off Pillow's."""
    return tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE", name=_DECODER)


def _on_white(image: tf.Tensor) -> tf.Tensor:
    """RGB of RGBA, rounded as Pillow does."""
    image = tf.cast(image, tf.int32)
    colour, alpha = image[..., :3], image[..., 3:]
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Grey of RGB, with Pillow's weights of 16 bits."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    luminance = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) // (1 << 16)
    return tf.cast(luminance, tf.uint8)[..., None]


def _starts_with(header: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.reduce_all(header[:, : len(start)] == list(start), axis=1)


def _holds(files: tf.Tensor, mark: bytes) -> tf.Tensor:
    return tf.strings.split(files, mark).row_lengths() > 1


def _big_endian(four: tf.Tensor) -> tf.Tensor:
    # A size beyond 31 bits comes out negative, so that it fits nowhere.
    return tf.reduce_sum(four * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)

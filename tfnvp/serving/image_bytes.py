"""PNG and JPEG files that a server is sent: they are checked in the graph, then decoded."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfnvp.serving.faults import Faults, attempted
from tfnvp.serving.image_parts import MOST_PARTS, about_parts, turned

_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
_JPEG = b"\xff\xd8\xff"
_HEADER = 26  # A PNG has so many bytes up to the kind of its pixels.
_WITH_ALPHA = (4, 6)  # These kinds of PNG pixels are grey and colour, each with alpha.
_PNG_END, _JPEG_END = b"IEND\xaeB`\x82", b"\xff\xd9"  # Anything may follow the end.
_SCAN = b"\xff\xda"
# A scan of few bytes goes over all pixels: 16 MB have room for a million of them.
_MOST_SCANS = 100
_MOST_BYTES = 16_000_000  # A file of 4 megapixels of noise has 12 MB, and 16 MB with alpha.

_INT, _BOOL = tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.bool)
_SIZE = tf.TensorSpec([2], tf.int32)


class AnySize(NamedTuple):
    """The sizes of images where any is taken: both sides divided, the pixels limited."""

    divisor: int
    max_pixels: int
    own: Sequence[int]  # The model's own size stands in where no file is good.


def decode_files(
    files: tf.Tensor,
    shape: Sequence[int | None],
    faults: Faults,
    any_size: AnySize | None = None,
) -> tf.Tensor:
    """Decodes PNG and JPEG files to the pixels that `tfnvp.data.read_images` reads, to the bit.

    They are turned by EXIF; of 16 bits the upper 8 remain; what is transparent is laid on white, or
    with 4 channels kept. No picture is cut or resized, so that one of another size is refused.

    A file that is neither, is cut off, damaged or longer than 16 MB, has too many parts or scans,
    is in CMYK, has no alpha channel though one is asked for, or has another size, is a fault of its
    row, whose pixels are 0.

    Args:
        files: strings [B], one at least.
        shape: (height, width, channels); height and width are None for any size that the files
            share, which the first good one has.
        faults: of the rows.
        any_size: which sizes there are, where these are None.

    Returns:
        uint8 [B, height, width, channels].
    """
    height, width, channels = shape
    # A JPEG file has no alpha.
    kinds = "PNG" if channels == 4 else "PNG or JPEG"

    def kept(good: tf.Tensor, message: str, *shown: tf.Tensor) -> tf.Tensor:
        return faults.kept(files, good, f"image_bytes must hold {message}", *shown)

    length = tf.strings.length(files)
    files = kept(length <= _MOST_BYTES, f"files of up to {_MOST_BYTES} bytes, got", length)
    header = tf.cast(tf.io.decode_raw(files, tf.uint8, fixed_length=_HEADER), tf.int32)
    png, jpeg = _starts_with(header, _PNG), _starts_with(header, _JPEG)
    files = kept(png if channels == 4 else png | jpeg, f"{kinds} files, got something else")
    whole = tf.where(png, _holds(files, _PNG_END), _holds(files, _JPEG_END))
    files = kept(whole, f"whole {kinds} files, got one cut off")
    scans = _count(files, _SCAN)
    files = kept(
        png | (scans <= _MOST_SCANS), f"JPEG files of up to {_MOST_SCANS} scans, got", scans
    )
    if channels == 4:
        alpha = tf.reduce_any(header[:, 25, None] == _WITH_ALPHA, axis=1)
        files = kept(alpha, "images with alpha, got one without")

    def about(file: tf.Tensor, is_png: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, ...]:
        parts, orientation, transparent = about_parts(file, is_png)
        size, components = tf.cond(is_png, lambda: (size, 3), lambda: _jpeg_header(file))
        upright = tf.where(orientation > 4, size[::-1], size)
        return upright, orientation, transparent, components, parts

    # A PNG header has the width first.
    sizes = tf.stack([_big_endian(header[:, 20:24]), _big_endian(header[:, 16:20])], axis=1)
    specs = (_SIZE, _INT, _BOOL, _INT, _BOOL)
    damaged = f"whole {kinds} files, got one that is damaged"
    readable, about_files = _attempted(about, (files, png, sizes), specs, faults.none)
    files = kept(readable, damaged)
    sizes, orientations, transparent, components, parts = about_files
    files = kept(parts | ~readable, f"files of up to {MOST_PARTS} chunks or segments")
    # TensorFlow makes RGB of CMYK by another rounding than Pillow, and not always of inverted inks.
    files = kept(components < 4, "images of grey or RGB, got CMYK")
    expected, wanted = [height, width], f"{height} x {width} pixels"
    if height is None:
        tall, wide = tf.unstack(tf.cast(sizes, tf.int64), axis=1)
        fits = (tall >= 0) & (wide >= 0) & (tall * wide <= any_size.max_pixels)
        files = kept(fits, f"images of up to {any_size.max_pixels} pixels, got", sizes)
        divided = tf.reduce_all((sizes > 0) & (sizes % any_size.divisor == 0), axis=1)
        message = f"images with a height and width that {any_size.divisor} divides, got"
        files = kept(divided, message, sizes)
        good_sizes = tf.concat([tf.boolean_mask(sizes, faults.none), [any_size.own]], axis=0)
        expected, wanted = good_sizes[0], "one size"
    fits = tf.reduce_all(sizes == expected, axis=1)
    files = kept(fits, f"images of {wanted}, got", sizes)
    # TensorFlow fills in a wrong alpha where a PNG has none and fewer than 8 bits.
    opaque = (header[:, 24] < 8) & ~transparent
    pixels = tf.TensorSpec(tf.TensorShape(shape), tf.uint8)

    def decode(
        file: tf.Tensor, is_png: tf.Tensor, is_opaque: tf.Tensor, orientation: tf.Tensor
    ) -> tuple[tf.Tensor]:
        image = tf.cond(
            is_png, lambda: _decoded_png(file, is_opaque, channels), lambda: _decoded_jpeg(file)
        )
        if channels == 1:
            image = _grey(image)
        return (tf.ensure_shape(turned(image, orientation), shape),)

    each = (files, png, opaque, orientations)
    size = [*tf.unstack(tf.convert_to_tensor(expected)), channels]
    readable, (images,) = _attempted(decode, each, (pixels,), faults.none, [size])
    kept(readable, damaged)
    return images


def _attempted(
    function: Callable,
    each: Sequence[tf.Tensor],
    specs: Sequence[tf.TensorSpec],
    wanted: tf.Tensor,
    shapes: Sequence | None = None,
) -> tuple[tf.Tensor, Sequence[tf.Tensor]]:
    """Calls a function of each row that is wanted, in which operations may fail.

    First it is tried with all rows at once, since that is fastest; only if something fails, row by
    row.

    Returns:
        Whether the row did not fail, bool [B], and what the function returned [B, ...], zeros for
        rows that failed or were not wanted.
    """
    shapes = [spec.shape for spec in specs] if shapes is None else shapes
    zeros = [tf.zeros(shape, spec.dtype) for shape, spec in zip(shapes, specs, strict=True)]

    # Both ways call it, and as a function of its own it is in the graph once.
    @tf.function(autograph=False)
    def one(is_wanted: tf.Tensor, *args: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tf.cond(is_wanted, lambda: tuple(function(*args)), lambda: tuple(zeros))

    def all_rows(*rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tf.map_fn(lambda row: one(*row), rows, fn_output_signature=tuple(specs))

    def row_by_row() -> tuple[tf.Tensor, ...]:
        return tf.map_fn(
            lambda row: attempted(one, row, zeros), rows, fn_output_signature=(_BOOL, *specs)
        )

    rows = (wanted, *each)
    empty = [tf.zeros(tf.concat([[0], tf.shape(zero)], 0), zero.dtype) for zero in zeros]
    every, *results = attempted(all_rows, rows, empty)
    fine, *results = tf.cond(
        every, lambda: (tf.ones_like(wanted), *results), lambda: tuple(row_by_row())
    )
    return fine, results


def _jpeg_header(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The height and width of a JPEG, and how many components a pixel has."""
    header = tf.image.extract_jpeg_shape(file)
    return header[:2], header[2]


def _decoded_png(file: tf.Tensor, is_opaque: tf.Tensor, channels: int) -> tf.Tensor:
    """RGB on white, or RGBA for 4 channels."""
    image = tf.io.decode_png(file, 4)
    return image if channels == 4 else tf.where(is_opaque, image[..., :3], _on_white(image))


def _decoded_jpeg(file: tf.Tensor) -> tf.Tensor:
    """RGB, by the slower of TensorFlow's ways: the other is up to 7 levels off Pillow's."""
    return tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE")


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
    return _count(files, mark) > 0


def _count(files: tf.Tensor, mark: bytes) -> tf.Tensor:
    return tf.strings.split(files, mark).row_lengths() - 1


def _big_endian(four: tf.Tensor) -> tf.Tensor:
    # A size beyond 31 bits comes out negative, so that it fits nowhere.
    return tf.reduce_sum(four * [1 << 24, 1 << 16, 1 << 8, 1], axis=1)

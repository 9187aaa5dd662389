"""The parts of PNG and JPEG files that stand beside their pixels, read in the graph."""

from collections.abc import Callable

import tensorflow as tf

_EXIF_CHUNK, _TRANSPARENCY_CHUNK, _LAST_CHUNK = map(int.from_bytes, (b"eXIf", b"tRNS", b"IEND"))
_FIRST_CHUNK, _FIRST_SEGMENT = 8, 2
_EXIF_SEGMENT, _SCAN, _PADDING = 0xFFE1, 0xFFDA, 0xFFFF
_EXIF_START = int.from_bytes(b"Exif")  # Two bytes of zero follow in a segment.
_LITTLE, _BIG = int.from_bytes(b"II"), int.from_bytes(b"MM")
_ORIENTATION, _LONG = 0x0112, 4
# A step costs some microseconds, and a file of nothing but empty parts has many of them.
MOST_PARTS = 4_000

Number = Callable[..., tf.Tensor]
Walked = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def about_parts(file: tf.Tensor, is_png: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads in a file's parts whether they end, the orientation, and whether one is tRNS.

    These are bool [], false for more than 4000 parts; int32 [] in 1..8; and bool [].

    EXIF data is looked for where the formats have it: in the first eXIf chunk of a PNG, and in the
    first APP1 segment of EXIF before a JPEG's scan. Where it says nothing, the orientation is 1.
    The file is a string [].
    """
    data = tf.io.decode_raw(file, tf.uint8)
    size = tf.size(data)

    def number(
        place: tf.Tensor, length: int, little: tf.Tensor | bool = False, end: tf.Tensor = size
    ) -> tf.Tensor:
        """The numbers of so many bytes at places; what lies beyond the end is zero."""
        places = place[..., None] + tf.range(length)
        inside = (places >= 0) & (places < end)
        values = tf.cast(tf.gather(data, tf.where(inside, places, 0)), tf.int32)
        weights = tf.constant([1 << 8 * i for i in range(length)])
        weights = tf.where(little, weights, weights[::-1])
        return tf.reduce_sum(tf.where(inside, values, 0) * weights, axis=-1)

    def goes_on(place: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (place > 0) & (place < size)  # A broken length may lead back, or beyond the end.

    def walk(place: int, step: Callable) -> Walked:
        begin = (tf.constant(place), tf.constant(0), tf.constant(0), tf.constant(False))
        return tf.while_loop(
            goes_on, lambda *state: step(number, *state), begin, maximum_iterations=MOST_PARTS
        )

    place, exif, end, transparent = tf.cond(
        is_png, lambda: walk(_FIRST_CHUNK, _chunk), lambda: walk(_FIRST_SEGMENT, _segment)
    )
    order = number(exif, 2, end=end)
    told = _orientation(lambda *args: number(*args, order == _LITTLE, end), exif)
    valid = ((order == _LITTLE) | (order == _BIG)) & (told <= 8)
    return ~goes_on(place), tf.where(valid, told, 1), transparent


def turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The upright image of one [H, W, C] that was stored with an orientation in 1..8."""

    def change(image: tf.Tensor, orientations: list[int], how: Callable) -> tf.Tensor:
        asked = tf.reduce_any(orientation == orientations)
        return tf.cond(asked, lambda: how(image), lambda: image)

    image = change(image, [5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]))
    image = change(image, [2, 3, 6, 7], lambda x: tf.reverse(x, [1]))
    return change(image, [3, 4, 7, 8], lambda x: tf.reverse(x, [0]))


# A step of a walk, from a part of a file to the next. The state has the place of the part, 0 after
# the last; where EXIF data begins and ends, 0 as long as there is none; and whether tRNS was there.


def _chunk(number: Number, place: tf.Tensor, *found: tf.Tensor) -> Walked:
    exif, end, transparent = found
    length, kind = number(place, 4), number(place + 4, 4)
    new = (exif == 0) & (kind == _EXIF_CHUNK)
    exif, end = tf.where(new, place + 8, exif), tf.where(new, place + 8 + length, end)
    place = tf.where(kind == _LAST_CHUNK, 0, place + 12 + length)
    return place, exif, end, transparent | (kind == _TRANSPARENCY_CHUNK)


def _segment(number: Number, place: tf.Tensor, *found: tf.Tensor) -> Walked:
    exif, end, transparent = found
    marker, length = number(place, 2), number(place + 2, 2)
    is_exif = (number(place + 4, 4) == _EXIF_START) & (number(place + 8, 2) == 0)
    new = (exif == 0) & (marker == _EXIF_SEGMENT) & is_exif
    exif, end = tf.where(new, place + 10, exif), tf.where(new, place + 2 + length, end)
    after = tf.where(marker == _PADDING, place + 1, place + 2 + length)
    last = (marker == _SCAN) | (marker < 0xFF00)
    return tf.where(last, 0, after), exif, end, transparent


def _orientation(number: Number, exif: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of EXIF data; 1 where there is none."""
    directory = exif + number(exif + 4, 4)
    entries = directory + 2 + 12 * tf.range(number(directory, 2))
    is_long = number(entries + 2, 2) == _LONG
    values = tf.where(is_long, number(entries + 8, 4), number(entries + 8, 2))
    values = tf.boolean_mask(values, number(entries, 2) == _ORIENTATION)
    return tf.concat([values, [1]], axis=0)[0]

"""Pictures of every kind that a PNG or JPEG file can hold, as the bytes of files."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
# Where the seven passes of an interlaced PNG begin, and their steps: row, column, and both again.
_PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
_PASSES += [(1, 0, 2, 1)]
KINDS = [(GREY, bits) for bits in (1, 2, 4, 8, 16)] + [(PALETTE, bits) for bits in (1, 2, 4, 8)]
KINDS += [(kind, bits) for kind in (RGB, GREY_ALPHA, RGBA) for bits in (8, 16)]
NAMES = {GREY: "grey", RGB: "rgb", PALETTE: "palette", GREY_ALPHA: "grey_alpha", RGBA: "rgba"}


def png(values, kind, bits, interlaced=False, before=(), after=(), beyond=0):
    """A PNG file of values [H, W] or [H, W, C]; chunks (name, content) before and after pixels.

    Where the pixels end, their data goes on with so many bytes of zero beyond them.
    """
    values = np.atleast_3d(values)
    parts = [values[i::m, j::n] for i, j, m, n in _PASSES] if interlaced else [values]
    rows = [row for part in parts if part.size for row in part]
    data = zlib.compress(b"".join(b"\0" + _packed(row, bits) for row in rows) + bytes(beyond))
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *before, (b"IDAT", data), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def chunk(name, content):
    """A chunk of a PNG file."""
    end = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + end


def _packed(row, bits):
    if bits == 16:
        return row.astype(">u2").tobytes()
    each = row.ravel()[:, None] >> np.arange(bits)[::-1] & 1
    return np.packbits(each.astype(np.uint8)).tobytes()


def exif(orientation, order="<", kind=3):
    """EXIF data of three entries, in a byte order, with the orientation of a TIFF type."""
    value = struct.pack(order + "HH" if kind == 3 else order + "I", orientation, *[0] * (kind == 3))
    entries = [(0x010F, 2, 4, b"me!\0"), (0x0112, kind, 1, value), (0x0213, 3, 1, b"\1\0\0\0")]
    content = struct.pack(order + "H", len(entries))
    content += b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 12)
    return start + b"gap!" + content + b"\0\0\0\0"


def png_of_kind(kind, bits, transparent, interlaced, shape=(8, 8), **chunks):
    """A PNG of random pixels, with a tRNS chunk or without."""
    random = np.random.default_rng(kind * 100 + bits)
    values = random.integers(0, 2**bits, (*shape, _CHANNELS[kind]))
    before = []
    if kind == PALETTE:
        before.append((b"PLTE", random.integers(0, 256, 3 * 2**bits, np.uint8).tobytes()))
    if transparent and kind == PALETTE:
        # One of the two is a colour that is left out, the other makes many half transparent.
        alpha = [255, 0] if bits == 8 else random.integers(0, 256, 2**bits).tolist()
        values[0] = 1
        before.append((b"tRNS", bytes(alpha)))
    elif transparent:
        key = values[2, 3]
        values[0] = key
        values[1] = key ^ 1  # It is another colour, by the last bit alone.
        before.append((b"tRNS", key.astype(">u2").tobytes()))
    before += chunks.pop("before", [])
    return png(values, kind, bits, interlaced, before, **chunks)


def vast_png(pixels):
    """A PNG file of black pixels, as many squared, which has a thousandth of a byte for each."""
    data = zlib.compress(bytes((pixels // 8 + 1) * pixels), 9)
    header = struct.pack(">IIBBBBB", pixels, pixels, 1, GREY, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def jpeg(mode="RGB", shape=(8, 8), seed=0, **options):
    """A JPEG file of random pixels; the options are Pillow's."""
    channels = {"L": (), "RGB": (3,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*shape, *channels), np.uint8)
    file = io.BytesIO()
    Image.frombytes(mode, shape[::-1], pixels.tobytes()).save(file, "jpeg", **options)
    return file.getvalue()


def vast_jpeg(width, height):
    """A JPEG file that ends long before the pixels that its header tells of."""
    file = jpeg()
    size = file.index(b"\xff\xc0") + 5
    return file[:size] + struct.pack(">HH", height, width) + file[size + 4 :]


def segment(content, marker=0xE1):
    """A segment of a JPEG file; it is to come after the first two bytes."""
    return struct.pack(">HH", 0xFF00 | marker, len(content) + 2) + content


def with_segments(file, *contents):
    """A JPEG file with APP1 segments in front."""
    return file[:2] + b"".join(map(segment, contents)) + file[2:]


def corpus():
    """Files of 8 x 8 pixels by name: of every kind, layout, transparency and orientation."""
    files = {}
    for kind, bits in KINDS:
        for transparent in (False, True) if kind in (GREY, RGB, PALETTE) else (False,):
            for interlaced in (False, True):
                name = f"{NAMES[kind]}_{bits}" + "_trns" * transparent + "_adam7" * interlaced
                files[f"{name}.png"] = png_of_kind(kind, bits, transparent, interlaced)
    for turn in range(1, 9):
        order = "<>"[turn % 2]
        chunks = {"before" if turn < 6 else "after": [(b"eXIf", exif(turn, order))]}
        files[f"turned_{turn}.png"] = png_of_kind(RGB, 8, False, False, **chunks)
        start = b"Exif\0\0" + exif(turn, order, kind=4 if turn == 7 else 3)
        files[f"turned_{turn}.jpg"] = with_segments(jpeg(seed=turn), b"http://ns/", start)
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6' tiff:Orientation=\"6\"/>"
    files["turned_by_xmp_alone.jpg"] = with_segments(jpeg(), xmp)
    files["broken_exif.jpg"] = with_segments(jpeg(), b"Exif\0\0nothing that is known")
    files["cut_exif.jpg"] = with_segments(jpeg(), b"Exif\0\0" + exif(6)[:30])
    files["orientation_9.jpg"] = with_segments(jpeg(), b"Exif\0\0" + exif(9))
    padded = with_segments(jpeg(), b"Exif\0\0" + exif(8))
    files["padded_segments.jpg"] = padded[:2] + b"\xff\xff" + padded[2:]
    comments = [(b"tEXt", b"Comment\0text"), (b"gAMA", struct.pack(">I", 90000))]
    files["comments.png"] = png_of_kind(RGB, 8, False, False, before=comments)
    options = {"subsampling": [0, 1, 2], "quality": [10, 95], "progressive": [True]}
    options |= {"optimize": [True], "keep_rgb": [True], "restart_marker_blocks": [1]}
    for name, values in options.items():
        for value in values:
            files[f"{name}_{value}.jpg"] = jpeg(**{name: value})
    files |= {"grey.jpg": jpeg("L"), "cmyk.jpg": jpeg("CMYK")}
    return files

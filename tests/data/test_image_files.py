"""Every kind of picture is read by one rule, whoever reads it."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import tfnvp
from tfnvp.data import image_files

HEIGHT, WIDTH = 6, 9  # The margins of the central square are 1 and 2 columns.
RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
GREY16 = RANDOM.integers(0, 2**16, (HEIGHT, WIDTH), dtype=np.uint16)
ALPHA = RANDOM.choice(np.array([0, 100, 255], np.uint8), (HEIGHT, WIDTH))


def png(path, bits, kind, rows, transparent):
    """Writes a PNG file from the bytes of its rows, with a tRNS chunk."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", data), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(content)) + name + content
            + struct.pack(">I", zlib.crc32(name + content))
            for name, content in chunks
        )
    )  # fmt: skip


def on_white(pixels, alpha):
    """uint8 [H, W, 3], from pixels [H, W] or [H, W, 3] and alpha [H, W] in 0..255."""
    pixels = np.broadcast_to(pixels.reshape(HEIGHT, WIDTH, -1), (HEIGHT, WIDTH, 3)).astype(float)
    share = alpha[..., None] / 255
    return np.round(share * pixels + (1 - share) * 255).astype(np.uint8)


def opaque(pixels):
    return on_white(pixels, np.full((HEIGHT, WIDTH), 255))


def rgba(path):
    Image.fromarray(np.dstack([RGB, ALPHA])).save(path)
    return on_white(RGB, ALPHA)


def grey_alpha(path):
    Image.frombytes("LA", (WIDTH, HEIGHT), np.dstack([GREY, ALPHA]).tobytes()).save(path)
    return on_white(GREY, ALPHA)


def _palette(path, transparency, alpha):
    image = Image.frombytes("P", (WIDTH, HEIGHT), (GREY % 3).tobytes())
    palette = np.array([[200, 10, 20], [30, 40, 50], [0, 0, 0]], np.uint8)
    image.putpalette(palette.tobytes())
    image.save(path, transparency=transparency)
    return on_white(palette[GREY % 3], np.array(alpha)[GREY % 3])


def palette_with_a_transparent_colour(path):
    return _palette(path, 1, [255, 0, 255])


def palette_with_alpha(path):
    return _palette(path, bytes([0, 128, 255]), [0, 128, 255])


def transparent_grey(path):
    Image.fromarray(GREY).save(path, transparency=int(GREY[2, 3]))
    return on_white(GREY, np.where(GREY[2, 3] == GREY, 0, 255))


def transparent_grey_of_four_bits(path):
    nibbles = np.pad(GREY // 16, [(0, 0), (0, 1)])
    rows = [bytes(row[::2] * 16 + row[1::2]) for row in nibbles]
    key = GREY[2, 3] // 16
    png(path, 4, 0, rows, struct.pack(">H", key))
    return on_white(GREY // 16 * 17, np.where(key == GREY // 16, 0, 255))


def transparent_colour(path):
    Image.fromarray(RGB).save(path, transparency=tuple(map(int, RGB[2, 3])))
    return on_white(RGB, np.where(np.all(RGB[2, 3] == RGB, axis=-1), 0, 255))


def transparent_colour_of_sixteen_bits(path):
    deep = (RGB.astype(np.uint16) * 256 + 77).astype(">u2")
    png(path, 16, 2, [row.tobytes() for row in deep], deep[2, 3].tobytes())
    return on_white(RGB, np.where(np.all(RGB[2, 3] == RGB, axis=-1), 0, 255))


def sixteen_bits(path):
    Image.fromarray(GREY16).save(path)
    return opaque(GREY16 >> 8)


def transparent_grey_of_sixteen_bits(path):
    values = GREY16.copy()
    values[0] = GREY16[2, 3] ^ 1  # These differ from the transparent value in the lower byte alone.
    Image.fromarray(values).save(path, transparency=int(GREY16[2, 3]))
    return on_white(values >> 8, np.where(values == GREY16[2, 3], 0, 255))


def one_bit(path):
    Image.fromarray(GREY > 127).save(path)
    return opaque(np.where(GREY > 127, 255, 0))


def turned_jpeg(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: the picture is upright after a turn to the right.
    Image.fromarray(np.rot90(RGB)).save(path, exif=exif)
    return np.rot90(np.asarray(Image.open(path)), -1)


def cmyk_jpeg(path):
    Image.fromarray(RGB).convert("CMYK").save(path)
    return np.asarray(Image.open(path).convert("RGB"))


def grey_jpeg(path):
    Image.fromarray(GREY).save(path)
    return opaque(np.asarray(Image.open(path)))


KINDS = [
    rgba,
    grey_alpha,
    palette_with_a_transparent_colour,
    palette_with_alpha,
    transparent_grey,
    transparent_grey_of_four_bits,
    transparent_colour,
    transparent_colour_of_sixteen_bits,
    sixteen_bits,
    transparent_grey_of_sixteen_bits,
    one_bit,
    turned_jpeg,
    cmyk_jpeg,
    grey_jpeg,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_folder_and_the_command_read_the_same_pixels(kind, tmp_path):
    suffix = ".jpg" if kind.__name__.endswith("jpeg") else ".png"
    paths = [tmp_path / f"{i}{suffix}" for i in range(3)]
    for path in paths:
        picture = kind(path)
    expected = picture[:, 1:7].astype(int)  # in whole pixels
    folder = tfnvp.data.load_folder(tmp_path, 6)
    (from_folder,) = folder.as_numpy_iterator()
    np.testing.assert_allclose(from_folder.astype(int), expected, atol=1)
    for levels in (256, 17):
        images = tfnvp.data.read_images(paths[:2], (6, 6, 3), levels)
        assert (images.shape, images.dtype) == ((2, 6, 6, 3), np.uint8)
        np.testing.assert_array_equal(images[0], from_folder.astype(int) * levels // 256)
        grey = np.asarray(Image.fromarray(from_folder).convert("L"))[None, ..., None]
        images = tfnvp.data.read_images(paths[:1], (6, 6, 1), levels)
        np.testing.assert_array_equal(images, grey.astype(int) * levels // 256)


@pytest.mark.parametrize(
    ("image_shape", "part"),
    [((2, 9, 3), np.s_[2:4]), ((6, 2, 3), np.s_[:, 3:5]), ((6, 9, 3), np.s_[:])],
)
def test_pictures_are_cut_to_the_proportions_about_the_middle(image_shape, part, tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.png", image_shape), RGB[part])


def test_areas_are_averaged(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    means = RGB.reshape(2, 3, 3, 3, 3).mean(axis=(1, 3))
    # Pillow rounds twice, once for each direction.
    np.testing.assert_allclose(image_files.read(tmp_path / "a.png", (2, 3, 3)), means, atol=1)


def test_other_channels_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1 or 3 channels, the model's images have 4"):
        image_files.read(tmp_path / "a.png", (8, 8, 4))


def truncated(path):
    noise = RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:6000])


BROKEN = {
    "not a PNG or JPEG file": lambda path: path.write_text("no picture\n"),
    "not a PNG or JPEG file: ": lambda path: Image.fromarray(RGB).save(path, format="gif"),
    "an empty file": lambda path: path.touch(),
    "truncated": truncated,
    "Is a directory": lambda path: path.mkdir(),
    "No such file or directory": lambda path: None,
    "megapixels": lambda path: Image.fromarray(RGB).save(path),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_what_cannot_be_read_is_named_in_one_line(reason, tmp_path, monkeypatch):
    path = tmp_path / "broken.png"
    BROKEN[reason](path)
    if reason == "megapixels":
        monkeypatch.setattr(image_files, "_MOST_PIXELS", 20)
    with pytest.raises(tfnvp.data.ImageFileError) as caught:
        tfnvp.data.read_images([path], (8, 8, 1))
    message = str(caught.value)
    assert reason in message and str(path) in message
    assert len(message.splitlines()) == 1
    assert str(path) not in caught.value.reason

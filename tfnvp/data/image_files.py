"""The one reader of PNG and JPEG files: for folders, for the command and for your own programs."""

import os
from collections.abc import Iterable

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

# The largest cameras make pictures of this size, and one of it takes gigabytes to read.
_MOST_PIXELS = 200_000_000
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# A PNG names its transparent grey in its own bits, but Pillow gives 2 and 4 bits as 8.
_GREYS_TO_8_BITS = {"L;2": 85, "L;4": 17}
# These are an entry of EXIF data, and a type of its value.
_ORIENTATION, _LONG = 0x0112, 4
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageFileError(ValueError):
    """A file cannot be read as a picture.

    Attributes:
        reason: why not, one line without the file's name.
    """

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{reason}: {os.fspath(path)}")
        self.reason = reason


def read(path: str | os.PathLike, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Reads a PNG or JPEG file as an image uint8 [height, width, channels], in 0..255.

    The picture is turned as its EXIF orientation says and laid on white where it is transparent;
    of 16 bits the upper 8 remain; colours become grey by ITU-R 601. The largest part from
    the middle that has the proportions of `image_shape`, in whole pixels, is averaged over areas to
    its size.

    Raises:
        ImageFileError: if the file is no PNG or JPEG, empty, cut off, absent, or of more than 200
            megapixels; it names the file, in one line.
        ValueError: for other channels than 1 (grey) and 3 (RGB).
    """
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise ValueError(f"image files have 1 or 3 channels, the model's images have {channels}")
    try:
        image = _upright_on_white(path)
    except ImageFileError:
        raise
    except Exception as error:  # Pillow raises a dozen types, down to struct.error, on bad files.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ImageFileError(path, reason or type(error).__name__) from None
    image = image if channels == 3 else image.convert("L")
    part = _central_part(image.width, image.height, height, width)
    image = image.resize((width, height), Image.Resampling.BOX, box=part)
    return np.array(image).reshape(image_shape)


def read_images(
    paths: Iterable[str | os.PathLike], image_shape: tuple[int, int, int], levels: int = 256
) -> np.ndarray:
    """Reads PNG and JPEG files as a model's images: in its shape and its levels.

    Pictures are turned by EXIF, laid on white, cut to the shape's proportions about the middle and
    averaged over areas to its size. A value v of 0..255 becomes the level floor(v * levels / 256).

    Args:
        image_shape: (height, width, channels), of 1 channel or 3, such as `model.image_shape`.
        levels: how many values a pixel takes, such as `model.levels`.

    Returns:
        uint8 [N, height, width, channels], in 0..levels-1.

    Raises:
        ImageFileError: for a file that cannot be read; the message names it.
        ValueError: for another number of channels.

    Example:
        >>> import numpy as np, PIL.Image, tempfile
        >>> path = tempfile.mkdtemp() + "/grey.png"
        >>> PIL.Image.fromarray(np.full([48, 64], 128, np.uint8)).save(path)
        >>> tfnvp.data.read_images([path], (2, 2, 1), levels=17)[0, :, :, 0]
        array([[8, 8],
               [8, 8]], dtype=uint8)
    """
    return in_levels(np.stack([read(path, image_shape) for path in paths]), levels)


def in_levels(images: np.ndarray, levels: int) -> np.ndarray:
    """Gives images of 256 levels as those of another number of levels, uint8."""
    return (images.astype(np.int32) * levels // 256).astype(np.uint8)


def _opened(path: str | os.PathLike) -> Image.Image:
    """A PNG or JPEG file, of which the header is read.

    The formats are opened by name: `Image.open` would run Ghostscript on an EPS file that is called
    .png, and warns of large pictures without saying which.
    """
    with open(path, "rb") as file:
        start = file.read(len(_PNG))
    if start != _PNG and not start.startswith(_JPEG):
        raise ImageFileError(path, "not a PNG or JPEG file" if start else "an empty file")
    image = PngImageFile(path) if start == _PNG else JpegImageFile(path)
    if (pixels := image.width * image.height) > _MOST_PIXELS:
        image.close()
        reason = f"{pixels / 1e6:.0f} megapixels, which is more than the {_MOST_PIXELS / 1e6:.0f}"
        raise ImageFileError(path, f"{reason} that are read")
    return image


def _upright_on_white(path: str | os.PathLike) -> Image.Image:
    """The picture upright, as RGB of 8 bits, on white where the file has it transparent."""
    with _opened(path) as image:
        layout = image.tile[0][3]  # Pillow forgets how the file stores pixels when it decodes them.
        image.load()
        transparent = image.info.get("transparency")
        turn = _TURNS.get(_orientation(image.info.get("exif", b"")))
        if image.mode.startswith("I"):  # This is grey of 16 bits, which Pillow would clip at 255.
            values = np.asarray(image)
            image = Image.fromarray((values >> 8).astype(np.uint8))
            if transparent is not None:
                image.putalpha(_opaque(values != transparent))
        elif transparent is not None and layout in _GREYS_TO_8_BITS:
            image.info["transparency"] = transparent * _GREYS_TO_8_BITS[layout]
        elif transparent is not None and layout == "RGB;16B":
            values = np.asarray(image).astype(np.uint16) << 8 | _low_bytes(path)
            image.putalpha(_opaque(np.any(values != transparent, axis=-1)))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def _orientation(exif: bytes) -> int:
    """The orientation that EXIF data gives; 1 where it gives none, or is broken.

    Pillow's own would take it from elsewhere too, such as XMP and comments, where other readers do
    not look for it.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "little", b"MM": "big"}.get(exif[:2])

    def number(place: int, size: int) -> int:
        return int.from_bytes(exif[place : place + size].ljust(size, b"\0"), order)

    if order is None:
        return 1
    directory = number(4, 4)
    for entry in range(directory + 2, len(exif), 12)[: number(directory, 2)]:
        if number(entry, 2) == _ORIENTATION:
            return number(entry + 8, 4 if number(entry + 2, 2) == _LONG else 2)
    return 1


def _low_bytes(path: str | os.PathLike) -> np.ndarray:
    """The lower bytes [H, W, 3] of colours of 16 bits, of which Pillow gives the upper ones."""
    with _opened(path) as image:
        # Told that values are little-endian, Pillow keeps the second, lower byte of each.
        image.tile = [image.tile[0]._replace(args="RGB;16L")]
        return np.asarray(image)


def _opaque(where: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(where, 255, 0).astype(np.uint8))


def _central_part(
    image_width: int, image_height: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """The largest part of a picture, from its middle, with the proportions of height and width.

    It is (left, top, right, bottom), in whole pixels.
    """
    rows = min(image_height, max(1, round(image_width * height / width)))
    columns = min(image_width, max(1, round(image_height * width / height)))
    left, top = (image_width - columns) // 2, (image_height - rows) // 2
    return left, top, left + columns, top + rows

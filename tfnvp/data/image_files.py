"""The one reader of PNG and JPEG files: for folders, for the command and for your own programs."""

import os
from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# A PNG names its transparent grey in its own bits, but Pillow gives 2 and 4 bits as 8.
_GREYS_TO_8_BITS = {"L;2": 85, "L;4": 17}


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
    of 16 bits the upper 8 remain. The largest part from the middle that has the proportions of
    `image_shape`, in whole pixels, is averaged over areas to its size.

    Raises:
        ImageFileError: if the file is no PNG or JPEG, empty, cut off, absent, or so large that
            Pillow takes it for a decompression bomb; it names the file, in one line.
        ValueError: for other channels than 1 (grey) and 3 (RGB).
    """
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise ValueError(f"image files have 1 or 3 channels, the model's images have {channels}")
    try:
        # The formats are named: Pillow would run Ghostscript on an EPS file that is called .png.
        with Image.open(path, formats=("PNG", "JPEG")) as file:
            image = _on_white(file)
    except UnidentifiedImageError:
        reason = "not a PNG or JPEG file" if os.path.getsize(path) else "an empty file"
        raise ImageFileError(path, reason) from None
    except Exception as error:  # Pillow raises a dozen types, down to struct.error, on bad files.
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ImageFileError(path, reason or type(error).__name__) from None
    image = _cropped(image if channels == 3 else image.convert("L"), height, width)
    return np.array(image.resize((width, height), Image.Resampling.BOX)).reshape(image_shape)


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
    images = np.stack([read(path, image_shape) for path in paths])
    return (images.astype(np.int32) * levels // 256).astype(np.uint8)


def _on_white(file: Image.Image) -> Image.Image:
    """The picture upright, as RGB of 8 bits, on white where the file has it transparent."""
    layout = file.tile[0][3]  # Pillow forgets how the file stores pixels when it decodes them.
    image = ImageOps.exif_transpose(file)
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # This is grey of 16 bits, which Pillow would clip at 255.
        values = np.asarray(image)
        image = Image.fromarray((values >> 8).astype(np.uint8))
        if transparent is not None:
            image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype("uint8")))
    elif transparent is not None and layout in _GREYS_TO_8_BITS:
        image.info["transparency"] = transparent * _GREYS_TO_8_BITS[layout]
    elif transparent is not None and layout == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _cropped(image: Image.Image, height: int, width: int) -> Image.Image:
    """The largest part of a picture, from its middle, with the proportions of height and width."""
    rows = min(image.height, max(1, round(image.width * height / width)))
    columns = min(image.width, max(1, round(image.height * width / height)))
    left, top = (image.width - columns) // 2, (image.height - rows) // 2
    return image.crop((left, top, left + columns, top + rows))

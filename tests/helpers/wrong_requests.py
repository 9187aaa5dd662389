"""Requests that an export cannot answer, as a whole or in some rows, and what it says of them."""

import io

import numpy as np
from PIL import Image

ROWS = 64
SEEDS = np.arange(ROWS) * 2**31
TEMPERATURES = np.linspace(0, 1, ROWS, dtype="float32")


def array(x):
    """The array that is fed: numbers as they are, `bytes` as strings."""
    return np.array([x], object) if isinstance(x, bytes) else np.asarray(x)


def file_of(values, kind="PNG"):
    """The PNG or JPEG file of uint8 [height, width, channels]."""
    file = io.BytesIO()
    Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(file, format=kind)
    return file.getvalue()


def wrong_requests(served):
    """(signature, inputs, part of the error) of what has a wrong rank, shape or dtype."""
    name = "images" if served.images else "vectors"
    data, _ = served.data(served.shapes[0])
    sizes = served.signatures["log_prob"].inputs[name].tensor_shape.dim[1:]
    takes = ", ".join("any" if dim.size == -1 else str(dim.size) for dim in sizes)
    takes = f"{name} must be {'uint8' if served.images else 'float32'} [rows, {takes}], got shape"
    latents = np.zeros(data.shape, "float32")
    yield "log_prob", {name: data[0]}, takes + f"] [{' '.join(map(str, data[0].shape))}]"
    yield "log_prob", {name: data.flat[0]}, takes
    yield "log_prob", {name: data[..., :1]} if data.shape[-1] > 1 else {name: data[:, :2]}, takes
    yield "log_prob", {}, f"placeholder tensor 'log_prob_{name}'"
    yield "log_prob", {name: data.astype("int64")}, "int64"
    yield "decode", {"latents": latents.reshape(ROWS, -1)[:, :2]}, "latents must be float32 [rows, "
    if "sample" in served.signatures:
        seed, temperature = {"seed": SEEDS}, {"temperature": TEMPERATURES}
        yield "sample", {"seed": 1} | temperature, "seed must be int64 [rows], got shape"
        few = {"temperature": TEMPERATURES[:3]}
        yield "sample", seed | few, "temperature must have as many rows as seed, got] [3]"
    if served.images and served.any_size:
        odd = {name: data[:, :3]}, "images must have a height and width that 2 divides, got] [3 4]"
        yield "log_prob", *odd


def faulty_requests(served):
    """(signature, inputs, texts by row) of requests in which some rows cannot be answered."""
    expected = served.expected(served.shapes[0])
    name = "images" if served.images else "vectors"

    def changed(signature, key, rows):
        inputs = {k: x.copy() for k, x in expected[signature][0].items()}
        for row, value in rows.items():
            inputs[key][row] = value
        return signature, inputs

    infinite = "must be finite, got NaN or infinity"
    rows = {1: np.nan, 3: np.inf}
    yield *changed("decode", "latents", rows), dict.fromkeys(rows, f"latents {infinite}")
    if "sample" in expected:
        message = "temperature must be finite and 0 or more, got"
        told = {0: f"{message} -0.5", 2: f"{message} nan"}
        yield *changed("sample", "temperature", {0: -0.5, 2: np.nan}), told
    if served.model.num_classes:
        told = {row: f"label must be 0..2, or -1 for p(x), got {y}" for row, y in ((0, 3), (5, -2))}
        yield *changed("log_prob", "label", {0: 3, 5: -2}), told
        yield *changed("encode", "label", {0: 3, 5: -2}), told
    if served.model.context_size:
        yield *changed("log_prob", "label", {2: np.nan}), {2: f"label {infinite}"}
    if not served.images:
        for signature in ("log_prob", "encode"):
            yield *changed(signature, name, rows), dict.fromkeys(rows, f"vectors {infinite}")
        return
    top = served.model.levels - 1
    if top < 255:
        told = {2: f"images must have values 0..{top}, got up to {top + 1}"}
        yield *changed("log_prob", name, {2: top + 1}), told
    if "score_encoded" in served.signatures:
        wrong = dict(enumerate(wrong_files(served), start=1))
        told = {row: f"image_bytes must hold {message}" for row, (_, message) in wrong.items()}
        files = {row: file for row, (file, _) in wrong.items()}
        yield *changed("score_encoded", "image_bytes", files), told


def wrong_files(served):
    """Files that cannot be scored, and what is said of each after what it must hold."""
    height, width, channels = served.shapes[0]
    kinds = "PNG" if channels == 4 else "PNG or JPEG"
    random = np.random.default_rng(1)
    image = random.integers(0, 256, served.shapes[0], dtype=np.uint8)
    png = file_of(image)
    yield b"", f"{kinds} files, got something else"
    yield b"text", f"{kinds} files, got something else"
    yield png[:20], f"whole {kinds} files, got one cut off"
    yield png[:50], f"whole {kinds} files, got one cut off"
    yield png[:-1], f"whole {kinds} files, got one cut off"
    middle = png.index(b"IDAT") + 8
    broken = png[:middle] + bytes([png[middle] ^ 255]) + png[middle + 1 :]
    yield broken, f"whole {kinds} files, got one that is damaged"
    if channels == 4:
        yield file_of(image[..., :3]), "images with alpha, got one without"
        yield file_of(image[..., :3], "JPEG"), "PNG files, got something else"
        return
    jpeg = file_of(image, "JPEG")
    yield jpeg[:100], "whole PNG or JPEG files, got one cut off"
    yield jpeg[:20] + jpeg[-2:], "whole PNG or JPEG files, got one that is damaged"
    if served.any_size:
        yield file_of(image[:2], "JPEG"), f"images of one size, got 2 x {width}"
        another = image[:-1]
        message = f"images with a height and width that 2 divides, got {height - 1} x {width}"
    else:
        another = image[:, :-1]
        message = f"images of {height} x {width} pixels, got {height} x {width - 1}"
    for kind in ("PNG", "JPEG"):
        yield file_of(another, kind), message

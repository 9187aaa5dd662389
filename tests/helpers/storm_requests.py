"""Requests of good and of bad callers to exports of images [8, 8, 1] of 17 levels."""

import numpy as np

from helpers import pictures

LEVELS, SHAPE = 17, (8, 8, 1)


def good_requests(random):
    """Requests of one to three rows of each signature but `sample`, whose pixels may round."""
    file = pictures.png(random.integers(0, 256, SHAPE[:2]), pictures.GREY, 8)
    files = [file, pictures.jpeg(shape=SHAPE[:2])]
    for rows in (1, 2, 3):
        images = random.integers(0, LEVELS, (rows, *SHAPE), dtype=np.uint8)
        yield "log_prob", {"images": images}
        yield "encode", {"images": images}
        yield "decode", {"latents": random.normal(size=(rows, *SHAPE)).astype("float32")}
        yield "score_encoded", {"image_bytes": np.array(files * rows, object)[:rows]}


def bad_requests(random, count):
    """Requests that are wrong in their shape, dtype, values or files."""
    files = [*pictures.corpus().values()]
    vast = pictures.vast_png(20_000), pictures.vast_jpeg(60_000, 3_000)

    def wrong_array(dtypes):
        shape = random.integers(0, 9, random.integers(0, 6))
        if random.integers(2):
            shape = (random.integers(1, 4), *SHAPE)  # It has the right shape, and any dtype.
        dtype = dtypes[random.integers(len(dtypes))]
        return (100 * random.normal(size=shape)).astype(dtype)

    def wrong_file():
        file = bytearray(files[random.integers(len(files))])
        kind = random.integers(5)
        if kind == 0:
            return bytes(file[: random.integers(len(file))])
        if kind == 1:
            for _ in range(random.integers(1, 20)):
                file[random.integers(len(file))] = random.integers(256)
            return bytes(file)
        if kind == 2:
            return random.bytes(random.integers(200))
        return vast[kind - 3]

    def value(floats, *special):
        floats = floats.astype("float32")
        floats.flat[random.integers(floats.size)] = special[random.integers(len(special))]
        return floats

    arrays = ("uint8", "int32", "int64", "float32")
    for _ in range(count):
        rows = int(random.integers(1, 4))
        kind = random.integers(7)
        if kind == 0:
            yield ["log_prob", "encode"][random.integers(2)], {"images": wrong_array(arrays)}
        elif kind == 1:
            yield "decode", {"latents": wrong_array(arrays)}
        elif kind == 2:
            images = random.integers(0, 256, (rows, *SHAPE), dtype=np.uint8)
            images[0, 0, 0, 0] = LEVELS
            yield ["log_prob", "encode"][random.integers(2)], {"images": images}
        elif kind == 3:
            latents = value(random.normal(size=(rows, *SHAPE)), np.nan, np.inf, -np.inf, 3e38)
            yield "decode", {"latents": latents}
        elif kind == 4:
            temperature = value(np.ones(rows), np.nan, np.inf, -1, 3e38)
            yield "sample", {"seed": np.arange(rows), "temperature": temperature}
        elif kind == 5:
            seeds = np.arange(random.integers(0, 4))
            yield "sample", {"seed": seeds, "temperature": np.ones(rows, "float32")}
        else:
            yield (
                "score_encoded",
                {"image_bytes": np.array([wrong_file() for _ in range(rows)], object)},
            )

"""Good callers are answered the same, whoever else's rows are in their batches.

The C++ loader runs the graph, and the test puts rows together as TF Serving's batching does.
"""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import pictures
from tensorflow.core.protobuf import saved_model_pb2

import tfnvp

PROGRAM = Path(__file__).parents[1] / "helpers" / "merging_program.py"
LEVELS, SHAPE = 17, (8, 8, 1)


@pytest.fixture(scope="module")
def path(tiny_model, tmp_path_factory):
    model = tiny_model(SHAPE, levels=LEVELS)
    return tfnvp.export_saved_model(model, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def job(path):
    """job(signature, inputs): what the program takes."""
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    signatures = saved.meta_graphs[0].signature_def

    def job(signature, inputs):
        definition = signatures[signature]
        feeds = {definition.inputs[key].name: np.asarray(x) for key, x in inputs.items()}
        return feeds, [definition.outputs[key].name for key in sorted(definition.outputs)]

    return job


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


def storm(path, job, seconds, count=1000):
    random = np.random.default_rng(20)
    good = [job(*request) for request in good_requests(random)]
    bad = [job(*request) for request in bad_requests(random, count)]
    assert len(bad) == count
    done = subprocess.run(
        [sys.executable, PROGRAM, Path(tf.__file__).parent],
        input=pickle.dumps((str(path), good, bad, seconds)),
        stdout=subprocess.PIPE,
        check=True,
    )
    failures, good_count, bad_count, mixed, again, growth = pickle.loads(done.stdout)
    print(f"{good_count} good and {bad_count} bad in {seconds} s, memory grew by {growth:.1f} MB")
    print(f"{again} times a good caller asked again, for a batch had different shapes")
    assert not failures, failures[:5]
    assert bad_count >= count and good_count > count / 10
    assert mixed > 10, "rows of good and bad callers must have been in one batch"
    assert again > 0, "shapes must have differed in some batches"
    assert growth < 50


def test_a_thousand_bad_requests_change_no_good_answer(path, job):
    storm(path, job, seconds=2)


@pytest.mark.slow
def test_a_minute_of_bad_requests_changes_no_good_answer(path, job):
    storm(path, job, seconds=60)

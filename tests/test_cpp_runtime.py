"""Exports answer to the C++ loader that TF Serving is built on, where no Python TensorFlow is.

TFNVP_SERVING_SECONDS=60 runs the mixed requests for a minute; here they take some seconds. As in
`serving/`, oneDNN is off: docs/serving.md says why.
"""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

import tfnvp

SECONDS = float(os.environ.get("TFNVP_SERVING_SECONDS", 5))
LEVELS, INVALID_ARGUMENT = 17, 3
RUNNER = Path(__file__).with_name("cpp_runtime.py")


def png(array, mode=None):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, format="PNG")
    return file.getvalue()


IMAGES = np.random.default_rng(0).integers(0, LEVELS, (64, 4, 4, 1), dtype=np.uint8)
FILES = np.array([png((i[..., 0].astype(int) * 256 // LEVELS + 1).astype("uint8")) for i in IMAGES])
FILES = np.array(FILES.tolist(), object)
SEEDS, WARM = np.arange(64), np.ones(64, "float32")
GREY = np.zeros((4, 4), np.uint8)

WRONG = {
    "rank": ("log_prob", {"images": IMAGES[0]}, "images must be uint8 [rows, 4, 4, 1], got shape"),
    "scalar": ("log_prob", {"images": np.uint8(1)}, "images must be uint8 [rows, 4, 4, 1], got"),
    "size": ("log_prob", {"images": IMAGES[:, :2]}, "images must be uint8 [rows, 4, 4, 1], got"),
    "level": ("log_prob", {"images": IMAGES + 1}, "images must have values 0..16, got up to"),
    "latents": ("decode", {"latents": np.full((1, 4, 4, 1), np.nan, "f4")}, "latents must be fin"),
    "seed": (
        "sample",
        {"seed": np.int64(1), "temperature": WARM},
        "seed must be int64 [rows], got shape",
    ),
    "flat latents": ("decode", {"latents": np.zeros((2, 16), "f4")}, "latents must be float32 ["),
    "temperature": (
        "sample",
        {"seed": SEEDS[:1], "temperature": -WARM[:1]},
        "temperature must be finite and 0 or more",
    ),
    "rows": (
        "sample",
        {"seed": SEEDS[:2], "temperature": WARM[:3]},
        "temperature must have as many rows as seed",
    ),
    "text": ("score_encoded", {"image_bytes": b"text"}, "image_bytes must hold PNG or JPEG files"),
    "empty": ("score_encoded", {"image_bytes": b""}, "image_bytes must hold PNG or JPEG files"),
    "cut": ("score_encoded", {"image_bytes": png(GREY)[:50]}, "image_bytes_must_hold_whole"),
    "other size": ("score_encoded", {"image_bytes": png(GREY[:2])}, "images of 4 x 4 pixels"),
    "alpha": ("score_encoded", {"image_bytes": png(np.zeros((4, 4, 2), "u1"))}, "without alpha"),
    "16 bits": ("score_encoded", {"image_bytes": png(GREY.astype("u2"))}, "up to 8 bits"),
}


class Served:
    """An export, its signatures' tensor names, and jobs for the runner."""

    def __init__(self, path):
        self.path = path
        saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
        self.signatures = saved.meta_graphs[0].signature_def

    def job(self, signature, inputs):
        definition = self.signatures[signature]
        feeds = {definition.inputs[key].name: np.asarray(x) for key, x in inputs.items()}
        return feeds, [definition.outputs[key].name for key in sorted(definition.outputs)]

    def run(self, jobs, tmp_path, seconds=0):
        (tmp_path / "jobs").write_bytes(pickle.dumps(jobs))
        libraries = Path(tf.__file__).parent
        paths = [libraries, self.path, tmp_path / "jobs", tmp_path / "results", seconds]
        command = [sys.executable, RUNNER, *map(str, paths)]
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
        return pickle.loads((tmp_path / "results").read_bytes())


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model((4, 4, 1), num_scales=2, levels=LEVELS)


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    return Served(tfnvp.export_saved_model(model, tmp_path_factory.mktemp("export") / "tiny"))


def requests(rows, latents):
    return {
        "serving_default": {"images": IMAGES[:rows]},
        "log_prob": {"images": IMAGES[:rows]},
        "score_encoded": {"image_bytes": FILES[:rows]},
        "encode": {"images": IMAGES[:rows]},
        "decode": {"latents": latents[:rows]},
        "sample": {"seed": SEEDS[:rows], "temperature": WARM[:rows]},
    }


def test_the_cpp_runtime_answers_as_the_model_and_refuses_what_it_should(model, served, tmp_path):
    latents = model.encode(IMAGES).numpy()
    jobs = [
        served.job(name, inputs)
        for rows in (64, 3, 1, 0)
        for name, inputs in requests(rows, latents).items()
    ]
    for signature, inputs, _ in WRONG.values():
        array = {k: np.array([v], object) if isinstance(v, bytes) else v for k, v in inputs.items()}
        jobs.append(served.job(signature, array))
    answers, failures, runs, growth = served.run(jobs, tmp_path, SECONDS)

    many = answers[:6]
    log_prob, bits = model.log_prob(IMAGES).numpy(), model.bits_per_dim(IMAGES).numpy()
    for scored in many[:3]:
        np.testing.assert_allclose(scored[0], bits, rtol=1e-5)
        np.testing.assert_allclose(scored[1], log_prob, rtol=1e-5)
    np.testing.assert_allclose(many[3][0], latents, atol=1e-4)
    np.testing.assert_array_equal(many[4][0], IMAGES)
    assert many[5][0].std() > 1
    for i, rows in enumerate((3, 1, 0), start=1):
        for answer, all_rows in zip(answers[6 * i : 6 * (i + 1)], many, strict=True):
            assert isinstance(answer, list), answer
            for a, b in zip(answer, all_rows, strict=True):
                assert a.shape == b[:rows].shape
                atol = 1 if a.dtype == np.uint8 else 1e-4
                np.testing.assert_allclose(a.astype(float), b[:rows], rtol=1e-5, atol=atol)
    for answer, (_, _, message) in zip(answers[24:], WRONG.values(), strict=True):
        assert isinstance(answer, tuple), message
        assert answer[0] == INVALID_ARGUMENT and message in answer[1], answer

    print(f"{runs} requests of 8 threads in {SECONDS} s, memory grew by {growth:.1f} MB")
    assert not failures, failures[:5]
    assert runs > 10 * SECONDS
    assert growth < 30


def test_the_warm_up_has_a_request_a_signature_that_is_answered(served, tmp_path):
    prediction_log_pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = served.path / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    sent = [log.predict_log.request for log in logs]
    names = [request.model_spec.signature_name for request in sent]
    assert sorted([*names, "serving_default"]) == sorted(
        name for name in served.signatures if not name.startswith("__")
    )
    jobs = [
        served.job(
            request.model_spec.signature_name,
            {key: tf.make_ndarray(value) for key, value in request.inputs.items()},
        )
        for request in sent
    ]
    answers = served.run(jobs, tmp_path)[0]
    assert all(isinstance(answer, list) for answer in answers), answers

"""The client against a small server; the server's configuration against the published protos.

A real server is asked too, where `tensorflow_model_server` is on the PATH or TF_SERVING_URL names
one (grpc://host:8500 or http://host:8501) that serves saved_models/ by serving/models.config.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.serving import Client, ServingError

pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

sys.path.insert(0, str(Path(__file__).parent))
from helpers import serving_server

ROOT = Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).integers(0, 17, (3, 4, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def flow(tiny_model):
    return tiny_model((4, 4, 1), levels=17)


@pytest.fixture(scope="module")
def server(flow, tmp_path_factory):
    path = tfnvp.export_saved_model(flow, tmp_path_factory.mktemp("export") / "tiny")
    served = serving_server.Model(path, "tiny")
    with serving_server.serve(served) as (served.grpc, served.http):
        yield served


@pytest.fixture(params=["grpc", "http"])
def url(request, server):
    return getattr(server, request.param)


def test_answers_are_the_models(url, flow):
    client = Client(url, "tiny")
    np.testing.assert_allclose(client.log_prob(IMAGES), flow.log_prob(IMAGES), rtol=1e-5)
    np.testing.assert_allclose(client.bits_per_dim(IMAGES), flow.bits_per_dim(IMAGES), rtol=1e-5)
    latents = client.encode(IMAGES)
    np.testing.assert_allclose(latents, flow.encode(IMAGES), atol=1e-4)
    decoded = client.decode(latents)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, IMAGES)
    drawn = client.sample([5, 6, 5], temperature=0.7)
    assert drawn.shape == (3, 4, 4, 1)
    np.testing.assert_allclose(drawn[0].astype(int), drawn[2], atol=1)
    files = [tf.io.encode_png(image * 15 + 8).numpy() for image in IMAGES]
    expected = flow.log_prob(((IMAGES.astype(int) * 15 + 8) * 17 // 256).astype("uint8"))
    np.testing.assert_allclose(client.log_prob(files), expected, rtol=1e-5)
    client.close()


def test_errors_carry_the_servers_message(url):
    client = Client(url, "tiny")
    with pytest.raises(ServingError, match=r"images must have values 0\.\.16") as caught:
        client.log_prob(IMAGES + 17)
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(ServingError, match="latents must be finite"):
        client.decode(np.full((1, 4, 4, 1), np.nan))
    with pytest.raises(ServingError, match="Servable not found") as caught:
        Client(url, "other").log_prob(IMAGES)
    assert caught.value.code == "NOT_FOUND"


def test_what_is_unavailable_is_tried_again_and_nothing_else(url, server, flow):
    server.seen.clear()
    server.failures[:] = ["UNAVAILABLE", "UNAVAILABLE"]
    assert Client(url, "tiny").log_prob(IMAGES).shape == (3,)
    assert len(server.seen) == 3
    server.failures[:] = ["UNAVAILABLE"] * 2
    with pytest.raises(ServingError, match="UNAVAILABLE: busy"):
        Client(url, "tiny", retries=1).log_prob(IMAGES)
    server.seen.clear()
    server.failures[:] = ["INVALID_ARGUMENT"]
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: busy"):
        Client(url, "tiny").log_prob(IMAGES)
    assert len(server.seen) == 1


def test_the_deadline_ends_a_call(url, server, monkeypatch):
    monkeypatch.setattr(server, "slow", 1.5)
    started = time.monotonic()
    with pytest.raises(ServingError, match="DEADLINE_EXCEEDED"):
        Client(url, "tiny", timeout=0.3).log_prob(IMAGES)
    assert time.monotonic() - started < 1.2


def test_versions_and_labels_are_asked_for(url, server):
    for version in (None, 1, "stable"):
        Client(url, "tiny", version).log_prob(IMAGES)
        assert server.seen[-1] == ("tiny", version, "log_prob")


@pytest.mark.parametrize("url", ["grpc://127.0.0.1:1", "http://127.0.0.1:1"])
def test_no_server_is_unavailable(url):
    with pytest.raises(ServingError, match="UNAVAILABLE"):
        Client(url, "tiny", timeout=2, retries=1).log_prob(IMAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "host:8500"}, "url must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"retries": -1}, "retries must"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Client(**{"url": "http://localhost:8501", "model": "tiny", **arguments})


def test_the_server_configuration_is_of_the_published_protos():
    config = (ROOT / "serving" / "models.config").read_text()
    models = text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    served = {model.name: model for model in models.model_config_list.config}
    assert set(served) == set(tfnvp.presets.trained())
    for name, model in served.items():
        assert set(model.version_labels) == {"stable", "canary"}
        for version in model.version_labels.values():
            assert (ROOT / "saved_models" / name / str(version) / "saved_model.pb").is_file()


# Published as .proto files alone, not in tensorflow-serving-api: config/monitoring_config.proto and
# servables/tensorflow/session_bundle_config.proto, as far as they are used.
_MESSAGES = {
    "Count": {"value": "int64"},
    "Prometheus": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "Prometheus"},
    "BatchingParameters": {
        "max_batch_size": "Count",
        "batch_timeout_micros": "Count",
        "max_enqueued_batches": "Count",
        "num_batch_threads": "Count",
    },
}


def _message(name):
    file = descriptor_pb2.FileDescriptorProto(name="tfnvp_test.proto", package="tfnvp_test")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            added = described.field.add(name=field, number=number, label=1)
            if kind in _MESSAGES:
                added.type, added.type_name = 11, f".tfnvp_test.{kind}"
            else:
                added.type = {"int64": 3, "bool": 8, "string": 9}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfnvp_test.{name}"))()


def test_monitoring_and_batching_are_as_the_protos_have_them():
    monitoring = (ROOT / "serving" / "monitoring.config").read_text()
    parsed = text_format.Parse(monitoring, _message("MonitoringConfig"))
    assert parsed.prometheus_config.enable
    batching = (ROOT / "serving" / "batching_parameters.txt").read_text()
    parsed = text_format.Parse(batching, _message("BatchingParameters"))
    assert parsed.max_batch_size.value == 64


def test_a_real_server_answers(tmp_path):
    url, process = os.environ.get("TF_SERVING_URL"), None
    binary = shutil.which("tensorflow_model_server")
    if not url and not binary:
        pytest.skip("no tensorflow_model_server on the PATH and no TF_SERVING_URL")
    urls = [url]
    if not url:
        grpc_port, rest_port = _free_port(), _free_port()
        config = (ROOT / "serving" / "models.config").read_text()
        (tmp_path / "models.config").write_text(
            config.replace("/models", str(ROOT / "saved_models"))
        )
        process = subprocess.Popen(
            [
                binary,
                f"--port={grpc_port}",
                f"--rest_api_port={rest_port}",
                f"--model_config_file={tmp_path / 'models.config'}",
                "--allow_version_labels_for_unavailable_models=true",
                "--enable_batching=true",
                f"--batching_parameters_file={ROOT / 'serving' / 'batching_parameters.txt'}",
                f"--monitoring_config_file={ROOT / 'serving' / 'monitoring.config'}",
            ]
        )
        urls = [f"grpc://127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}"]
    try:
        model = tfnvp.ImageRealNVP.from_preset("digits", load_weights=True)
        images = next(iter(tfnvp.data.load("digits", "test", 4)))
        for address in urls:
            client = Client(address, "digits", "stable", timeout=60, retries=20)
            np.testing.assert_allclose(client.log_prob(images), model.log_prob(images), rtol=1e-4)
            np.testing.assert_array_equal(client.decode(client.encode(images)), images)
            assert client.sample([1, 2]).shape == (2, 8, 8, 1)
            with pytest.raises(ServingError, match="images must"):
                client.log_prob(images[:, :4])
    finally:
        if process:
            process.terminate()
            process.wait()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""A real server, where there is one: `tensorflow_model_server` on the PATH, or of TF_SERVING_URL.

The URL (grpc://host:8500 or http://host:8501) is of one that serves saved_models/ by
serving/models.config.
"""

import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfnvp
from tfnvp.serving import Client, ServingError, by_rest

pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
import grpc
import httpx
from helpers.storm_requests import bad_requests
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server's addresses, and its process if the test has started it."""
    url, binary = os.environ.get("TF_SERVING_URL"), shutil.which("tensorflow_model_server")
    if url:
        yield [url], None
        return
    if not binary:
        pytest.skip("no tensorflow_model_server on the PATH and no TF_SERVING_URL")
    grpc_port, rest_port = _free_port(), _free_port()
    config = tmp_path_factory.mktemp("server") / "models.config"
    text = (ROOT / "serving" / "models.config").read_text()
    config.write_text(text.replace("/models", str(ROOT / "saved_models")))
    process = subprocess.Popen(
        [
            binary,
            f"--port={grpc_port}",
            f"--rest_api_port={rest_port}",
            f"--model_config_file={config}",
            "--allow_version_labels_for_unavailable_models=true",
            "--enable_batching=true",
            f"--batching_parameters_file={ROOT / 'serving' / 'batching_parameters.txt'}",
            f"--monitoring_config_file={ROOT / 'serving' / 'monitoring.config'}",
        ]
    )
    yield [f"grpc://127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}"], process
    process.terminate()
    process.wait()


def client_of(address):
    return Client(address, "digits", "stable", timeout=60, retries=20)


@pytest.fixture(scope="module")
def images():
    return next(iter(tfnvp.data.load("digits", "test", 4)))


def test_it_answers_as_the_model_does(server, images):
    model = tfnvp.ImageRealNVP.from_preset("digits", load_weights=True)
    scores = model.log_prob(images).numpy()
    for client in map(client_of, server[0]):
        np.testing.assert_allclose(client.log_prob(images), scores, rtol=1e-4)
        np.testing.assert_array_equal(client.decode(client.encode(images)), images)
        assert client.sample([1, 2]).shape == (2, 8, 8, 1)
        with pytest.raises(ServingError, match="images must"):
            client.log_prob(images[:, :4])
        # More rows than a batch are cut, none are not sent, and faults stay with their rows.
        many = np.concatenate([images] * 20)
        np.testing.assert_allclose(client.log_prob(many), np.tile(scores, 20), rtol=1e-4)
        assert client.log_prob(images[:0]).shape == (0,)
        many[5] = 99
        with pytest.raises(ServingError, match="row 5: images must have values") as caught:
            client.log_prob(many)
        others = np.delete(caught.value.answers, 5)
        np.testing.assert_allclose(others, np.delete(np.tile(scores, 20), 5), rtol=1e-4)


def test_a_minute_of_bad_requests_changes_no_good_answer(server, images):
    """Two callers send a thousand bad requests beside four good ones, for a minute."""
    (address, *_), process = server
    # Behind batching a request of no rows is never answered.
    bad = [
        (signature, inputs)
        for signature, inputs in bad_requests(np.random.default_rng(20), 1000)
        if all(x.ndim and len(x) for x in inputs.values())
    ]
    alone = client_of(address).log_prob(images)
    end, turns, memory = time.monotonic() + 60, itertools.count(), []

    def good():
        client, asked = client_of(address), 0
        while time.monotonic() < end:
            np.testing.assert_allclose(client.log_prob(images), alone, rtol=0, atol=1e-5)
            asked += 1
        return asked

    def send_bad():
        send = _raw(address)
        while (i := next(turns)) < len(bad) or time.monotonic() < end:
            send(*bad[i % len(bad)])
            if process and i == len(bad) // 3:
                memory.append(_memory(process))

    with futures.ThreadPoolExecutor(6) as pool:
        callers = [pool.submit(good) for _ in range(4)]
        others = [pool.submit(send_bad) for _ in range(2)]
        asked = [caller.result() for caller in callers]
        for other in others:
            other.result()
    assert min(asked) > 10 and next(turns) > len(bad)
    assert not process or _memory(process) - memory[0] < 50


def _raw(address):
    """A function that sends a request whatever is in it, as other clients than tfnvp's do."""
    url = address.partition("://")[2]
    if address.startswith("http"):
        client = httpx.Client(timeout=60)
        path = f"{address}/v1/models/digits/labels/stable:predict"

        def send(signature, inputs):
            columns = {name: by_rest._as_json(x) for name, x in inputs.items()}
            body = json.dumps({"signature_name": signature, "inputs": columns})
            assert client.post(path, content=body).status_code in (200, 400, 503)

        return send
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(url))

    def send(signature, inputs):
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "digits", signature
        request.model_spec.version_label = "stable"
        for name, x in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(x))
        try:
            stub.Predict(request, timeout=60)
        except grpc.RpcError as error:
            refused = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE)
            assert error.code() in refused, error

    return send


def _memory(process):
    """The resident memory of a process, MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kilobytes) / 1024


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

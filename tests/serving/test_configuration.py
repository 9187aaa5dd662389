"""The configuration in serving/ against the published protos, and a real server where there is one.

A real server is asked where `tensorflow_model_server` is on the PATH or TF_SERVING_URL names one
(grpc://host:8500 or http://host:8501) that serves saved_models/ by serving/models.config.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest

import tfnvp
from tfnvp.serving import Client, ServingError, calls

pytest.importorskip("tensorflow_serving", reason="the extra `serving` is not installed")
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

ROOT = Path(__file__).parents[2]


def test_the_server_configuration_is_of_the_published_protos():
    config = (ROOT / "serving" / "models.config").read_text()
    models = text_format.Parse(config, model_server_config_pb2.ModelServerConfig())
    served = {model.name: model for model in models.model_config_list.config}
    assert set(served) == set(tfnvp.presets.trained())
    for name, model in served.items():
        assert set(model.version_labels) == {"stable", "canary"}
        loaded = list(model.model_version_policy.specific.versions)
        assert loaded == sorted(set(model.version_labels.values()))
        for version in loaded:
            assert (ROOT / "saved_models" / name / str(version) / "saved_model.pb").is_file()


# Published as .proto files alone, not in tensorflow-serving-api: config/monitoring_config.proto and
# servables/tensorflow/session_bundle_config.proto, as far as they are used.
_MESSAGES = {
    "Count": {"value": "int64"},
    "Truth": {"value": "bool"},
    "Prometheus": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "Prometheus"},
    "BatchingParameters": {
        "max_batch_size": "Count",
        "batch_timeout_micros": "Count",
        "max_enqueued_batches": "Count",
        "num_batch_threads": "Count",
        "enable_large_batch_splitting": "Truth",
        "max_execution_batch_size": "Count",
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
    assert parsed.enable_large_batch_splitting.value
    assert parsed.max_execution_batch_size.value == 64
    # The client's largest request is one that the server takes.
    assert calls.MOST_ROWS <= parsed.max_batch_size.value == 4096


def test_the_dashboard_parses_and_asks_for_metrics_that_the_docs_explain():
    dashboard = json.loads((ROOT / "serving" / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    metrics = set(
        re.findall(r'__name__="(:[\w:]+?)(?:_bucket|_sum|_count)?"', " ".join(expressions))
    )
    assert len(dashboard["panels"]) >= 6 and len(metrics) >= 5
    docs = (ROOT / "docs" / "serving.md").read_text()
    assert all(f"`{metric}" in docs for metric in metrics), metrics
    for expression in expressions:
        assert expression.count("(") == expression.count(")")


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
            scores = model.log_prob(images).numpy()
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
            asked = neighbours(client, images, scores)
            assert min(asked) > 10
    finally:
        if process:
            process.terminate()
            process.wait()


def neighbours(client, images, scores):
    """How often good and bad callers asked side by side for 3 s; each good answer is looked at."""
    end, asked = time.monotonic() + 3, [0, 0]

    def good():
        while time.monotonic() < end:
            np.testing.assert_allclose(client.log_prob(images), scores, rtol=1e-4)
            asked[0] += 1

    def bad():
        while time.monotonic() < end:
            with pytest.raises(ServingError):
                client.log_prob([b"text"])
            with pytest.raises(ServingError):
                client.log_prob(images + 17)
            asked[1] += 1

    with futures.ThreadPoolExecutor(6) as pool:
        for work in [pool.submit(call) for call in (good, good, good, good, bad, bad)]:
            work.result()
    return asked


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

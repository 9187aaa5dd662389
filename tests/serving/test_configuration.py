"""The configuration in serving/ against the published protos."""

import json
import re
from pathlib import Path

import pytest

import tfnvp
from tfnvp.serving import calls

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

"""The files for Docker Compose and Kubernetes in serving/, read as those programs read them."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "serving"
SHARED_FLAGS = {
    "--port=8500",
    "--rest_api_port=8501",
    "--model_config_file=/config/models.config",
    "--model_config_file_poll_wait_seconds=60",
    "--allow_version_labels_for_unavailable_models=true",
    "--monitoring_config_file=/config/monitoring.config",
}
BATCHING = {
    "--enable_batching=true",
    "--batching_parameters_file=/config/batching_parameters.txt",
}


@pytest.fixture(scope="module")
def yaml():
    return pytest.importorskip("yaml", reason="pyyaml is not installed")


@pytest.fixture(scope="module")
def services(yaml):
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.fixture(scope="module")
def resources(yaml):
    """The resources for Kubernetes by kind."""
    found = list(yaml.safe_load_all((ROOT / "kubernetes.yaml").read_text()))
    return {resource["kind"]: resource for resource in found}


@pytest.fixture(scope="module")
def pod(resources):
    return resources["Deployment"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["spec"]["containers"]
    return container


def test_compose_has_a_batched_and_an_unbatched_server(services):
    assert set(services["batched"]["command"]) == SHARED_FLAGS | BATCHING
    assert set(services["unbatched"]["command"]) == SHARED_FLAGS
    # The second one is started by its profile alone.
    assert "profiles" not in services["batched"] and services["unbatched"]["profiles"]


def test_compose_binds_this_machine_alone(services):
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == len(set(ports)) == 4
    for port in ports:
        host, outer, inner = port.split(":")
        assert host == "127.0.0.1" and inner in ("8500", "8501") and outer.isdigit()


def test_compose_gives_the_server_no_rights(services):
    for service in services.values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"].split(":")[0] not in ("0", "root")
        assert service["mem_limit"] and service["pids_limit"]
        assert all(volume.endswith(":ro") for volume in service["volumes"])
        for volume in service["volumes"]:
            assert (ROOT / volume.split(":")[0]).is_dir()


def test_both_run_the_same_server(services, container):
    assert container["image"] == services["batched"]["image"]
    assert container["command"] == services["batched"]["entrypoint"]
    assert set(container["args"]) == SHARED_FLAGS | BATCHING
    environment = {item["name"]: item["value"] for item in container["env"]}
    assert environment == services["batched"]["environment"]


def test_the_pods_are_locked_down(pod, container):
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["securityContext"]["runAsUser"] > 0
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    rights = container["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False and rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert mounts["models"]["readOnly"] is mounts["config"]["readOnly"] is True


def test_pods_are_ready_when_the_models_version_is(container):
    for name in ("startupProbe", "readinessProbe"):
        shell, option, script = container[name]["exec"]["command"]
        assert (shell, option) == ("bash", "-c")
        assert "GET /v1/models/digits HTTP/1.0" in script and '"state": "AVAILABLE"' in script
    assert container["startupProbe"]["failureThreshold"] > 10
    assert container["livenessProbe"]["tcpSocket"] == {"port": "grpc"}


def test_the_service_and_the_policy_are_of_these_pods(resources, pod, container):
    labels = pod["metadata"]["labels"]
    assert resources["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["Service"]["spec"]["selector"] == labels
    names = {port["name"]: port["containerPort"] for port in container["ports"]}
    for port in resources["Service"]["spec"]["ports"]:
        assert names[port["targetPort"]] == port["port"]
    policy = resources["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"} and policy["egress"] == []
    # A rule without `from` would let everybody in.
    assert all(rule["from"] and rule["ports"] for rule in policy["ingress"])
    scraped = pod["metadata"]["annotations"]
    monitoring = (ROOT / "monitoring.config").read_text()
    assert json.dumps(scraped["prometheus.io/path"]) in monitoring

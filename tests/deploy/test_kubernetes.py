"""What no schema says: names that meet, pods without privileges, and time enough to stop."""

import re
import tomllib
from typing import Any

import pytest
import yaml

from app.catalog.catalog import Catalog
from app.settings import GatewaySettings
from tests.deploy.contract import METRICS
from tests.deploy.manifests import OVERLAYS, containers, named, of_kind, pod, selects
from tests.deploy.promql import reads
from tests.deploy.tools import DEPLOY, ROOT
from workers.settings import WorkerSettings

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)

# Read by libraries from the environment: boto's and the Hugging Face hub's own names.
OTHERS = {"AWS_REGION", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_TOKEN"}


def config(overlay: str) -> dict[str, str]:
    (found,) = (
        manifest["data"]
        for manifest in of_kind(overlay, "ConfigMap")
        if manifest["metadata"]["name"].startswith("darkroom-")
    )
    data: dict[str, str] = found
    return data


def labels(deployment: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return found


def workers(overlay: str) -> list[dict[str, Any]]:
    found = of_kind(overlay, "Deployment")
    return [deployment for deployment in found if labels(deployment)["app.kubernetes.io/name"] == "worker"]


def test_pods_have_no_privileges(overlay: str) -> None:
    for deployment in of_kind(overlay, "Deployment"):
        context = pod(deployment)["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod(deployment)["automountServiceAccountToken"] is False
        for container in containers(deployment):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"].keys() == {"requests", "limits"}


def test_nothing_secret_is_here(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    for deployment in of_kind(overlay, "Deployment"):
        for container in containers(deployment):
            for variable in container.get("env", []):
                if re.search("TOKEN|KEY|SECRET|REDIS_URL", variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"]


def test_every_variable_is_read_by_somebody(overlay: str) -> None:
    known = {
        f"DARKROOM_{name}".upper() for settings in (GatewaySettings, WorkerSettings) for name in settings.model_fields
    } | OTHERS
    assert config(overlay).keys() <= known
    for deployment in of_kind(overlay, "Deployment"):
        for container in containers(deployment):
            assert {variable["name"] for variable in container.get("env", [])} <= known


def test_the_programs_take_these_settings(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = named(overlay, "Deployment", "gateway")
    for deployment, settings in ((gateway, GatewaySettings), (workers(overlay)[0], WorkerSettings)):
        (container,) = pod(deployment)["containers"]
        for name, value in config(overlay).items():
            monkeypatch.setenv(name, value)
        for variable in container["env"]:
            monkeypatch.setenv(variable["name"], variable.get("value", "redis://somewhere:6379/0"))
        settings()


def test_all_that_waits_for_a_start_or_an_end_has_probes(overlay: str) -> None:
    for deployment in of_kind(overlay, "Deployment"):
        for container in pod(deployment)["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["port"] in ports


def test_a_pod_has_time_to_drain(overlay: str) -> None:
    drain_s = float(config(overlay)["DARKROOM_DRAIN_TIMEOUT_S"])
    for deployment in workers(overlay):
        assert pod(deployment)["terminationGracePeriodSeconds"] >= 2 * drain_s


def test_each_model_has_workers_that_its_work_scales(overlay: str) -> None:
    models = config(overlay)["DARKROOM_MODELS"].split(",")
    assert sorted(labels(deployment)["darkroom/model"] for deployment in workers(overlay)) == sorted(models)
    assert set(models) <= set(Catalog.load())
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in of_kind(overlay, "ScaledObject")}
    assert scaled.keys() == {deployment["metadata"]["name"] for deployment in workers(overlay)}
    for deployment in workers(overlay):
        spec = scaled[deployment["metadata"]["name"]]
        model = labels(deployment)["darkroom/model"]
        assert "replicas" not in deployment["spec"]
        assert spec["minReplicaCount"] == 0 < spec["maxReplicaCount"]
        asked = [trigger["metadata"]["query"] for trigger in spec["triggers"]]
        assert [list(reads(query).metrics) for query in asked] == [
            ["darkroom_queue_work_seconds"],
            ["darkroom_jobs_in_progress"],
        ]
        for query in asked:
            assert f'{{model="{model}"}}' in query
            (metric,) = reads(query).metrics
            assert "model" in METRICS[metric]
        for trigger in spec["triggers"]:
            assert trigger["metadata"]["serverAddress"] == "http://prometheus.darkroom.svc:9090"
        (container,) = pod(deployment)["containers"]
        (told,) = (variable for variable in container["env"] if variable["name"] == "DARKROOM_MODELS")
        assert told["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['darkroom/model']"


def test_the_threshold_of_jobs_in_hand_is_what_a_worker_holds(overlay: str) -> None:
    for scaled in of_kind(overlay, "ScaledObject"):
        assert scaled["spec"]["triggers"][1]["metadata"]["threshold"] == str(WorkerSettings().max_images)


def test_every_selector_finds_its_pods(overlay: str) -> None:
    deployments = of_kind(overlay, "Deployment")

    def found(selector: dict[str, Any]) -> int:
        return sum(selects(selector, labels(deployment)) for deployment in deployments)

    for deployment in deployments:
        assert found(deployment["spec"]["selector"]) == 1, "two Deployments would quarrel over pods"
    for budget in of_kind(overlay, "PodDisruptionBudget"):
        assert found(budget["spec"]["selector"]) == 1, "a pod with two budgets cannot be evicted"
    assert len(of_kind(overlay, "PodDisruptionBudget")) == len(deployments) - 1  # Prometheus is one pod
    for service in of_kind(overlay, "Service"):
        assert found(service["spec"]["selector"]) >= 1
        for port in service["spec"]["ports"]:
            for deployment in deployments:
                if selects(service["spec"]["selector"], labels(deployment)):
                    (container,) = pod(deployment)["containers"]
                    assert port["targetPort"] in {one["name"] for one in container["ports"]}
    target = named(overlay, "HorizontalPodAutoscaler", "gateway")["spec"]["scaleTargetRef"]
    assert "replicas" not in named(overlay, target["kind"], target["name"])["spec"]


def test_prometheus_finds_each_pod_by_name_and_may_reach_it(overlay: str) -> None:
    (prometheus,) = (one for one in of_kind(overlay, "NetworkPolicy") if one["metadata"]["name"] == "prometheus")
    reachable = {port["port"] for rule in prometheus["spec"]["egress"] for port in rule["ports"]}
    (scrapes_in,) = (one for one in of_kind(overlay, "NetworkPolicy") if one["metadata"]["name"] == "scrapes")
    (way_in,) = scrapes_in["spec"]["ingress"]
    open_to_scrapes = {port["port"] for port in way_in["ports"]}
    # Of this namespace, and a Prometheus of one's own in another.
    assert way_in["from"] == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}},
        {"namespaceSelector": {"matchLabels": {"darkroom/scrapes": "true"}}},
    ]
    scrapes = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    for scrape in scrapes:
        (discovery,) = scrape["dns_sd_configs"]
        service = named(overlay, "Service", discovery["names"][0])
        assert service["spec"]["clusterIP"] == "None", "one address for all pods would be one target"
        assert service["spec"]["ports"][0]["port"] == discovery["port"]
        variable = {"gateway": "DARKROOM_ADMIN_PORT", "worker": "DARKROOM_METRICS_PORT"}[discovery["names"][0]]
        for deployment in of_kind(overlay, "Deployment"):
            if selects(service["spec"]["selector"], labels(deployment)):
                (container,) = pod(deployment)["containers"]
                ports = {port["name"]: port["containerPort"] for port in container["ports"]}
                assert ports[service["spec"]["ports"][0]["targetPort"]] == discovery["port"]
                (told,) = (one["value"] for one in container["env"] if one["name"] == variable)
                assert told == str(discovery["port"])
        assert discovery["port"] in reachable
        assert discovery["port"] in open_to_scrapes


def test_the_network_is_closed_but_for_what_is_named(overlay: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "NetworkPolicy")}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for rule in policy.get("ingress", []):
            assert rule["from"], f"{name} lets everybody in"
        for rule in (*policy.get("ingress", []), *policy.get("egress", [])):
            assert rule["ports"], f"{name} opens every port"


def test_the_images_are_of_this_version(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for deployment in of_kind(overlay, "Deployment"):
        for container in containers(deployment):
            name, _, tag = container["image"].rpartition(":")
            assert tag == version or name == "prom/prometheus"


def test_a_worker_on_a_gpu_has_one(overlay: str) -> None:
    for deployment in workers(overlay):
        (container,) = pod(deployment)["containers"]
        assert container["resources"]["limits"].get("nvidia.com/gpu") == {"cpu": None, "gpu": "1"}[overlay]

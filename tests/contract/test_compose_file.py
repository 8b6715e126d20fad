"""What docker-compose.yml promises, and that its settings are settings of ours."""

import re
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from app.settings import GatewaySettings
from tests.contract.deployment import ROOT, compose, env_example, handed_on, interpolated, lineage, seconds, services
from workers.settings import WorkerSettings

OURS: dict[str, type[GatewaySettings] | type[WorkerSettings]] = {"gateway": GatewaySettings, "worker": WorkerSettings}
SERVICES = sorted(services())
RUN_ON = sorted(set(SERVICES) - {"weights"})  # which fetches, and ends
WORKERS = [name for name in SERVICES if name.startswith("worker")]


def settings_of(name: str) -> type[GatewaySettings] | type[WorkerSettings] | None:
    target = services()[name].get("build", {}).get("target")
    return OURS.get(target)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_shut_in(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_keeps_its_log_short(name: str) -> None:
    assert services()[name]["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("name", RUN_ON)
def test_every_service_says_how_it_is_and_comes_back(name: str) -> None:
    service = services()[name]
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()
    assert "stop_grace_period" in service


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_is_healthy_or_done(name: str) -> None:
    for other, how in services()[name].get("depends_on", {}).items():
        assert how == {"condition": "service_completed_successfully" if other == "weights" else "service_healthy"}
        profiles = set(services()[other].get("profiles", []))
        assert not profiles or set(services()[name]["profiles"]) <= profiles


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_by_tag(name: str) -> None:
    image = services()[name]["image"]
    assert re.search(r":(\$\{IMAGE_TAG:-local\}|v?\d+\.\d+(\.\d+)?)$", image), image


def test_only_gateway_and_grafana_are_reached_from_outside() -> None:
    open_networks = {name for name, network in compose()["networks"].items() if not network.get("internal")}
    assert open_networks == {"edge", "downloads"}
    on_open_networks = {name: open_networks & set(service["networks"]) for name, service in services().items()}
    assert {name: found for name, found in on_open_networks.items() if found} == {
        "gateway": {"edge"},
        "grafana": {"edge"},
        "weights": {"downloads"},
    }
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published.keys() == {"gateway", "grafana"}
    # Nobody is asked for a key before the first was made.
    assert all(port.startswith(f"${{{name.upper()}_ADDRESS:-127.0.0.1}}:") for name, (port,) in published.items())


def test_the_queue_is_not_on_a_network_with_grafana() -> None:
    assert not set(services()["redis"]["networks"]) & set(services()["grafana"]["networks"])


def test_an_accepted_job_is_on_disk() -> None:
    command = services()["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "always")
    assert options["--maxmemory-policy"] == "noeviction"
    assert services()["redis"]["volumes"] == [f"redis:{options['--dir']}"]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_twice_its_drain_to_stop_in(name: str) -> None:
    service = services()[name]
    # Nor is a drain all: the queue is told, and the process ends.
    assert seconds(service["stop_grace_period"]) > 2 * float(service["environment"]["DARKROOM_DRAIN_TIMEOUT_S"])


def test_gateway_and_workers_share_queue_and_store() -> None:
    ours = [services()[name] for name in ("gateway", *WORKERS)]
    for variable in ("DARKROOM_REDIS_URL", "DARKROOM_STORE_URL"):
        assert len({service["environment"][variable] for service in ours}) == 1
    assert all("store:/var/lib/darkroom" in service["volumes"] for service in ours)


def test_prometheus_asks_where_gateway_and_workers_answer() -> None:
    scrapes = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {
        name: discovery["port"]
        for scrape in scrapes
        for discovery in scrape["dns_sd_configs"]
        for name in discovery["names"]
    }
    (worker_port,) = {
        port
        for verb, argument in lineage("worker")
        if verb == "ENV"
        for port in re.findall(r"DARKROOM_METRICS_PORT=(\d+)", argument)
    }
    assert asked == {"gateway": services()["gateway"]["environment"]["DARKROOM_ADMIN_PORT"], "worker": int(worker_port)}
    for name in WORKERS:
        assert services()[name]["healthcheck"]["test"][-1] == f"http://127.0.0.1:{worker_port}/metrics"
        assert "DARKROOM_METRICS_PORT" not in services()[name]["environment"]


def test_the_hub_token_is_for_what_fetches_only() -> None:
    assert [name for name in SERVICES if "HF_TOKEN" in services()[name].get("environment", {})] == ["weights"]


def test_each_gpu_worker_has_a_gpu_of_its_own() -> None:
    gpus: dict[str, list[str]] = {}
    for name in WORKERS:
        if name != "worker":
            (device,) = services()[name]["deploy"]["resources"]["reservations"]["devices"]
            assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
            gpus[name] = device["device_ids"]
    assert gpus == {f"worker-gpu-{index}": [str(index)] for index in range(len(gpus))}
    for profile, count in {"gpu": 1, "gpu-2": 2, "gpu-4": 4}.items():
        assert sum(profile in services()[name]["profiles"] for name in gpus) == count


@pytest.mark.parametrize("name", [name for name in SERVICES if settings_of(name)])
def test_every_setting_is_one_of_ours(name: str) -> None:
    settings = settings_of(name)
    assert settings is not None
    environment: dict[str, Any] = services()[name]["environment"]
    known = {f"DARKROOM_{field}".upper() for field in settings.model_fields}
    assert {variable for variable in environment if variable.startswith("DARKROOM_")} <= known


def test_env_example_names_every_variable_and_no_other() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    handed = set[str]().union(*(handed_on(service.get("environment", {})) for service in services().values()))
    compose_itself = {"COMPOSE_PROFILES"}
    assert set(env_example()) == interpolated(text) | handed | compose_itself


def test_env_example_shows_the_defaults() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name, default in re.findall(r"\$\{(\w+):?-([^}]*)\}", text):
        if default:
            assert env_example()[name] == default
    for settings in OURS.values():
        for field_name, field in settings.model_fields.items():
            shown = env_example().get(f"DARKROOM_{field_name}".upper())
            if shown and field.default is not None:
                assert TypeAdapter(type(field.default)).validate_python(shown) == field.default


def test_env_example_changes_nothing_as_it_is() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line and not line.startswith("#")]

"""The overlays of deploy/kubernetes, built by kustomize as kubectl has it."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.tools import DEPLOY, program

OVERLAYS = ("cpu", "gpu")

# A manifest is whatever its schema says, and that is asked in test_kubernetes_schemas.py.
Manifest = dict[str, Any]


@cache
def built(overlay: str) -> list[Manifest]:
    return build(DEPLOY / "kubernetes" / "overlays" / overlay)


def build(folder: Path) -> list[Manifest]:
    done = subprocess.run(
        [program("kubectl"), "kustomize", folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, *kinds: str) -> list[Manifest]:
    return [manifest for manifest in built(overlay) if manifest["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Manifest:
    (found,) = (manifest for manifest in of_kind(overlay, kind) if manifest["metadata"]["name"] == name)
    return found


def pod(deployment: Manifest) -> Manifest:
    spec: Manifest = deployment["spec"]["template"]["spec"]
    return spec


def containers(deployment: Manifest) -> list[Manifest]:
    return [*pod(deployment).get("initContainers", []), *pod(deployment)["containers"]]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector, or a Service's plain labels, finds these."""
    if not selector.keys() <= {"matchLabels", "matchExpressions"}:
        selector = {"matchLabels": selector}
    for one in selector.get("matchExpressions", []):
        assert one["operator"] == "In"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())

"""What kustomize builds is what Kubernetes and KEDA take, by their own schemas."""

import copy

import kubernetes_validate
import pytest
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from pydantic import ValidationError

from tests.deploy.manifests import OVERLAYS, Manifest, built, of_kind

# The oldest that knows all that is used, and the newest that there is a schema for.
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def check(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def is_kedas(manifest: Manifest) -> bool:
    return bool(manifest["apiVersion"].startswith("keda.sh/"))


def check_keda(manifest: Manifest) -> None:
    """KEDA's types pass over a field that they do not know: it would be missing when they write it down again."""
    read = ScaledObject.model_validate(manifest)
    assert read.model_dump(mode="json", by_alias=True, exclude_none=True) == manifest


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid(overlay: str, version: str) -> None:
    manifests = built(overlay)
    assert len(manifests) > 20
    for manifest in manifests:
        if is_kedas(manifest):
            check_keda(manifest)
        else:
            check(manifest, version)


def test_a_misspelt_field_is_seen() -> None:
    deployment = copy.deepcopy(of_kind("cpu", "Deployment")[0])
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment, VERSIONS[0])
    scaled = copy.deepcopy(of_kind("cpu", "ScaledObject")[0])
    scaled["spec"]["cooldownSeconds"] = 900
    with pytest.raises(AssertionError):
        check_keda(scaled)
    del scaled["spec"]["triggers"][0]["type"]
    with pytest.raises(ValidationError):
        check_keda(scaled)

"""What the Dockerfile promises, read without building it; `make test-docker` builds it."""

import tomllib

import pytest

from tests.contract.deployment import ROOT, lineage, stages

TARGETS = ["gateway", "worker"]


def wanted(text: str) -> bool:
    """Whether .dockerignore lets a path at the top of the repository through."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return "*" not in lines or f"!{text}" in lines


def test_the_gateway_never_installs_torch() -> None:
    commands = " ".join(argument for _, argument in lineage("gateway"))
    assert "--requirement gateway.txt" in commands
    assert "--requirement worker.txt" not in commands
    assert "--requirement torch.txt" not in commands


def test_the_worker_never_installs_a_web_framework() -> None:
    assert "--requirement gateway.txt" not in " ".join(argument for _, argument in lineage("worker"))


@pytest.mark.parametrize("target", TARGETS)
def test_code_is_the_last_layer(target: str) -> None:
    layers = [argument for verb, argument in stages()[target] if verb in ("COPY", "RUN", "ADD")]
    assert layers[-1] == f"--from=code /code/{target} /opt/code"
    assert stages()[target][-1] == ("COPY", layers[-1])


@pytest.mark.parametrize("stage", ["gateway-dependencies", "worker-dependencies"])
def test_dependencies_are_installed_before_code_is_there(stage: str) -> None:
    copied = [argument.split()[:-1] for verb, argument in lineage(stage) if verb == "COPY"]
    assert all(not {"app", "workers", "."} & set(sources) for sources in copied)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_only_copies_what_other_stages_built(target: str) -> None:
    # A RUN here would have the tools it needs, and leave them.
    assert "RUN" not in [verb for verb, _ in stages()[target]]
    assert all(argument.startswith("--from=") for verb, argument in stages()[target] if verb == "COPY")


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_runs_as_nobody_special_behind_an_init(target: str) -> None:
    instructions = list(lineage(target))
    assert [argument for verb, argument in instructions if verb == "USER"] == ["darkroom"]
    assert [argument for verb, argument in instructions if verb == "ENTRYPOINT"] == ['["tini", "--"]']
    assert [argument for verb, argument in instructions if verb == "CMD"][-1].startswith('["python", "-m", ')


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_says_how_it_is_without_curl(target: str) -> None:
    (check,) = [argument for verb, argument in stages()[target] if verb == "HEALTHCHECK"]
    assert "CMD python -m app.healthcheck" in check


def test_base_images_are_slim_and_pinned() -> None:
    sources = {argument for instructions in stages().values() for verb, argument in instructions if verb == "FROM"}
    assert sources - stages().keys() == {"python:${PYTHON}"}
    first = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("\nARG PYTHON=")[1].split()[0]
    minimum = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert first.startswith(minimum.removeprefix(">=") + "-slim-")


def test_what_the_builder_copies_is_all_that_it_is_sent() -> None:
    copied = {
        source
        for instructions in stages().values()
        for verb, argument in instructions
        if verb == "COPY" and not argument.startswith("--from=")
        for source in argument.split()[:-1]
    }
    top = {path.name for path in ROOT.iterdir()}
    assert copied <= top
    assert {name for name in top if wanted(name)} == copied

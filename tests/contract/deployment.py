"""What Dockerfile, docker-compose.yml and .env.example say, read without running anything."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def interpolated(text: str) -> set[str]:
    """Names of the variables that Compose fills in: ${NAME}, ${NAME:-default}, ${NAME-default}."""
    return set(re.findall(r"\$\{(\w+)", text))


def handed_on(environment: Mapping[str, object]) -> set[str]:
    """Names without a value, which Compose takes from the shell or from .env."""
    return {name for name, value in environment.items() if value is None}


def seconds(duration: str) -> float:
    """A duration of whole minutes or seconds, as in 15m or 60s."""
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


def env_example() -> dict[str, str]:
    """Every variable of .env.example, all of them commented out -> the value shown."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^# ?([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE))


def stages() -> dict[str, list[tuple[str, str]]]:
    """Stage of the Dockerfile -> its instructions as (verb, argument), the first of which is FROM."""
    found: dict[str, list[tuple[str, str]]] = {}
    instructions: list[tuple[str, str]] = []
    for verb, argument in _instructions():
        if verb == "FROM":
            source, _, name = argument.partition(" AS ")
            instructions = found[name] = [(verb, source)]
        else:
            instructions.append((verb, argument))
    return found


def lineage(stage: str) -> Iterator[tuple[str, str]]:
    """The instructions that make a stage, those of the stages it starts from and copies from included."""
    known = stages()
    for verb, argument in known[stage]:
        copied = re.match(r"--from=(\S+)", argument)
        source = argument if verb == "FROM" else copied[1] if copied else ""
        if source in known:
            yield from lineage(source)
        yield verb, argument


def _instructions() -> Iterator[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            verb, _, argument = line.partition(" ")
            yield verb, argument.strip()

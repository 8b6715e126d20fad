"""The recording rules and alerts of deploy/prometheus, read."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.deploy.tools import DEPLOY

RULES = DEPLOY / "prometheus" / "rules"


@dataclass(frozen=True, slots=True)
class Rule:
    file: str
    name: str
    expr: str
    alert: bool
    labels: dict[str, str]
    annotations: dict[str, str]


def all_rules(folder: Path = RULES) -> list[Rule]:
    return [
        Rule(
            file=path.name,
            name=rule.get("alert") or rule["record"],
            expr=rule["expr"],
            alert="alert" in rule,
            labels=rule.get("labels", {}),
            annotations=rule.get("annotations", {}),
        )
        for path in sorted(folder.glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]

"""Prometheus's own promtool runs the unit tests of each rule, and these tests are shown to see each rule broken."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.deploy.rules import Rule, all_rules
from tests.deploy.tools import DEPLOY, promtool

PROMETHEUS = DEPLOY / "prometheus"
ALERTS = [rule for rule in all_rules() if rule.alert]


def test_prometheus_accepts_the_configuration() -> None:
    done = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_each_rule_does_what_its_tests_say() -> None:
    done = promtool("test", "rules", *sorted(PROMETHEUS.glob("tests/*.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["alerts.yml", "recording.yml"])
@pytest.mark.parametrize("broken", ["vector(0) > 1", "vector(1)"], ids=["never", "always"])
def test_each_rule_would_be_caught_if_it_were_broken(file: str, broken: str, tmp_path: Path) -> None:
    shutil.copytree(PROMETHEUS, tmp_path, dirs_exist_ok=True)
    rules = yaml.safe_load((tmp_path / "rules" / file).read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = broken
    (tmp_path / "rules" / file).write_text(yaml.safe_dump(rules))
    done = promtool("test", "rules", tmp_path / "tests" / file)
    caught = set(re.findall(r"alertname: (\w+)", done.stderr)) | set(re.findall(r"[\w]+:darkroom_\w+:\w+", done.stderr))
    assert {rule.name for rule in all_rules() if rule.file == file} <= caught


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule.name)
def test_each_alert_says_what_to_do(rule: Rule) -> None:
    assert rule.labels["severity"] in {"critical", "warning"}
    assert set(rule.annotations) == {"summary", "description", "runbook"}
    # Of what is there or not there is no number to tell.
    assert "$value" in rule.annotations["description"] or rule.expr.startswith(("absent(", "max(darkroom_queue_up) =="))
    file, _, anchor = rule.annotations["runbook"].partition("#")
    assert file == "deploy/README.md"
    headings = re.findall(r"^#+ (.+)$", (DEPLOY / "README.md").read_text(), re.MULTILINE)
    # As GitHub makes an anchor of a heading.
    assert anchor in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}

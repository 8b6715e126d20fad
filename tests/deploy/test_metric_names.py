"""Dashboards and rules ask for what is measured, by its names and labels."""

import json

import pytest
from prometheus_client import CollectorRegistry

from app.metrics import GatewayMetrics
from deploy.grafana import dashboard
from tests.deploy.contract import METRICS, ONLY_WITH_A_GPU
from tests.deploy.promql import reads
from tests.deploy.rules import all_rules
from workers.metrics import WorkerMetrics

TARGET_LABELS = {"instance", "job"}
RULES = {rule.name: rule for rule in all_rules()}


def panels() -> list[dict[str, object]]:
    board = json.loads(dashboard.PATH.read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Every expression there is, by where it stands."""
    return {rule.name: rule.expr for rule in RULES.values()} | {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]  # type: ignore[attr-defined]
    }


def labels_of(name: str) -> set[str] | None:
    """The labels of a series, or None where nobody measures or records it."""
    if name == "up":
        return TARGET_LABELS
    if (rule := RULES.get(name)) is not None and not rule.alert:
        return set(name.partition(":")[0].split("_"))
    if name in METRICS:
        return {*METRICS[name], *TARGET_LABELS}
    base, _, part = name.rpartition("_")
    if base in METRICS and part in {"bucket", "count", "sum"}:
        return {*METRICS[base], *TARGET_LABELS, *(("le",) if part == "bucket" else ())}
    return None


@pytest.mark.parametrize("where", queries())
def test_a_query_reads_what_is_measured(where: str) -> None:
    found = reads(queries()[where])
    offered: set[str] = set()
    for name, asked in found.metrics.items():
        labels = labels_of(name)
        assert labels is not None, f"nobody measures {name}"
        assert asked <= labels, f"{name} has no {asked - labels}"
        offered |= labels
    assert found.metrics
    assert found.labels <= offered


def test_everything_that_is_measured_is_shown() -> None:
    shown: set[str] = set()
    for where, expr in queries().items():
        if where not in RULES or not RULES[where].alert:
            shown |= set(reads(expr).metrics)
    assert [name for name in METRICS if not any(one.startswith(name) for one in shown)] == []


def test_everything_that_is_recorded_is_used() -> None:
    used = {name for expr in queries().values() for name in reads(expr).metrics}
    assert {rule.name for rule in RULES.values() if not rule.alert} <= used


def test_the_code_measures_it() -> None:
    registry = CollectorRegistry()
    gateway, worker = GatewayMetrics(registry), WorkerMetrics(CollectorRegistry())
    code: dict[str, set[str]] = {}
    for metrics in (gateway, worker):
        for metric in vars(metrics).values():
            if hasattr(metric, "_labelnames"):
                name = metric._name + ("_total" if metric._type == "counter" else "")
                code.setdefault(name, set()).update(metric._labelnames)
    wrong = {name for name, labels in METRICS.items() if code.get(name) != set(labels)}
    assert wrong - ONLY_WITH_A_GPU == set()


@pytest.mark.parametrize("wrong", ["sum by (model (up)", "rate(up)", "{job='a'}", ""])
def test_what_is_no_query_is_seen(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        reads(wrong)

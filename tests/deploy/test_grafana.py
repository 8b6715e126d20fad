"""What Grafana reads at its start: the dashboard as its source says, and where to find it and its data."""

import json

import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.grafana import dashboard
from tests.deploy.tools import DEPLOY

GRAFANA = DEPLOY / "grafana"


def read(path: str) -> dict[str, list[dict[str, object]]]:
    parsed: dict[str, list[dict[str, object]]] = yaml.safe_load((GRAFANA / "provisioning" / path).read_text())
    return parsed


def test_the_dashboard_is_what_its_source_makes() -> None:
    assert dashboard.PATH.read_text() == dashboard.as_json(), "python -m deploy.grafana.dashboard"


def test_grafanas_own_types_read_it_back() -> None:
    """A field that its schema does not know would be lost on the way."""
    text = dashboard.PATH.read_text()
    board = Dashboard.from_json(json.loads(text))
    assert json.loads(json.dumps(board.to_json(), default=lambda part: part.to_json())) == json.loads(text)


def test_each_panel_says_what_it_shows_and_asks_the_chosen_source() -> None:
    board = json.loads(dashboard.PATH.read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "model"]
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["description"]
        assert panel["datasource"]["uid"] == "$datasource"
        assert panel["targets"]
        assert all(target["datasource"]["uid"] == "$datasource" for target in panel["targets"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.PATH.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells


def test_it_is_there_without_a_click() -> None:
    (source,) = read("datasources/prometheus.yml")["datasources"]
    (provider,) = read("dashboards/darkroom.yml")["providers"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    assert provider["options"] == {"path": "/etc/grafana/dashboards"}
    (chosen, _) = json.loads(dashboard.PATH.read_text())["templating"]["list"]
    assert chosen["current"]["value"] == source["uid"]
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"] == {"timeInterval": scraped, "httpMethod": "POST"}

"""The dashboard. `python -m deploy.grafana.dashboard` writes it to dashboards/, from where Grafana reads it."""

import json
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana.panels import SOURCE
from deploy.grafana.reliability import reliability
from deploy.grafana.served import golden_signals, latency, stages
from deploy.grafana.work import cost, steps

PATH = Path(__file__).parent / "dashboards" / "darkroom.json"


def dashboard() -> Dashboard:
    board = (
        Dashboard("Darkroom")
        .uid("darkroom")
        .description("What is asked, what is served, how long it takes, what it costs, and what went wrong.")
        .tags(["darkroom"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(
            DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .current(VariableOption(text="Prometheus", value="prometheus"))
        )
        .with_variable(
            QueryVariable("model")
            .label("Model")
            .datasource(SOURCE)
            .query("label_values(darkroom_workers_live, model)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(text="All", value="$__all"))
        )
    )
    for part in (golden_signals, stages, latency, steps, cost, reliability):
        part(board)
    return board


def as_json() -> str:
    board = dashboard().build()
    for number_of_panel, panel in enumerate(board.panels or [], 1):
        panel.id_val = number_of_panel
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(as_json())

"""The kinds of panels that the dashboard is made of, each with a title, what it tells, a unit and its queries."""

from typing import TypeVar

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

OF = '{model=~"$model"}'
RATE = "[$__rate_interval]"
SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")
_HEIGHT = 8
_P = TypeVar("_P", timeseries.Panel, stat.Panel, heatmap.Panel, table.Panel)


def quantile(share: float, metric: str, *labels: str) -> str:
    """A histogram's quantile, of the chosen models."""
    return f"histogram_quantile({share}, sum by ({', '.join(labels)}, le) (rate({metric}_bucket{OF}{RATE})))"


def mean(metric: str) -> str:
    """A histogram's mean by model."""
    return f"sum by (model) (rate({metric}_sum{OF}{RATE})) / (sum by (model) (rate({metric}_count{OF}{RATE})) > 0)"


def query(expr: str, legend: str = "") -> prometheus.Dataquery:
    """What a range of time looks like. legend: in Grafana's form, {{label}}."""
    return prometheus.Dataquery().datasource(SOURCE).expr(expr).legend_format(legend).range()


def lines(
    title: str, about: str, unit: str, *queries: prometheus.Dataquery, width: int = 8, stacked: bool = False
) -> timeseries.Panel:
    """Draw each series over time; stacked: on top of one another, where only their sum makes sense."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(_HEIGHT)
        .min(0)
        .fill_opacity(60 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return _with(panel, queries)


def number(title: str, about: str, unit: str, expr: str, *, red_above: float | None = None) -> stat.Panel:
    """Show the newest value, red above a limit."""
    steps = [Threshold(value=None, color="green" if red_above is not None else "text")]
    if red_above is not None:
        steps.append(Threshold(value=red_above, color="red"))
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(4)
        .height(4)
        .graph_mode(BigValueGraphMode.AREA)
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _with(panel, (query(expr),))


def heat(title: str, about: str, unit: str, expr: str, *, width: int = 12) -> heatmap.Panel:
    """Draw a histogram's buckets over time; expr: a sum by (le)."""
    panel = (
        heatmap.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .span(width)
        .height(_HEIGHT)
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .cell_gap(1)
    )
    return _with(panel, (query(expr, "{{le}}").format(PromQueryFormat.HEATMAP),))


def rows(title: str, about: str, expr: str) -> table.Panel:
    """List the series of one moment with their labels."""
    panel = table.Panel().title(title).description(about).datasource(SOURCE).span(8).height(_HEIGHT)
    return _with(panel, (query(expr).format(PromQueryFormat.TABLE).instant(),))


def _with(panel: _P, queries: tuple[prometheus.Dataquery, ...]) -> _P:
    for letter, target in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(target.ref_id(letter))
    return panel

"""Turns dashboards into Grafana's JSON, with the builders of `grafana-foundation-sdk`."""

import json
from collections.abc import Callable, Iterator, Mapping

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard as board
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

from monitoring.grafana.generate.panels import Dashboard, Kind, Panel, Row

GRID_WIDTH = 24
SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
AnyPanel = timeseries.Panel | stat.Panel | statetimeline.Panel
Variable = Builder[dashboard.VariableModel]


class PrometheusAnnotation(dashboard.AnnotationQuery, Builder[dashboard.AnnotationQuery]):
    """The SDK's annotation with what Prometheus' data source reads besides."""

    def __init__(self, name: str, colour: str, expression: str, title: str, text: str) -> None:
        super().__init__(name=name, datasource=SOURCE, icon_color=colour, expr=expression)
        # The finest that there is: a phase of a spike lasts for a second.
        self.more = {"step": "1s", "titleFormat": title, "textFormat": text}

    def to_json(self) -> dict[str, object]:
        """All fields, by Grafana's names."""
        return super().to_json() | self.more

    def build(self) -> dashboard.AnnotationQuery:
        """Itself: the dashboard's builder asks for a builder."""
        return self


# k6 sends a phase while it lasts; its last sample would be repeated for minutes.
PHASES = 'time() - timestamp(k6_phase{testid=~"$testid"}) < 2'
ANNOTATIONS: tuple[Builder[dashboard.AnnotationQuery], ...] = (
    PrometheusAnnotation("Phases of the load test", "blue", PHASES, "{{phase}}", "{{testid}}"),
    PrometheusAnnotation(
        "Deployments",
        "purple",
        # The first seconds of a process; it is scraped from some point in them on.
        'time() - process_start_time_seconds{job=~"onsale-.+"} < 15',
        "{{instance}} started",
        "{{job}}",
    ),
    PrometheusAnnotation(
        "Alerts",
        "red",
        'ALERTS{alertstate="firing",alertname!="Watchdog"}',
        "{{alertname}}",
        "{{severity}}",
    ),
)


def dashboard_text(page: Dashboard) -> str:
    """The file of one dashboard, the same bytes whenever it is generated."""
    builder = (
        board.Dashboard(page.title)
        .uid(f"onsale-{page.name}")
        .description(page.description)
        .tags(["onsale"])
        .readonly()
        # One crosshair for all panels: cause and symptom line up.
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .link(
            board.DashboardLink("The other dashboards")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags(["onsale"])
            .include_vars(True)
            .keep_time(True)
        )
        .annotations(list(ANNOTATIONS))
        .variables(variables())
    )
    for number, (item, place) in enumerate(laid_out(page.rows), start=1):
        if isinstance(item, Row):
            builder.with_row(board.Row(item.title).id(number).grid_pos(place))
        else:
            builder.with_panel(panel_builder(item).id(number).grid_pos(place))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2) + "\n"


def laid_out(rows: tuple[Row, ...]) -> Iterator[tuple[Row | Panel, dashboard.GridPos]]:
    """The rows and their panels from top to bottom, each with its place on the grid."""
    y = 0
    for row in rows:
        yield row, dashboard.GridPos(h=1, w=GRID_WIDTH, x=0, y=y)
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > GRID_WIDTH:
                x, y = 0, y + row.height
            yield panel, dashboard.GridPos(h=row.height, w=panel.width, x=x, y=y)
            x += panel.width
        y += row.height


def panel_builder(panel: Panel) -> AnyPanel:
    """One panel, but for its number and place."""
    builder = KINDS[panel.kind](panel)
    builder.title(panel.title).description(panel.description).unit(panel.unit)
    builder.datasource(SOURCE).thresholds(thresholds(panel))
    for index, query in enumerate(panel.queries):
        target = (
            prometheus.Dataquery()
            .ref_id(chr(ord("A") + index))
            .datasource(SOURCE)
            .expr(query.expression)
            .legend_format(query.legend)
            .range()
        )
        builder.with_target(target.exemplar(True) if query.exemplars else target)
    return builder


def thresholds(panel: Panel) -> board.ThresholdsConfig:
    """The panel's steps."""
    steps = [dashboard.Threshold(value=value, color=colour) for value, colour in panel.steps]
    return board.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def timeseries_panel(panel: Panel) -> timeseries.Panel:
    """Lines, or areas on each other; the thresholds are dashed lines."""
    dashed = len(panel.steps) > 1
    stacking = common.StackingMode.NORMAL if panel.stacked else common.StackingMode.NONE
    return (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(25 if panel.stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        .stacking(shared.StackingConfig().group("A").mode(stacking))
        .thresholds_style(
            shared.GraphThresholdsStyleConfig().mode(
                common.GraphThresholdsStyleMode.DASHED
                if dashed
                else common.GraphThresholdsStyleMode.OFF
            )
        )
        .color_scheme(board.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .legend(
            shared.VizLegendOptions()
            .calcs(["max", "lastNotNull"])
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            shared.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )


def stat_panel(panel: Panel) -> stat.Panel:
    """The newest value, in the colour of its step, over a line of how it came to that."""
    return (
        stat.Panel()
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_scheme(board.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .reduce_options(shared.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def state_panel(panel: Panel) -> statetimeline.Panel:
    """A band per line, in the colour of its step: when what was in which state."""
    return (
        statetimeline.Panel()
        .show_value(common.VisibilityMode.NEVER)
        .color_scheme(board.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    )


KINDS: Mapping[Kind, Callable[[Panel], AnyPanel]] = {
    "timeseries": timeseries_panel,
    "stat": stat_panel,
    "state-timeline": state_panel,
}


def variables() -> list[Variable]:
    """What a reader chooses: where from, which event, which process, which run of k6."""
    source = dashboard.VariableOption(text="Prometheus", value="prometheus")
    return [
        board.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(source),
        choice("event", "Event", "label_values(onsale_stock_capacity, event)"),
        choice("instance", "Process", 'label_values(up{job=~"onsale-.+"}, instance)'),
        choice("testid", "Load test", "label_values(k6_http_reqs_total, testid)"),
    ]


def choice(name: str, label: str, query: str) -> board.QueryVariable:
    """A choice of label values, all of them unless some are picked."""
    return (
        board.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        # Asked again when the time range changes, so that a new event appears.
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(dashboard.VariableOption(text=["All"], value=["$__all"]))
    )

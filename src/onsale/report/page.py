"""Puts a run on one page: `write_report` asks, draws, and writes one file that needs no other."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from onsale.report import plots
from onsale.report.dashboards import Dashboard, Panel, Row, read_dashboards
from onsale.report.plots import Plot
from onsale.report.prometheus import Prometheus
from onsale.report.run import Run
from onsale.report.verdict import Verdict

# The panels that tell a run in a glance, by the dashboard that has them.
_TILES = (
    ("flash-sale", "Tickets sold"),
    ("flash-sale", "Tickets left"),
    ("flash-sale", "Oversold tickets"),
    ("flash-sale", "Buyers served"),
    ("flash-sale", "Client's p99"),
    ("flash-sale", "Server's p99"),
    ("flash-sale", "Server errors"),
    ("flash-sale", "Error budget of the run"),
)
_TIMELINE = (
    "Requests offered and served",
    "The slowest 1 %, on both sides",
    "On sale",
    "Orders by outcome",
)
# The page's head consists of their first rows: those need not be shown again.
_IN_HEAD = ("flash-sale", "bottleneck")


@dataclass(frozen=True)
class Section:
    """A heading and the plots below it."""

    title: str
    plots: Sequence[Plot]


@dataclass(frozen=True)
class Chapter:
    """A dashboard; `is_open` when the page opens."""

    name: str
    title: str
    description: str
    sections: Sequence[Section]
    is_open: bool


def write_report(
    path: Path,
    prometheus: Prometheus,
    run: Run,
    *,
    title: str = "Flash sale run",
    verdict: Verdict | None = None,
    books: Mapping[str, Any] | None = None,
) -> None:
    """Write the page about `run` to `path`.

    `books` is an audit as `onsale audit --json` prints it; without one the page shows what the
    metrics say of the stock. Raises `ReportError`, `OSError`.
    """
    boards = read_dashboards()
    drawn: dict[tuple[str, str], Plot] = {}

    def plot(board: Dashboard, panel: Panel) -> Plot:
        key = (board.name, panel.title)
        if key not in drawn:
            drawn[key] = plots.draw(panel, run, prometheus)
        return drawn[key]

    def section(board: Dashboard, row: Row) -> Section:
        return Section(row.title, [plot(board, panel) for panel in row.panels])

    sections = {
        board.name: [section(board, row) for row in board.rows] for board in boards.values()
    }
    chapters = [
        Chapter(
            board.name,
            board.title,
            board.description,
            sections[board.name][board.name in _IN_HEAD :],
            is_open=board.name in _IN_HEAD,
        )
        for board in boards.values()
    ]
    text = _template().render(
        title=title,
        run=run,
        when=datetime.fromtimestamp(run.begin, UTC),
        seconds=run.phases[-1].end - run.phases[0].begin if run.phases else run.end - run.begin,
        phases=[plots.span_bar(phase, run) for phase in run.phases],
        alerts=[plots.span_bar(alert, run) for alert in run.alerts],
        time_ticks=plots.time_ticks(run),
        tiles=[drawn[tile] for tile in _TILES],
        timeline=[drawn["flash-sale", name] for name in _TIMELINE],
        stages=sections["bottleneck"][0].plots,
        chapters=chapters,
        verdict=verdict,
        books=books,
        left_at_gate=_left_at_gate(books),
        prometheus_url=prometheus.url,
        style=_asset("style.css"),
        script=_asset("script.js"),
        height=plots.HEIGHT,
        width=plots.WIDTH,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _left_at_gate(books: Mapping[str, Any] | None) -> dict[str, int]:
    """What the gate has of each tier; nothing where it has not loaded the event."""
    tiers = books["gate"].get("tiers", []) if books else []
    return {tier["id"]: tier["available"] for tier in tiers}


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("onsale.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data"] = _data
    return environment.get_template("page.html.j2")


def _data(plot: Plot) -> str:
    """A plot's values for the script, with four figures each."""
    lines = [
        [line.name, line.colour, [None if v is None else float(f"{v:.4g}") for v in line.values]]
        for line in plot.lines
    ]
    return json.dumps({"unit": plot.panel.unit, "lines": lines}, separators=(",", ":"))


def _asset(name: str) -> str:
    return (files("onsale.report") / "template" / name).read_text("utf-8")

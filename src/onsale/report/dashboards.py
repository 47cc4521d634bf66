"""The committed dashboards, read back: one source of queries for Grafana and for the report."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from onsale.resources import project_folder

Kind = Literal["timeseries", "stat", "state-timeline"]
# In the order of monitoring/grafana/generate/catalogue.py.
NAMES = ("flash-sale", "bottleneck", "service", "sale", "infrastructure", "workers")


@dataclass(frozen=True)
class Query:
    """PromQL with Grafana's variables in it, and the name of its lines."""

    expression: str
    legend: str

    def filled_in(self, variables: Mapping[str, str]) -> str:
        """The expression as Grafana would send it."""
        expression = self.expression
        for name, value in variables.items():
            expression = expression.replace(f"${name}", value)
        return expression


@dataclass(frozen=True)
class Step:
    """From `value` on (all the way down where it is `None`), `colour`."""

    value: float | None
    colour: str


@dataclass(frozen=True)
class Panel:
    """One panel, as far as the report shows it."""

    title: str
    description: str
    unit: str
    kind: Kind
    stacked: bool
    steps: tuple[Step, ...]
    queries: tuple[Query, ...]

    @classmethod
    def of(cls, panel: dict[str, Any]) -> Self:
        """Read from Grafana's JSON."""
        defaults = panel["fieldConfig"]["defaults"]
        stacking = defaults.get("custom", {}).get("stacking", {}).get("mode")
        return cls(
            title=panel["title"],
            description=panel["description"],
            unit=defaults["unit"],
            kind=panel["type"],
            stacked=stacking == "normal",
            steps=tuple(
                Step(step["value"], step["color"]) for step in defaults["thresholds"]["steps"]
            ),
            queries=tuple(Query(each["expr"], each["legendFormat"]) for each in panel["targets"]),
        )

    def colour(self, value: float) -> str:
        """The colour of the step that a value is in."""
        reached = [step for step in self.steps if step.value is None or value >= step.value]
        return reached[-1].colour

    @property
    def worst(self) -> Literal["highest", "lowest", "newest"]:
        """Which value of a run says how bad it got; the newest where none is bad as such."""
        if len(self.steps) == 1 or any("$__range" in query.expression for query in self.queries):
            return "newest"
        return "lowest" if self.steps[0].colour == "red" else "highest"


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One page of Grafana."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, name: str, text: str) -> Self:
        """Read from Grafana's JSON, in which a row is followed by its panels."""
        data = json.loads(text)
        rows: list[tuple[str, list[Panel]]] = []
        for panel in data["panels"]:
            if panel["type"] == "row":
                rows.append((panel["title"], []))
            else:
                rows[-1][1].append(Panel.of(panel))
        return cls(
            name,
            data["title"],
            data["description"],
            tuple(Row(title, tuple(panels)) for title, panels in rows),
        )

    def row(self, *titles: str) -> Row:
        """Panels of this page by title, in that order. Raises `KeyError`."""
        panels = {panel.title: panel for row in self.rows for panel in row.panels}
        return Row(self.title, tuple(panels[title] for title in titles))


def read_dashboards() -> dict[str, Dashboard]:
    """All dashboards, by name."""
    folder = project_folder("monitoring") / "grafana/dashboards"
    return {
        name: Dashboard.of(name, (folder / f"{name}.json").read_text("utf-8")) for name in NAMES
    }

"""What a dashboard is made of, before it is Grafana's."""

from dataclasses import dataclass
from typing import Literal

Colour = Literal["green", "yellow", "red", "blue"]
# (from this value on, in the panel's unit, this colour); the first goes on down without end.
Step = tuple[float | None, Colour]
Steps = tuple[Step, ...]
Kind = Literal["timeseries", "stat", "state-timeline"]

_WORSE: tuple[Colour, ...] = ("yellow", "red")
_BETTER: tuple[Colour, ...] = ("yellow", "green")


def above(*values: float) -> Steps:
    """Good below the first value; bad from the last one on, and doubtful between two."""
    return ((None, "green"), *zip(values, _WORSE[-len(values) :], strict=True))


def below(*values: float) -> Steps:
    """Bad below the first value; good from the last one on, and doubtful between two."""
    return ((None, "red"), *zip(values, _BETTER[-len(values) :], strict=True))


# What is neither good nor bad as such: how much stock there is, how many buyers come.
NEUTRAL: Steps = ((None, "blue"),)


@dataclass(frozen=True)
class Query:
    """One PromQL expression and the name of its lines (`{{label}}` is replaced); with `exemplars`,
    points beside them that lead to traces.
    """

    expression: str
    legend: str
    exemplars: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel; `description` says what good looks like, `steps` where it ends being good."""

    title: str
    description: str
    unit: str
    steps: Steps
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under one heading, laid out from left to right and wrapped at the grid's width."""

    title: str
    panels: tuple[Panel, ...]
    height: int = 8


@dataclass(frozen=True)
class Dashboard:
    """One page of Grafana; `name` is its file's, and part of its address."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]


def stat(
    title: str, description: str, unit: str, steps: Steps, query: str, width: int = 4
) -> Panel:
    """One number: the newest value of `query`."""
    return Panel(title, description, unit, steps, (Query(query, title),), "stat", width)

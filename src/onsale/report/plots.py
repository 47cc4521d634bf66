"""Draws panels as SVG that scales with the page, with its text beside it in HTML.

A plot's SVG is stretched to the room it has (`preserveAspectRatio="none"`), so nothing in it may be
text or round; axes, names and values are HTML, placed in per cent.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from onsale.report import units
from onsale.report.dashboards import Panel
from onsale.report.prometheus import Prometheus, Series
from onsale.report.run import Run, Span

# Of the SVG's own coordinates; the page decides how large that is.
WIDTH, HEIGHT = 1000.0, 100.0
# As many as there are colours; the others are counted.
LINES_MAX = 8
# Of more lines than these, those that are always 0 are only counted.
_ZEROS_SHOWN = 3
_TICKS = 3
_TIME_TICKS = 5
# Where on a meter the last step begins, so that one sees what lies beyond it.
_KNEE_AT = 0.8
# A mark beyond this share of the axis would stand over its end.
_LAST_TICK = 97.0
_ID_END = 6


@dataclass(frozen=True)
class Line:
    """One line of a plot: where it is drawn, and its values at every step of the run."""

    name: str
    colour: int
    path: str
    area: str
    values: tuple[float | None, ...]
    highest: str
    newest: str


@dataclass(frozen=True)
class Tick:
    """A mark of an axis, in per cent of its length."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A time in which something was so, in per cent of the run; `colour` of its step."""

    begin: float
    width: float
    colour: str
    text: str


@dataclass(frozen=True)
class Lane:
    """One line of a state timeline."""

    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Plot:
    """A panel, ready to be put on the page."""

    panel: Panel
    lines: tuple[Line, ...] = ()
    more: int = 0
    ticks: tuple[Tick, ...] = ()
    limits: tuple[tuple[float, str], ...] = ()
    lanes: tuple[Lane, ...] = ()
    # Of a stat: its value, the colour of its step, and which value of the run it is.
    value: str = ""
    state: str = ""
    which: str = ""
    share: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether Prometheus had nothing."""
        return not self.lines and not self.lanes


@dataclass(frozen=True)
class Named:
    """A series and what the legend calls it."""

    name: str
    series: Series

    @property
    def highest(self) -> float:
        """The largest value."""
        return max(value for _, value in self.series.points)


def draw(panel: Panel, run: Run, prometheus: Prometheus) -> Plot:
    """Ask a panel's queries over a run and draw what they say. Raises `ReportError`."""
    found = [
        Named(without_ids(legend(query.legend, series), run), series)
        for query in panel.queries
        for series in prometheus.over(
            query.filled_in(run.variables), run.begin, run.end, run.step_seconds
        )
    ]
    if not found:
        return Plot(panel)
    return {"timeseries": _lines, "stat": _stat, "state-timeline": _lanes}[panel.kind](
        panel, run, found
    )


def legend(template: str, series: Series) -> str:
    """The name of a line: `{{label}}` replaced, or its labels where that leaves nothing."""
    name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: series.labels.get(m[1], ""), template).strip()
    return name or ", ".join(series.labels.values())


def without_ids(name: str, run: Run) -> str:
    """A name without the event's id where there is but one event, otherwise with the id's end.

    Ids begin with the time of their making, so that it is their ends that differ.
    """
    for event in run.events:
        name = name.replace(event, "" if len(run.events) == 1 else f"…{event[-_ID_END:]}")
    return name.strip() or "the event"


def moment(at: float, run: Run) -> float:
    """Where a moment is, in per cent of the run."""
    return min(max((at - run.begin) / (run.end - run.begin), 0.0), 1.0) * 100


def span_bar(span: Span, run: Run, colour: str = "") -> Bar:
    """Where a span is."""
    begin, end = moment(span.begin, run), moment(span.end, run)
    return Bar(begin, max(end - begin, 0.4), colour, span.name)


def time_ticks(run: Run) -> list[Tick]:
    """Seconds since the first buyer, or since the beginning where there was none."""
    origin = run.phases[0].begin if run.phases else run.begin
    distance = nice((run.end - origin) / _TIME_TICKS)
    marks = [n * distance for n in range(int((run.end - origin) / distance) + 1)]
    in_minutes = distance >= 60
    ticks = (
        Tick(moment(origin + mark, run), f"{mark / 60:g} min" if in_minutes else f"{mark:g} s")
        for mark in marks
    )
    return [tick for tick in ticks if tick.at <= _LAST_TICK]


def nice(distance: float, base: float = 10.0) -> float:
    """The next of 1, 2, 5 times a power of ten; of bytes, a power of two."""
    if distance <= 0:
        return 1.0
    if base == 2:
        return float(2 ** math.ceil(math.log2(distance)))
    power = 10 ** math.floor(math.log10(distance))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= distance * 0.999))


def _values(series: Series, run: Run) -> tuple[float | None, ...]:
    """A value for every step of the run, `None` where there is none."""
    count = round((run.end - run.begin) / run.step_seconds) + 1
    values: list[float | None] = [None] * count
    for at, value in series.points:
        index = round((at - run.begin) / run.step_seconds)
        if 0 <= index < count:
            values[index] = value
    return tuple(values)


def _lines(panel: Panel, run: Run, found: Sequence[Named]) -> Plot:
    shown = _worth_showing(found)
    rows = [_values(each.series, run) for each in shown]
    heights = _stacked(rows) if panel.stacked else rows
    highest = max(v for row in heights for v in row if v is not None)
    # Where nothing happened the plot is as high as what would be too much.
    highest = highest or max((step.value or 0.0 for step in panel.steps), default=0.0)
    distance = nice(highest / _TICKS, 2 if panel.unit in ("bytes", "Bps") else 10)
    top = max(math.ceil(highest / distance - 1e-9), 1) * distance
    place = _place(top, len(heights[0]))
    lines = []
    for number, (each, row) in enumerate(zip(shown, rows, strict=True)):
        below = heights[number - 1] if panel.stacked and number else None
        path = _path(heights[number], place)
        lines.append(
            Line(
                each.name,
                number,
                path,
                _area(heights[number], below, place) if panel.stacked or len(shown) == 1 else "",
                row,
                units.text(max(v for v in row if v is not None), panel.unit),
                units.text([v for v in row if v is not None][-1], panel.unit),
            )
        )
    return Plot(
        panel,
        tuple(lines),
        more=len(found) - len(shown),
        ticks=tuple(
            Tick(n * distance / top * 100, units.text(n * distance, panel.unit))
            for n in range(round(top / distance) + 1)
        ),
        limits=tuple(
            (step.value / top * 100, step.colour)
            for step in panel.steps
            if step.value is not None and 0 < step.value <= top
        ),
    )


def _worth_showing(found: Sequence[Named]) -> list[Named]:
    """The largest lines, in the order in which the panel asks for them."""
    ranked = sorted(found, key=lambda each: -each.highest)
    moving = [each for each in ranked if each.highest != 0] or ranked[:1]
    wanted = ranked if len(found) <= _ZEROS_SHOWN else moving
    return [each for each in found if each in wanted[:LINES_MAX]]


def _stat(panel: Panel, run: Run, found: Sequence[Named]) -> Plot:
    series = found[0].series
    values = [value for _, value in series.points]
    value, which = {
        "newest": (values[-1], "at the end"),
        "highest": (max(values), "at its highest"),
        "lowest": (min(values), "at its lowest"),
    }[panel.worst]
    plot = _lines(panel, run, found[:1])
    return Plot(
        panel,
        plot.lines,
        value=units.text(value, panel.unit),
        state=panel.colour(value),
        which=which,
        share=100 * min(max(_KNEE_AT * value / (panel.steps[-1].value or 1), 0.0), 1.0),
    )


def _lanes(panel: Panel, run: Run, found: Sequence[Named]) -> Plot:
    return Plot(panel, lanes=tuple(Lane(each.name, _bars(panel, run, each)) for each in found))


def _bars(panel: Panel, run: Run, each: Named) -> tuple[Bar, ...]:
    """The times in which a line kept its value."""
    bars: list[tuple[float, float, float]] = []
    for at, value in each.series.points:
        if bars and bars[-1][2] == value and at - bars[-1][1] <= 1.5 * run.step_seconds:
            bars[-1] = (bars[-1][0], at, value)
        else:
            bars.append((at, at, value))
    return tuple(
        span_bar(
            Span(units.text(value, panel.unit), begin, end + run.step_seconds),
            run,
            panel.colour(value),
        )
        for begin, end, value in bars
        # That something is not so is only shown where it is good or bad.
        if value or len(panel.steps) > 1
    )


def _stacked(rows: Sequence[Sequence[float | None]]) -> list[tuple[float, ...]]:
    """Each row on top of those before it."""
    total = [0.0] * len(rows[0])
    stacked = []
    for row in rows:
        total = [below + (value or 0.0) for below, value in zip(total, row, strict=True)]
        stacked.append(tuple(total))
    return stacked


Place = Callable[[int, float], str]


def _place(top: float, count: int) -> Place:
    def place(index: int, value: float) -> str:
        x = index / max(count - 1, 1) * WIDTH
        return f"{x:.1f},{HEIGHT - min(max(value / top, 0.0), 1.0) * HEIGHT:.2f}"

    return place


def _path(row: Sequence[float | None], place: Place) -> str:
    """A line with a gap where there is no value; a lone point is a short dash."""
    pieces: list[list[str]] = [[]]
    for index, value in enumerate(row):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(place(index, value))
    return " ".join(
        "M" + " L".join(piece) + ("h3" if len(piece) == 1 else "") for piece in pieces if piece
    )


def _area(row: Sequence[float | None], below: Sequence[float | None] | None, place: Place) -> str:
    """What lies between a line and the one below it, or the axis."""
    floor = below or [0.0] * len(row)
    areas = []
    for is_there, group in groupby(range(len(row)), lambda index: row[index] is not None):
        indexes = list(group)
        if is_there:
            there = [place(index, row[index] or 0.0) for index in indexes]
            back = [place(index, floor[index] or 0.0) for index in reversed(indexes)]
            areas.append("M" + " L".join([*there, *back]) + "Z")
    return " ".join(areas)

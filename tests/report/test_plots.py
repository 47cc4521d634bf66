"""How lines become drawings: places, gaps, stacks, ticks, names."""

from typing import Any

import pytest

from onsale.report.dashboards import Panel, Query, Step
from onsale.report.plots import draw, legend, nice, span_bar, time_ticks
from onsale.report.prometheus import Prometheus, Series
from onsale.report.run import Run, Span, unbroken

EVENT = "01a1fa4ea29d7519b861f621d306225d"
RUN = Run(
    begin=100.0,
    end=110.0,
    testid="t",
    phases=(Span("steady", 102.0, 108.0),),
    alerts=(),
    events=(EVENT,),
    generator=None,
    dropped=0,
    scrape_seconds=1,
)
GOOD_BELOW_5 = (Step(None, "green"), Step(5.0, "red"))


class Canned(Prometheus):
    """Answers every query with the same lines."""

    def __init__(self, *lines: Series) -> None:
        super().__init__("http://127.0.0.1:1")
        self._lines = list(lines)

    def over(self, query: str, begin: float, end: float, step_seconds: float) -> list[Series]:
        """The lines."""
        return self._lines


def line(name: str, *values: float | None) -> Series:
    """One value a second from the beginning of the run."""
    points = ((100.0 + at, v) for at, v in enumerate(values) if v is not None)
    return Series({"name": name}, tuple(points))


def panel(**changes: Any) -> Panel:
    """A panel of one query."""
    defaults: dict[str, Any] = {
        "title": "t",
        "description": "d",
        "unit": "none",
        "kind": "timeseries",
        "stacked": False,
        "steps": GOOD_BELOW_5,
        "queries": (Query("up", "{{name}}"),),
    }
    return Panel(**defaults | changes)


def test_a_line_fills_the_plot_and_the_limit_is_where_it_belongs() -> None:
    plot = draw(panel(), RUN, Canned(line("a", *range(11))))
    (drawn,) = plot.lines
    assert drawn.path.startswith("M0.0,100.00 L100.0,")
    assert drawn.path.endswith("L1000.0,0.00")
    assert drawn.values == tuple(range(11))
    assert (drawn.highest, drawn.newest) == ("10", "10")
    assert [tick.text for tick in plot.ticks] == ["0", "5", "10"]
    assert plot.limits == ((50.0, "red"),)


def test_a_gap_is_not_drawn_across() -> None:
    (drawn,) = draw(panel(), RUN, Canned(line("a", 1, 1, None, None, 1, 1))).lines
    assert drawn.path.count("M") == 2
    assert drawn.area.count("M") == 2
    assert drawn.values[2:4] == (None, None)


def test_stacked_lines_lie_on_each_other() -> None:
    lines = Canned(line("a", *[2] * 11), line("b", *[3] * 11))
    below, above = draw(panel(stacked=True), RUN, lines).lines
    height = {drawn.name: float(drawn.path.split(",")[1].split(" ")[0]) for drawn in (below, above)}
    assert 100 - height["b"] == pytest.approx((100 - height["a"]) * 2.5, abs=0.02)
    # What is told is the line's own value.
    assert (below.highest, above.highest) == ("2", "3")


def test_many_lines_are_the_largest_and_a_count() -> None:
    lines = [line(str(n), n, n) for n in range(12)]
    plot = draw(panel(), RUN, Canned(*lines))
    assert [drawn.name for drawn in plot.lines] == [str(n) for n in range(4, 12)]
    assert plot.more == 4


@pytest.mark.parametrize(
    ("steps", "value", "state"),
    [
        (GOOD_BELOW_5, "9", "red"),
        ((Step(None, "red"), Step(3.0, "green")), "1", "red"),
        ((Step(None, "blue"),), "4", "blue"),
    ],
)
def test_a_stat_shows_how_bad_it_got(steps: tuple[Step, ...], value: str, state: str) -> None:
    plot = draw(panel(kind="stat", steps=steps), RUN, Canned(line("a", 1, 9, 4)))
    assert (plot.value, plot.state) == (value, state)


def test_a_state_lasts_until_it_changes() -> None:
    steps = (Step(None, "red"), Step(1.0, "green"))
    lines = Canned(line("a", 1, 1, 0, 0, 1))
    plot = draw(panel(kind="state-timeline", unit="bool_on_off", steps=steps), RUN, lines)
    (lane,) = plot.lanes
    assert [bar.colour for bar in lane.bars] == ["green", "red", "green"]
    assert [round(bar.begin) for bar in lane.bars] == [0, 20, 40]


def test_nothing_is_said_to_be_nothing() -> None:
    assert draw(panel(), RUN, Canned()).is_empty


def test_names_are_labels_and_ids_are_left_out() -> None:
    assert legend("{{name}} p99", Series({"name": "gate"}, ())) == "gate p99"
    assert legend("{{absent}}", Series({"name": "gate"}, ())) == "gate"
    (drawn,) = draw(panel(), RUN, Canned(line(f"{EVENT} floor", 1))).lines
    assert drawn.name == "floor"


def test_time_is_counted_from_the_first_buyer() -> None:
    ticks = time_ticks(RUN)
    assert [tick.text for tick in ticks][:2] == ["0 s", "2 s"]
    assert ticks[0].at == 20
    assert span_bar(RUN.phases[0], RUN).begin == 20
    assert span_bar(RUN.phases[0], RUN).width == pytest.approx(60)


@pytest.mark.parametrize(
    ("distance", "base", "wanted"),
    [(0, 10, 1), (0.03, 10, 0.05), (3, 10, 5), (70, 10, 100), (1000, 2, 1024)],
)
def test_ticks_are_round_numbers(distance: float, base: float, wanted: float) -> None:
    assert nice(distance, base) == pytest.approx(wanted)


def test_an_alert_that_fires_twice_has_two_spans() -> None:
    fired = Series({"alertname": "RedisDown"}, ((1.0, 1.0), (2.0, 1.0), (9.0, 1.0)))
    assert unbroken(fired, 1) == [Span("RedisDown", 1, 2), Span("RedisDown", 9, 9)]

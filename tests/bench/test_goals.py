"""The goals: what they demand, how a result is held against them, and how the command ends."""

import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from onsale.bench import run as bench_run
from onsale.bench.goals import GOALS, Goal, Verdict, check, check_as_json, falls_short
from onsale.bench.probes import Holdings
from onsale.bench.result import BenchResult, Footprint, Spread, Turn
from onsale.bench.text import render_check
from onsale.cli import app

# Every figure that must be reached, what is aimed at, and a result that reaches just the must.
DEMANDED = {
    "API CPU: order / noop": (1.0, 0.7),
    "throughput: order / noop": (1.0, 1.4),
    "throughput: sold_out / noop": (2.5, 3.5),
    "throughput: order / textbook": (10, 14),
    "throughput: order / cte": (3.5, 5),
    "throughput: disk_5ms / disk_0ms": (0.8, 0.95),
    "p99 at order's 70 %: order / noop": (3, 2),
    "API CPU: live_1m / live_1k": (1.1, 1.0),
    "throughput: events_100 / events_1": (0.8, 1.0),
    "Redis bytes per live order": (150, 80),
    "Redis CPU per order, µs": (6, 3),
    "API memory: after 1M requests / 10k": (1.1, 1.0),
    "throughput: order / quiet": (0.93, 0.97),
}


def turn(rate: float = 1_000, cpu_us: float = 100, **other: float) -> Turn:
    return Turn(100, rate, 1, 2, cpu_us, **other)  # type: ignore[arg-type]  # several types


ORDER = {"redis_cpu_us": 6, "new_orders": 100, "redis_bytes": 15_000, "order_load_p99_ms": 30}
MET = BenchResult(
    seconds=1,
    connections=8,
    cpus=2,
    load_average=0.5,
    turns={
        "noop": [turn(order_load_p99_ms=10)],
        "order": [turn(**ORDER)],
        "sold_out": [turn(2_500)],
        "textbook": [turn(100)],
        "cte": [turn(1_000 / 3.5)],
        "disk_0ms": [turn()],
        "disk_5ms": [turn(800)],
        "live_1k": [turn()],
        "live_1m": [turn(cpu_us=110)],
        "events_1": [turn()],
        "events_100": [turn(800)],
        "quiet": [turn(1_000 / 0.93)],
    },
    footprints=[Footprint(10_000, 100), Footprint(1_000_000, 110)],
    faults=[],
)
# The same by a service that is worse in each single respect.
SHORT = replace(
    MET,
    turns={
        "noop": [turn(1_010, 99, order_load_p99_ms=9.9)],
        "order": [turn(**ORDER | {"redis_cpu_us": 6.1, "redis_bytes": 15_100})],
        "sold_out": [turn(2_500)],
        "textbook": [turn(101)],
        "cte": [turn(290)],
        "disk_0ms": [turn()],
        "disk_5ms": [turn(790)],
        "live_1k": [turn()],
        "live_1m": [turn(cpu_us=111)],
        "events_1": [turn()],
        "events_100": [turn(790)],
        "quiet": [turn(1_080)],
    },
    footprints=[Footprint(10_000, 100), Footprint(1_000_000, 111)],
)


def test_the_goals_are_those_that_were_agreed() -> None:
    assert {goal.title: (goal.must, goal.aim) for goal in GOALS} == DEMANDED


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.title)
def test_every_goal_looks_at_its_figure(goal: Goal) -> None:
    assert goal.verdict(MET) is Verdict.MET
    assert goal.verdict(SHORT) is Verdict.SHORT
    assert goal.verdict(replace(MET, turns={}, footprints=[])) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("spread", "verdict"),
    [
        (Spread(0.9, 0.7, 1.1), Verdict.NOISE),
        (Spread(0.9, 0.7, 0.99), Verdict.SHORT),
        (Spread(1.0, 0.7, 1.1), Verdict.MET),
        (Spread(1.4, 0.7, 1.5), Verdict.AIM),
    ],
)
def test_a_goal_is_short_only_when_no_round_reached_it(spread: Spread, verdict: Verdict) -> None:
    at_least = Goal("more is better", lambda result: spread, must=1.0, aim=1.4)
    assert at_least.verdict(MET) is verdict
    flipped = Spread(-spread.median, -spread.high, -spread.low)
    at_most = Goal("less is better", lambda result: flipped, must=-1.0, aim=-1.4)
    assert at_most.verdict(MET) is verdict


def test_bytes_at_the_gate_are_those_of_a_million_orders_where_there_are() -> None:
    (goal,) = (goal for goal in GOALS if goal.title == "Redis bytes per live order")
    filled = replace(MET, filled={"live_1m": Holdings(1_000_000, 0, 80_000_000)})
    assert goal.spread(MET) == Spread(150, 150, 150)
    assert goal.spread(filled) == Spread(80, 80, 80)
    assert filled.as_json()["variants"]["live_1m"]["redis_bytes_per_live_order"] == 80


def test_people_and_programs_read_the_same_verdicts() -> None:
    console = Console(width=100, record=True, file=StringIO())
    render_check(SHORT, console)
    text = console.export_text()
    as_json = {goal["title"]: goal for goal in check_as_json(SHORT)}
    for goal, verdict in check(SHORT).items():
        (line,) = (line for line in text.splitlines() if line.startswith(goal.title))
        assert line.rstrip().endswith(verdict)
        assert as_json[goal.title]["verdict"] == verdict.name.lower()
    assert as_json["throughput: events_100 / events_1"]["measured"]["median"] == 0.79
    assert "…" not in text, "the table is too wide for a terminal of 100 columns"


@pytest.mark.parametrize(
    ("result", "arguments", "status"),
    [
        pytest.param(MET, ["--check"], 0, id="met"),
        pytest.param(SHORT, ["--check"], 1, id="short"),
        pytest.param(SHORT, [], 0, id="short, but nobody asked"),
        pytest.param(replace(MET, faults=["a wrong answer"]), [], 1, id="wrong answers"),
        pytest.param(MET, ["--suite", "nonsense"], 1, id="no such suite"),
    ],
)
def test_the_exit_status_says_whether_the_goals_are_met(
    result: BenchResult, arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "run", lambda *_, **__: result)
    ended = CliRunner().invoke(app, ["bench", "--json", *arguments])
    assert ended.exit_code == status
    if "--suite" not in arguments:
        assert len(json.loads(ended.stdout)["goals"]) == len(GOALS)
    assert falls_short(SHORT)
    assert not falls_short(MET)

"""What the service must reach and aims at, in figures that mean the same on every machine.

The tolerance is the run's own noise: a goal is short only when no round of the run reached it.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from onsale.bench.result import BenchResult, Ratio, Spread


class Verdict(StrEnum):
    """How a figure compares with its goal."""

    AIM = "reaches the aim"
    MET = "met"
    NOISE = "met within noise"
    SHORT = "falls short"
    UNKNOWN = "not measured"


class Goal(NamedTuple):
    """A figure, what it must be and what is aimed at: at least that, or at most."""

    title: str
    spread: Callable[[BenchResult], Spread | None]
    must: float
    aim: float
    digits: int = 2

    @property
    def at_least(self) -> bool:
        return self.aim > self.must

    def verdict(self, result: BenchResult) -> Verdict:
        """How the result compares."""
        spread = self.spread(result)
        if spread is None:
            return Verdict.UNKNOWN
        if self._reached(spread.median, self.aim):
            return Verdict.AIM
        if self._reached(spread.median, self.must):
            return Verdict.MET
        best = spread.high if self.at_least else spread.low
        return Verdict.NOISE if self._reached(best, self.must) else Verdict.SHORT

    def _reached(self, value: float, goal: float) -> bool:
        return value >= goal if self.at_least else value <= goal


def _ratio(figure: str, variant: str, base: str) -> Callable[[BenchResult], Spread | None]:
    return lambda result: result.ratio(Ratio(figure, variant, base))


def _throughput(variant: str, base: str) -> Callable[[BenchResult], Spread | None]:
    return _ratio("requests_per_second", variant, base)


def _redis_bytes_per_order(result: BenchResult) -> Spread | None:
    # By a million orders where there are: tables grow in steps.
    by_many = result.redis_bytes_per_live_order("live_1m")
    return Spread.of([by_many or result.bytes_per_order("order", "redis")])


def _redis_cpu_per_order(result: BenchResult) -> Spread | None:
    return result.spread("order", "redis_cpu_us")


def _memory_growth(result: BenchResult) -> Spread | None:
    return Spread.of([result.memory_growth()])


GOALS = (
    Goal("API CPU: order / noop", _ratio("api_cpu_us", "order", "noop"), 1.0, 0.7),
    Goal("throughput: order / noop", _throughput("order", "noop"), 1.0, 1.4),
    Goal("throughput: sold_out / noop", _throughput("sold_out", "noop"), 2.5, 3.5),
    Goal("throughput: order / textbook", _throughput("order", "textbook"), 10, 14, digits=1),
    Goal("throughput: order / cte", _throughput("order", "cte"), 3.5, 5),
    Goal("throughput: disk_5ms / disk_0ms", _throughput("disk_5ms", "disk_0ms"), 0.8, 0.95),
    Goal("p99 at order's 70 %: order / noop", _ratio("order_load_p99_ms", "order", "noop"), 3, 2),
    Goal("API CPU: live_1m / live_1k", _ratio("api_cpu_us", "live_1m", "live_1k"), 1.1, 1.0),
    Goal("throughput: events_100 / events_1", _throughput("events_100", "events_1"), 0.8, 1.0),
    Goal("Redis bytes per live order", _redis_bytes_per_order, 150, 80, digits=0),
    Goal("Redis CPU per order, µs", _redis_cpu_per_order, 6, 3, digits=1),
    Goal("API memory: after 1M requests / 10k", _memory_growth, 1.1, 1.0),
    Goal("throughput: order / quiet", _throughput("order", "quiet"), 0.93, 0.97),
)


def check(result: BenchResult) -> dict[Goal, Verdict]:
    """Every goal with its verdict."""
    return {goal: goal.verdict(result) for goal in GOALS}


def check_as_json(result: BenchResult) -> list[dict[str, Any]]:
    """The same for programs; `measured` is `{median, low, high}` or null."""
    return [
        {
            "title": goal.title,
            "measured": (spread := goal.spread(result)) and spread._asdict(),
            "must": goal.must,
            "aim": goal.aim,
            "verdict": verdict.name.lower(),
        }
        for goal, verdict in check(result).items()
    ]


def falls_short(result: BenchResult) -> bool:
    """Whether any goal was missed."""
    return Verdict.SHORT in check(result).values()

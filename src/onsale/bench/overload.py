"""More arrivals than can be served: what becomes of those that are, with the valve and without.

A process that is free to refuse (`valve`) and one that takes on whatever comes (`no_valve`) meet
the same crowds in turn. What is sustainable is the share of the maximum at which the benchmark has
its open loops; the crowds are one to three times as many. The maximum is what is placed of a crowd
of just as many as a closed loop can have: buyers who come when they like, over connections of their
own, are more work than 128 who wait for each other.
"""

import os
import secrets
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from onsale.bench.crowd import Crowd, Driven, find_wrk
from onsale.bench.preparing import Subject, prepare
from onsale.bench.probes import ApiCounters, resident_bytes
from onsale.bench.run import OPEN_LOAD
from onsale.bench.stage import stage
from onsale.bench.turns import Turns, settled
from onsale.bench.variants import Sale, Variant

VALVE = Variant("valve", "an order, by a process that may refuse it", Sale(), sheds=True)
NO_VALVE = Variant("no_valve", "an order, by a process that takes on whatever comes", Sale())
LOADS = (1.0, 1.5, 2.0, 3.0)

_BUYERS = 100_000
_REQUESTS_MAX = 10**7
# A crowd is one for longer than a burst, which is let in: what is measured comes after.
_LEAD_SECONDS = 2
_PEAK_SECONDS, _PEAK_CONNECTIONS = 2, 128
# To look into every answer costs wrk as much as all the rest: a few of the crowd are looked at.
_LOOKED_AT_SHARE = 0.05
_CONNECTIONS, _LOOKED_AT_CONNECTIONS = 1_024, 256
# Buyers who are looked at have indexes of their own.
_INDEXES_PER_CROWD = 1_000_000


@dataclass(frozen=True)
class Load:
    """One crowd: `load` times what is sustainable. Latencies are of the orders that were placed,
    from when they were due; `resident_bytes` are the process's at its end.
    """

    variant: str
    load: float
    offered_per_second: float
    placed_per_second: float
    shed_per_second: float
    placed_p50_ms: float
    placed_p99_ms: float
    resident_bytes: int


class Verdict(NamedTuple):
    """What the valve is held to: a figure over the rounds, and whether it is good enough."""

    title: str
    measured: float
    limit: float
    holds: bool


@dataclass(frozen=True)
class OverloadResult:
    """All loads of all rounds, and a line for everything that was wrong."""

    rounds: list[list[Load]]
    faults: list[str]
    load_average: float

    def verdicts(self) -> list[Verdict]:
        """The valve at three times what is sustainable; medians over the rounds."""
        slower, goodput, memory = zip(*map(_ratios, self.rounds), strict=True)
        return [
            _at_most("p99 of who is served, at 3× over at 1×", slower, 2.0),
            _at_least("orders a second at 3× over the most", goodput, 0.8),
            _at_most("memory after 3× over before", memory, 1.5),
        ]

    @property
    def holds(self) -> bool:
        """Whether every answer was right, and the valve does what it is for."""
        return not self.faults and all(verdict.holds for verdict in self.verdicts())

    def as_json(self) -> dict[str, Any]:
        """Everything, in one object."""
        return {
            "load_average": self.load_average,
            "faults": self.faults,
            "rounds": [[asdict(load) for load in loads] for loads in self.rounds],
            "verdicts": [verdict._asdict() for verdict in self.verdicts()],
        }


def run_overload(
    *, rounds: int = 3, seconds: int = 4, tell: Callable[[str], None] = lambda line: None
) -> OverloadResult:
    """Send every crowd at both variants for `seconds`, in each of the rounds.

    Starts and ends its own stores and servers. Raises `BenchError`, or `EmbeddedError` or
    `ServiceError` from below, when nothing could be measured.
    """
    find_wrk()
    load_average = os.getloadavg()[0]
    secret = secrets.token_hex(32)
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="onsale-bench-")))
        running = exits.enter_context(stage(folder, [VALVE, NO_VALVE], secret, tell))
        tell("making the buyers' tokens")
        crowd = Crowd.of(folder, secret, _BUYERS)
        turns = Turns(running, crowd, _PEAK_SECONDS, _PEAK_CONNECTIONS)
        subjects = []
        for server in running.servers:
            subject = prepare(server, folder, secret, crowd, _REQUESTS_MAX)
            turns.warm_up(subject)
            subjects.append(subject)
        faults: list[str] = []
        played = [_round(turns, crowd, subjects, seconds, faults, tell) for _ in range(rounds)]
    return OverloadResult(played, faults, load_average)


def _round(
    turns: Turns,
    crowd: Crowd,
    subjects: list[Subject],
    seconds: int,
    faults: list[str],
    tell: Callable[[str], None],
) -> list[Load]:
    valve, no_valve = subjects
    closed, wrong = turns.closed(no_valve)
    faults += wrong
    most, wrong = _meet(crowd, valve, 1 / OPEN_LOAD, closed.requests_per_second, seconds)
    faults += wrong
    loads = []
    # All crowds of one soon after each other: how fast a machine is changes within a minute.
    for subject in subjects:
        for times in LOADS:
            offered = times * OPEN_LOAD * most.placed_per_second
            load, wrong = _meet(crowd, subject, times, offered, seconds)
            faults += wrong
            loads.append(load)
            served = f"{load.placed_per_second:>7,.0f}/s of {offered:>7,.0f}/s"
            tell(f"{load.variant:8} {times}×: {served}, p99 {load.placed_p99_ms:.0f} ms")
    return loads


def _meet(
    crowd: Crowd, subject: Subject, times: float, offered: float, seconds: int
) -> tuple[Load, list[str]]:
    _drive(crowd, subject, offered, _LEAD_SECONDS)
    # In this order: what the lead left on its way is written down before it is looked at.
    counted_before, held_before = settled(subject), subject.holdings()
    many, looked_at = _drive(crowd, subject, offered, seconds)
    counted_after, held = settled(subject), subject.holdings()
    assert held is not None
    assert held_before is not None
    assert counted_after is not None
    assert counted_before is not None
    counted = counted_after.since(counted_before)
    placed, shed = counted.answers.get(201, 0), counted.answers.get(503, 0)
    load = Load(
        variant=subject.variant.name,
        load=times,
        offered_per_second=offered,
        placed_per_second=placed / many.duration_seconds,
        shed_per_second=shed / many.duration_seconds,
        placed_p50_ms=looked_at.placed_p50_ms,
        placed_p99_ms=looked_at.placed_p99_ms,
        resident_bytes=resident_bytes(subject.server.process.pid),
    )
    return load, faults_of(
        load,
        counted,
        held.since(held_before).orders,
        failures=many.failures + looked_at.failures,
    )


def _drive(crowd: Crowd, subject: Subject, offered: float, seconds: int) -> list[Driven]:
    """Most of the crowd, and those of it who are looked at, at the same time."""
    first = subject.next_index
    subject.next_index += 2 * _INDEXES_PER_CROWD

    def drive(part: int) -> Driven:
        return crowd.drive(
            subject.request,
            first_index=first + part * _INDEXES_PER_CROWD,
            keys=subject.variant.keys,
            seconds=seconds,
            connections=(_CONNECTIONS, _LOOKED_AT_CONNECTIONS)[part],
            arrivals_per_second=offered * (1 - _LOOKED_AT_SHARE, _LOOKED_AT_SHARE)[part],
            times_placed=part == 1,
        )

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(drive, range(2)))


def faults_of(load: Load, counted: ApiCounters, orders: int, failures: int) -> list[str]:
    """A line for everything that was wrong: answers, orders without one, connections."""
    name, faults = f"{load.variant} {load.load}×", []
    right = {201, 503} if load.variant == VALVE.name else {201}
    others = sum(count for status, count in counted.answers.items() if status not in right)
    if others:
        faults.append(f"{name}: {others:,} answers of another status than expected")
    if orders != counted.answers.get(201, 0):
        faults.append(f"{name}: {orders:,} new orders, {counted.answers.get(201, 0):,} answers")
    if failures:
        faults.append(f"{name}: {failures:,} connections broke or timed out")
    return faults


def _ratios(loads: list[Load]) -> tuple[float, float, float]:
    ours = {load.load: load for load in loads if load.variant == VALVE.name}
    calm, most = ours[LOADS[0]], ours[LOADS[-1]]
    return (
        most.placed_p99_ms / calm.placed_p99_ms,
        most.placed_per_second / max(load.placed_per_second for load in ours.values()),
        most.resident_bytes / calm.resident_bytes,
    )


def _at_most(title: str, values: tuple[float, ...], limit: float) -> Verdict:
    measured = statistics.median(values)
    return Verdict(title, measured, limit, measured <= limit)


def _at_least(title: str, values: tuple[float, ...], limit: float) -> Verdict:
    measured = statistics.median(values)
    return Verdict(title, measured, limit, measured >= limit)

"""The benchmark: every variant takes its turn in every round, so that all meet the same machine.

Figures of one run may be compared with each other, and their ratios with those of another run on
another day; absolute figures of two runs may not.
"""

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from onsale.bench.crowd import Crowd, Driven, find_wrk
from onsale.bench.errors import BenchError
from onsale.bench.probes import ApiCounters, Holdings, cpu_seconds
from onsale.bench.result import BenchResult, Turn
from onsale.bench.stage import Server, Stage, stage
from onsale.bench.variants import VARIANTS

# An API process remembers 20,000 verified tokens. With more buyers, who come back in the same
# order, each press is a buyer's first: its token is verified.
_BUYERS_MIN = 25_000
# So many tokens take 4 s to make. Above this, buyers come back within a long run.
_BUYERS_MAX = 250_000
# About what one process answers on a fast machine.
_ORDERS_PER_SECOND = 10_000
_KEYS_OF_BARE_VARIANTS = 10**9

_WARM_UP_SECONDS = 1
_WARM_UPS_MAX = 10
_SETTLE_SECONDS_MAX = 30.0
_SETTLE_POLL_SECONDS = 0.02


def run(
    *,
    rounds: int = 5,
    seconds: int = 4,
    connections: int = 128,
    variants: Sequence[str] = tuple(VARIANTS),
    tell: Callable[[str], None] = lambda line: None,
) -> BenchResult:
    """Measure the variants, each for `seconds` in each of the rounds.

    Starts and ends its own Postgres (fsync on), Valkey (append-only file, synced every second)
    and one server process for each variant; `tell` is called with a line for every step. Wrong
    answers are faults in the result. Raises `BenchError`, or `EmbeddedError` or `ServiceError`
    from below, when nothing could be measured; `ValueError` for a variant that there is not.
    """
    unknown = set(variants) - set(VARIANTS)
    if unknown or not variants:
        raise ValueError(f"no variant {', '.join(sorted(unknown))!r}: {', '.join(VARIANTS)}")
    find_wrk()
    load_average = os.getloadavg()[0]
    secret = secrets.token_hex(32)
    turns: dict[str, list[Turn]] = {name: [] for name in variants}
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="onsale-bench-") as name:
        folder = Path(name)
        chosen = [VARIANTS[variant] for variant in turns]
        with stage(folder, chosen, secret, tell) as running:
            tell("making the buyers' tokens")
            crowd = Crowd.of(folder, secret, _buyers(rounds * seconds))
            bench = _Bench(running, crowd, seconds, connections)
            for server in running.servers:
                tell(f"warming up {server.variant.name}")
                bench.warm_up(server)
            for number in range(1, rounds + 1):
                for server in running.servers:
                    measured = bench.take_turn(server)
                    turns[server.variant.name].append(measured.turn)
                    faults += [f"round {number}: {fault}" for fault in measured.faults]
                    tell(_line(number, rounds, server, measured.turn))
    return BenchResult(
        seconds=seconds,
        connections=connections,
        cpus=os.cpu_count() or 1,
        load_average=load_average,
        turns=turns,
        faults=faults,
    )


class _Work(NamedTuple):
    """What the processes have done so far."""

    api_cpu_seconds: float
    redis_cpu_seconds: float
    postgres_cpu_seconds: float

    @classmethod
    def so_far(cls, server: Server, running: Stage) -> Self:
        pids = (server.process.pid, running.redis_pid, running.postgres_pid)
        return cls(*(cpu_seconds(pid) for pid in pids))


class _Measured(NamedTuple):
    turn: Turn
    faults: list[str]


class _Bench:
    """Drives the crowd at the servers and reads what it cost."""

    def __init__(self, running: Stage, crowd: Crowd, seconds: int, connections: int) -> None:
        self._running = running
        self._crowd = crowd
        self._seconds = seconds
        self._connections = connections

    def warm_up(self, server: Server) -> None:
        """Drive it unmeasured, until a sale of few orders has all of them."""
        sale = server.variant.sale
        for _ in range(_WARM_UPS_MAX):
            self._drive(server, _WARM_UP_SECONDS)
            if sale is None:
                return
            _settled(server)
            placed = self._running.stores.holdings(server.event_id).live_orders
            if placed == sale.orders_max or (sale.orders_max is None and placed > 0):
                return
        raise BenchError(f"{server.variant.name} did not get warm; see {server.log_path}")

    def take_turn(self, server: Server) -> _Measured:
        """One turn of one variant."""
        if server.variant.sale is None:
            return self._turn_of_bare(server)
        stores = self._running.stores
        held_before = stores.holdings(server.event_id)
        counted_before = ApiCounters.scrape(server.metrics_port)
        done_before = _Work.so_far(server, self._running)
        driven = self._drive(server, self._seconds)
        counters = _settled(server)
        done = _Work.so_far(server, self._running)
        held = stores.holdings(server.event_id)

        counted = counters.since(counted_before)
        requests = sum(counted.answers.values())
        turn = Turn(
            requests=requests,
            requests_per_second=driven.requests / driven.duration_seconds,
            p50_ms=driven.p50_ms,
            p99_ms=driven.p99_ms,
            api_cpu_us=_us(done.api_cpu_seconds - done_before.api_cpu_seconds, requests),
            redis_cpu_us=_us(done.redis_cpu_seconds - done_before.redis_cpu_seconds, requests),
            postgres_cpu_us=_us(
                done.postgres_cpu_seconds - done_before.postgres_cpu_seconds, requests
            ),
            gate_batch_mean=counted.batch_size_mean("gate"),
            ledger_batch_mean=counted.batch_size_mean("ledger"),
            new_orders=held.live_orders - held_before.live_orders,
            redis_bytes=held.redis_bytes - held_before.redis_bytes,
            postgres_bytes=held.postgres_bytes - held_before.postgres_bytes,
        )
        return _Measured(turn, _faults(server, driven, counted, held_before, held))

    def _turn_of_bare(self, server: Server) -> _Measured:
        cpu_seconds_before = cpu_seconds(server.process.pid)
        driven = self._drive(server, self._seconds)
        used_seconds = cpu_seconds(server.process.pid) - cpu_seconds_before
        # These count nothing themselves; what wrk left unanswered at its end was work as well.
        requests = driven.requests + self._connections
        turn = Turn(
            requests=requests,
            requests_per_second=driven.requests / driven.duration_seconds,
            p50_ms=driven.p50_ms,
            p99_ms=driven.p99_ms,
            api_cpu_us=_us(used_seconds, requests),
        )
        return _Measured(turn, _faults_of_crowd(server, driven, driven.error_answers))

    def _drive(self, server: Server, seconds: int) -> Driven:
        sale = server.variant.sale
        server.check()
        driven = self._crowd.drive(
            server.orders_url,
            first_index=server.next_index,
            keys=sale.keys if sale else _KEYS_OF_BARE_VARIANTS,
            seconds=seconds,
            connections=self._connections,
        )
        # One for each connection was sent and not counted, and wrk itself throws one away.
        server.next_index += driven.requests + self._connections + 1
        server.check()
        if not driven.requests:
            raise BenchError(f"{server.variant.name} answered nothing; see {server.log_path}")
        return driven


def _settled(server: Server) -> ApiCounters:
    """The counters when nothing is in flight any more: commits outlive clients who left."""
    deadline = time.monotonic() + _SETTLE_SECONDS_MAX
    while time.monotonic() < deadline:
        counters = ApiCounters.scrape(server.metrics_port)
        if counters.in_flight == 0:
            return counters
        time.sleep(_SETTLE_POLL_SECONDS)
    raise BenchError(f"{server.variant.name} did not settle; see {server.log_path}")


def _faults(
    server: Server, driven: Driven, counted: ApiCounters, before: Holdings, after: Holdings
) -> list[str]:
    sale = server.variant.sale
    assert sale is not None
    right = counted.answers.get(sale.status, 0)
    faults = _faults_of_crowd(server, driven, sum(counted.answers.values()) - right)
    new_orders, expected = after.live_orders - before.live_orders, 0
    if sale.orders_max is None:
        expected = right
    if new_orders != expected:
        faults.append(f"{server.variant.name}: {new_orders:,} new orders, not {expected:,}")
    return faults


def _faults_of_crowd(server: Server, driven: Driven, wrong_answers: int) -> list[str]:
    name = server.variant.name
    faults = []
    if wrong_answers:
        faults.append(f"{name}: {wrong_answers:,} answers of another status than expected")
    if driven.failures:
        faults.append(f"{name}: {driven.failures:,} connections broke or timed out")
    return faults


def _buyers(seconds: int) -> int:
    return max(_BUYERS_MIN, min(_BUYERS_MAX, seconds * _ORDERS_PER_SECOND))


def _us(seconds: float, requests: int) -> float:
    return seconds / requests * 1e6


def _line(number: int, rounds: int, server: Server, turn: Turn) -> str:
    return (
        f"round {number} of {rounds}: {server.variant.name:9}"
        f" {turn.requests_per_second:>8,.0f}/s {turn.api_cpu_us:>6.0f} µs"
    )

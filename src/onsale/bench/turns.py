"""One turn of one variant: drive the crowd at it, and read before and after what that cost."""

import time
from http import HTTPStatus
from typing import NamedTuple, Self

from onsale.bench.crowd import Crowd, Driven
from onsale.bench.preparing import Subject
from onsale.bench.probes import ApiCounters, Holdings, cpu_seconds
from onsale.bench.result import Turn
from onsale.bench.stage import Server, Stage
from onsale.bench.variants import Variant

_WARM_UP_SECONDS = 1
_WARM_UPS_MAX = 10
_SETTLE_SECONDS_MAX = 30.0
_SETTLE_POLL_SECONDS = 0.02
# Whoever uses next to no CPU for so long has nothing left to do.
_IDLE_SECONDS = 0.05
_IDLE_CPU_SECONDS = 0.002
# More than are ever waiting for an answer, so that nobody who is due waits for a connection.
_OPEN_CONNECTIONS = 512


class Measured(NamedTuple):
    """A turn, and a line for everything that was wrong in it."""

    turn: Turn
    faults: list[str]


class OpenTurn(NamedTuple):
    """What an open loop came to; latency is from when a request was due."""

    requests_per_second: float
    p99_ms: float
    late_p99_ms: float
    grown: Holdings | None
    faults: list[str]


class _Work(NamedTuple):
    """CPU that the processes have used so far, in seconds."""

    api: float
    redis: float
    postgres: float

    @classmethod
    def so_far(cls, server: Server, running: Stage) -> Self:
        return cls(*cpu_seconds(server.process.pid, running.redis_pid, running.postgres_pid))

    def since(self, before: "_Work") -> "_Work":
        return _Work(*(now - then for now, then in zip(self, before, strict=True)))


class _Seen(NamedTuple):
    """What the crowd, the process and the stores say about one turn.

    wrk left `unanswered` requests at most when it ended; they were work as well.
    """

    variant: Variant
    driven: Driven
    unanswered: int
    counted: ApiCounters | None
    grown: Holdings | None

    @property
    def requests(self) -> int:
        if self.counted is not None:
            return sum(self.counted.answers.values())
        if self.grown is not None:
            return max(self.grown.orders, self.driven.requests)
        return self.driven.requests + self.unanswered

    @property
    def faults(self) -> list[str]:
        name, faults = self.variant.name, []
        if self._wrong_answers:
            faults.append(
                f"{name}: {self._wrong_answers:,} answers of another status than expected"
            )
        if self.driven.failures:
            faults.append(f"{name}: {self.driven.failures:,} connections broke or timed out")
        if self.grown is not None and self.grown.orders not in self._orders_expected:
            faults.append(
                f"{name}: {self.grown.orders:,} new orders, not {self._orders_expected[0]:,}"
            )
        return faults

    @property
    def _wrong_answers(self) -> int:
        if self.counted is not None:
            return self.requests - self.counted.answers.get(self.variant.status, 0)
        if self.variant.status >= HTTPStatus.BAD_REQUEST:
            return self.driven.requests - self.driven.error_answers
        return self.driven.error_answers

    @property
    def _orders_expected(self) -> range:
        if self.variant.orders_max is not None:
            return range(1)
        if self.counted is not None:
            right = self.counted.answers.get(self.variant.status, 0)
            return range(right, right + 1)
        right = self.driven.requests - self.driven.error_answers
        return range(right, right + self.unanswered + 1)


class Turns:
    """Drives the crowd at the servers and reads what it cost."""

    def __init__(self, running: Stage, crowd: Crowd, seconds: int, connections: int) -> None:
        self._running = running
        self._crowd = crowd
        self._seconds = seconds
        self._connections = connections

    def warm_up(self, subject: Subject) -> None:
        """Drive it unmeasured, until a sale of few orders has all of them."""
        orders_max = subject.variant.orders_max
        for _ in range(_WARM_UPS_MAX):
            self._drive(subject, _WARM_UP_SECONDS)
            settled(subject)
            held = subject.holdings()
            if held is None or held.orders == orders_max or (orders_max is None and held.orders):
                return
        raise subject.server.failure("did not get warm")

    def closed(self, subject: Subject) -> Measured:
        """A turn in which every connection sends when it has been answered, or as its variant."""
        held_before = subject.holdings()
        counted_before = settled(subject)
        used_before = _Work.so_far(subject.server, self._running)
        driven = self._drive_for_answers(
            subject, self._seconds, subject.variant.arrivals_per_second
        )
        counted = settled(subject)
        used = _Work.so_far(subject.server, self._running).since(used_before)
        seen = _Seen(
            subject.variant,
            driven,
            self._connections_of(subject),
            counted and counted_before and counted.since(counted_before),
            _grown(subject, held_before),
        )
        return Measured(_turn(seen, used), seen.faults)

    def open(self, subject: Subject, arrivals_per_second: float) -> OpenTurn:
        """A turn in which the crowd arrives whether or not it is answered."""
        held_before = subject.holdings()
        driven = self._drive_for_answers(subject, self._seconds, arrivals_per_second)
        settled(subject)
        grown = _grown(subject, held_before)
        return OpenTurn(
            driven.requests / driven.duration_seconds,
            # The one on top of the other: wrk does not say which of the answers were sent late.
            driven.p99_ms + driven.late_p99_ms,
            driven.late_p99_ms,
            grown,
            _Seen(subject.variant, driven, _OPEN_CONNECTIONS, None, grown).faults,
        )

    def unmeasured(self, subject: Subject, seconds: int) -> tuple[Driven, list[str]]:
        """Drive it for its own sake: what the crowd saw, and what was wrong."""
        held_before = subject.holdings()
        driven = self._drive_for_answers(subject, seconds)
        settled(subject)
        seen = _Seen(
            subject.variant,
            driven,
            self._connections_of(subject),
            None,
            _grown(subject, held_before),
        )
        return driven, seen.faults

    def _drive_for_answers(
        self, subject: Subject, seconds: int, arrivals_per_second: float = 0
    ) -> Driven:
        driven = self._drive(subject, seconds, arrivals_per_second)
        if not driven.requests:
            raise subject.server.failure(f"answered nobody in {seconds} s")
        return driven

    def _drive(self, subject: Subject, seconds: int, arrivals_per_second: float = 0) -> Driven:
        server, variant = subject.server, subject.variant
        connections = self._connections_of(subject)
        if arrivals_per_second and not variant.connections:
            connections = _OPEN_CONNECTIONS
        server.check()
        driven = self._crowd.drive(
            subject.request,
            first_index=subject.next_index,
            keys=variant.keys,
            seconds=seconds,
            connections=connections,
            arrivals_per_second=arrivals_per_second,
        )
        # One for each connection was sent and not counted, and wrk itself throws one away.
        subject.next_index += driven.requests + connections + 1
        server.check()
        if subject.requests_max is not None and subject.next_index > subject.requests_max:
            raise server.failure("was asked more often than was made ready for")
        return driven

    def _connections_of(self, subject: Subject) -> int:
        return subject.variant.connections or self._connections


def _turn(seen: _Seen, used: _Work) -> Turn:
    counted, grown, requests = seen.counted, seen.grown, seen.requests
    return Turn(
        requests=requests,
        requests_per_second=seen.driven.requests / seen.driven.duration_seconds,
        p50_ms=seen.driven.p50_ms,
        p99_ms=seen.driven.p99_ms,
        api_cpu_us=used.api / requests * 1e6,
        redis_cpu_us=used.redis / requests * 1e6 if seen.variant.sale else None,
        postgres_cpu_us=used.postgres / requests * 1e6 if grown else None,
        gate_batch_mean=counted.batch_size_mean("gate") if counted else None,
        ledger_batch_mean=counted.batch_size_mean("ledger") if counted else None,
        new_orders=grown.orders if grown else 0,
        redis_bytes=grown.redis_bytes if grown else 0,
        postgres_bytes=grown.postgres_bytes if grown else 0,
    )


def _grown(subject: Subject, before: Holdings | None) -> Holdings | None:
    now = subject.holdings()
    return now and before and now.since(before)


def settled(subject: Subject) -> ApiCounters | None:
    """The counters when nothing is in flight any more: commits outlive clients who left.

    `None` for a server that has none, once it is idle.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS_MAX
    before = None
    while time.monotonic() < deadline:
        counters = subject.counters()
        if counters is None and _is_idle(subject.server):
            return None
        # Twice the same: who is not in flight any more is counted a moment later.
        if counters is not None and counters == before and counters.in_flight == 0:
            return counters
        before = counters
        time.sleep(_SETTLE_POLL_SECONDS)
    raise subject.server.failure("did not settle")


def _is_idle(server: Server) -> bool:
    (used_before,) = cpu_seconds(server.process.pid)
    time.sleep(_IDLE_SECONDS)
    (used,) = cpu_seconds(server.process.pid)
    return used - used_before <= _IDLE_CPU_SECONDS

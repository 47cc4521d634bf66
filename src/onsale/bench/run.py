"""The benchmark: every variant takes its turn in every round, so that all meet the same machine.

Figures of one run may be compared with each other, and their ratios with those of another run on
another day; absolute figures of two runs may not.
"""

import os
import secrets
import statistics
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from onsale.bench.crowd import Crowd, find_wrk
from onsale.bench.memory import MemoryRun
from onsale.bench.preparing import Subject, prepare
from onsale.bench.probes import Holdings
from onsale.bench.result import BenchResult, Turn
from onsale.bench.stage import stage
from onsale.bench.turns import OpenTurn, Turns
from onsale.bench.variants import MEMORY, VARIANTS, Suite, Variant

# An API process remembers 20,000 verified tokens. With more buyers, who come back in the same
# order, each press is a buyer's first: its token is verified.
_BUYERS_MIN = 25_000
# So many tokens take 4 s to make. Above this, buyers come back within a long run.
_BUYERS_MAX = 250_000
# More than one process answers in a second on a fast machine.
_REQUESTS_PER_SECOND_MAX = 10_000
# A share of the maximum at which a service is run: below, queues are short.
OPEN_LOAD = 0.7

Tell = Callable[[str], None]


def run(
    suite: Suite,
    *,
    rounds: int = 5,
    seconds: int = 1,
    connections: int = 128,
    tell: Tell = lambda line: None,
) -> BenchResult:
    """Measure the suite's variants, each for `seconds` in each of the rounds.

    Starts and ends its own Postgres (fsync on), Valkey (append-only file, synced every second)
    and a server for each variant; `tell` is called with a line for every step. Wrong answers are
    faults in the result. Raises `BenchError`, or `EmbeddedError` or `ServiceError` from below, when
    nothing could be measured.
    """
    find_wrk()
    load_average = os.getloadavg()[0]
    secret = secrets.token_hex(32)
    requests_max = (1 + 2 * rounds) * seconds * _REQUESTS_PER_SECOND_MAX
    buyers = max(_BUYERS_MIN, min(_BUYERS_MAX, requests_max))
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="onsale-bench-")))
        running = exits.enter_context(stage(folder, _variants(suite), secret, tell))
        tell("making the buyers' tokens")
        crowd = Crowd.of(folder, secret, buyers)
        turns = Turns(running, crowd, seconds, connections)
        memory, subjects = exits.enter_context(MemoryRun(turns)), []
        for server in running.servers:
            tell(f"preparing {server.variant.name}: {server.variant.description}")
            subject = prepare(server, folder, secret, crowd, requests_max)
            turns.warm_up(subject)
            if server.variant is MEMORY:
                memory.begin(subject)
            else:
                subjects.append(subject)
        tell("waiting for the memory run, if there is one")
        footprints, memory_faults = memory.end()
        for subject in subjects:
            subject.sleep()
        played = _Rounds(turns, subjects, suite.open_loop, tell)
        for number in range(1, rounds + 1):
            played.play(number)
    return BenchResult(
        seconds=seconds,
        connections=connections,
        cpus=os.cpu_count() or 1,
        load_average=load_average,
        turns=played.turns,
        filled={subject.variant.name: subject.filled for subject in subjects if subject.filled},
        footprints=footprints,
        faults=memory_faults + played.faults,
    )


def _variants(suite: Suite) -> list[Variant]:
    """Those of the suite, the memory run first: it goes on while the others are made ready."""
    variants = [VARIANTS[name] for name in suite.variants]
    return sorted(variants, key=lambda variant: variant is not MEMORY)


class _Rounds:
    """What the rounds came to so far, by variant."""

    def __init__(
        self,
        turns: Turns,
        subjects: Sequence[Subject],
        open_loop: Collection[str],
        tell: Tell,
    ) -> None:
        self._turns = turns
        self._subjects = subjects
        self._open_loop = open_loop
        self._tell = tell
        self.turns: dict[str, list[Turn]] = {subject.variant.name: [] for subject in subjects}
        self.faults: list[str] = []

    def play(self, number: int) -> None:
        """A turn for everybody, in a closed loop; then one in an open loop for some."""
        for subject in self._subjects:
            with subject.awake():
                turn, faults = self._turns.closed(subject)
            self.turns[subject.variant.name].append(turn)
            self._fail(number, faults)
            cost = f"{turn.requests_per_second:>8,.0f}/s {turn.api_cpu_us:>6.0f} µs CPU"
            self._tell(f"round {number}: {subject.variant.name:11} {cost}")
        for subject in self._subjects:
            if subject.variant.name in self._open_loop:
                with subject.awake():
                    self._play_open(number, subject)

    def _play_open(self, number: int, subject: Subject) -> None:
        name = subject.variant.name
        own = self._at_load_of(name, number, subject)
        order_load_p99_ms = own.p99_ms if name == "order" else None
        if name == "noop" and "order" in self.turns:
            order_load_p99_ms = self._at_load_of("order", number, subject).p99_ms
        closed, grown = self.turns[name][-1], own.grown or Holdings(0, 0, 0)
        self.turns[name][-1] = replace(
            closed,
            new_orders=closed.new_orders + grown.orders,
            redis_bytes=closed.redis_bytes + grown.redis_bytes,
            postgres_bytes=closed.postgres_bytes + grown.postgres_bytes,
            open_requests_per_second=own.requests_per_second,
            open_p99_ms=own.p99_ms,
            open_late_p99_ms=own.late_p99_ms,
            order_load_p99_ms=order_load_p99_ms,
        )

    def _at_load_of(self, variant: str, number: int, subject: Subject) -> OpenTurn:
        maximum = statistics.median(turn.requests_per_second for turn in self.turns[variant])
        turn = self._turns.open(subject, maximum * OPEN_LOAD)
        self._fail(number, turn.faults)
        cost = f"{turn.requests_per_second:>8,.0f}/s {turn.p99_ms:>6.1f} ms p99, open loop"
        self._tell(f"round {number}: {subject.variant.name:11} {cost}")
        return turn

    def _fail(self, number: int, faults: Iterable[str]) -> None:
        self.faults += [f"round {number}: {fault}" for fault in faults]

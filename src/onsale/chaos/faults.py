"""What is done to the service: each fault a small class that injects and mends.

How long it lasts, which process it meets and in which of its forms it comes is the dice's, so a
seed says it all. A fault outlasts every patience of the service (`stage.IMPATIENCE`) where the
point is that somebody comes back whom everybody has given up.
"""

import asyncio
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import ClassVar

from redis.asyncio import Redis

from onsale.chaos.links import Store
from onsale.chaos.processes import Process, freeze_tree, thaw_tree
from onsale.chaos.proxy import Weather
from onsale.chaos.stage import LONGEST_PATIENCE_SECONDS, PER_KIND, Stage
from onsale.domain.errors import LedgerUnavailable
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from onsale.workers.main import WorkerKind

_POLL_SECONDS = 0.05
_REPLICATED_SECONDS_MAX = 20.0

_CRASHED_SECONDS_MAX = 25.0
_AWAY_SECONDS = 0.8

_SHORT_SECONDS = (0.5, 2.5)
_LONG_SECONDS = (LONGEST_PATIENCE_SECONDS + 0.5, LONGEST_PATIENCE_SECONDS + 2.0)


class Fault(ABC):
    """One fault. `gate_alone` and `ledger_crashes` as in `incidents.Incident`."""

    lasts_seconds: ClassVar[tuple[float, float]] = _SHORT_SECONDS
    gate_alone: bool = False
    ledger_crashes: bool = False

    def impossible(self, stage: Stage) -> str | None:
        """Why it cannot be injected here, if so."""
        return None

    @abstractmethod
    async def inject(self, stage: Stage, dice: Random) -> None:
        """Break it. Raises `NotInjected` when the service did not get to where it is broken."""

    async def last(self, stage: Stage, dice: Random) -> None:
        """Let it be broken for a while."""
        await asyncio.sleep(dice.uniform(*self.lasts_seconds))

    @abstractmethod
    async def mend(self, stage: Stage) -> None:
        """Mend it, whatever became of it. Harmless when nothing is broken."""


class NotInjected(Exception):
    """The service did not get to the point where the fault is."""


# -- processes


class KillProcess(Fault):
    """kill -9 of one process of a kind; whoever watches over it starts it again."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._name = ""

    async def inject(self, stage: Stage, dice: Random) -> None:
        self._name = f"{self._kind}-{dice.randint(1, PER_KIND)}"
        await stage.do(stage.process(self._name).kill)

    async def mend(self, stage: Stage) -> None:
        await stage.start(self._name)


class FreezeProcess(Fault):
    """SIGSTOP of one process of a kind, and SIGCONT when it has been given up for dead."""

    lasts_seconds = _LONG_SECONDS

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._name = ""

    async def inject(self, stage: Stage, dice: Random) -> None:
        self._name = f"{self._kind}-{dice.randint(1, PER_KIND)}"
        await stage.do(stage.process(self._name).freeze)

    async def mend(self, stage: Stage) -> None:
        await stage.do(stage.process(self._name).thaw)


class KillStore(Fault):
    """kill -9 of a store's server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.gate_alone = store is Store.GATE
        self.ledger_crashes = store is Store.LEDGER

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(_server(stage, self._store).kill)

    async def mend(self, stage: Stage) -> None:
        await start_store(stage, self._store)


class FreezeStore(Fault):
    """SIGSTOP of a store's server and all its processes."""

    lasts_seconds = _LONG_SECONDS

    def __init__(self, store: Store) -> None:
        self._store = store
        self.gate_alone = store is Store.GATE

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(freeze_tree, _server(stage, self._store).pid)

    async def mend(self, stage: Stage) -> None:
        await stage.do(thaw_tree, _server(stage, self._store).pid)


class RestartLedger(Fault):
    """A restart of Postgres in good order, under load."""

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(stage.postgres.stop)

    async def mend(self, stage: Stage) -> None:
        await start_store(stage, Store.LEDGER)


class DiskFull(Fault):
    """The disk of Postgres is full: its files, its log, everything."""

    ledger_crashes = True
    lasts_seconds = (1.5, 3.0)

    def impossible(self, stage: Stage) -> str | None:
        return stage.disk_fault

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(stage.disk.fill)

    async def mend(self, stage: Stage) -> None:
        await stage.do(stage.disk.relieve)
        # It may be about to give up, or to recover by itself; dead, it is started again.
        while not await _ledger_answers(stage):
            await start_store(stage, Store.LEDGER)
            await asyncio.sleep(_POLL_SECONDS)


# -- the gate forgets


class FlushAll(Fault):
    """FLUSHALL."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        await _flushall(stage)

    async def mend(self, stage: Stage) -> None:
        """That is the reconciler's."""


class ScriptFlush(Fault):
    """SCRIPT FLUSH, again and again."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        async with redis_of(stage) as redis:
            for _ in range(dice.randint(5, 20)):
                await redis.script_flush()
                await asyncio.sleep(0.02)

    async def mend(self, stage: Stage) -> None:
        """The scripts are sent again by whoever calls them."""


class OldSnapshot(Fault):
    """Redis is killed and comes back with the files that it had some seconds before."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        data = stage.valkey.data_dir / "data"
        snapshot = stage.valkey.data_dir / "snapshot"
        await stage.do(_copy, data, snapshot)
        await asyncio.sleep(dice.uniform(1.0, 3.0))
        await stage.do(stage.valkey.kill)
        await stage.do(_copy, snapshot, data)

    async def mend(self, stage: Stage) -> None:
        await start_store(stage, Store.GATE)


class LaggingReplica(Fault):
    """Redis is lost, and a replica takes its place that had stopped hearing of it before."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        primary, replica = stage.valkey, stage.spare_valkey
        await stage.do(_empty, replica.data_dir / "data")
        await stage.do(replica.start)
        await _replicate(primary, replica)
        await asyncio.sleep(dice.uniform(1.0, 2.5))
        await stage.do(primary.kill)
        await stage.do(primary.stop)
        async with _redis_at(replica) as redis:
            await redis.replicaof("NO", "ONE")
        stage.valkey, stage.spare_valkey = replica, primary

    async def mend(self, stage: Stage) -> None:
        await stage.lead_to_valkey()


class GateFull(Fault):
    """Redis has no memory left; it evicts nothing and takes nothing."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        async with redis_of(stage) as redis:
            await redis.config_set("maxmemory", 1)

    async def mend(self, stage: Stage) -> None:
        async with redis_of(stage) as redis:
            await redis.config_set("maxmemory", 0)


# -- the network


@dataclass
class BadWeather(Fault):
    """The ways from the processes to a store are bad: all of them, or those of one API process,
    so that two processes disagree about the store.
    """

    store: Store
    weather: Weather
    lasts: tuple[float, float] = _SHORT_SECONDS
    # Connections break when the weather begins, and when it clears.
    drop_first: bool = False
    drop_last: bool = False

    def __post_init__(self) -> None:
        self.gate_alone = self.store is Store.GATE
        self._drop_last = self.drop_last

    async def inject(self, stage: Stage, dice: Random) -> None:
        # What is held up arrives late in the end, or never: both are of the same network.
        self._drop_last = self.drop_last or (self.weather.holds_requests and dice.random() < 0.5)
        everybody = (*stage.apis, *stage.workers)
        for name in dice.choice((everybody, everybody, (dice.choice(tuple(stage.apis)),))):
            await stage.links.set(name, self.store, self.weather, drop=self.drop_first)

    async def last(self, stage: Stage, dice: Random) -> None:
        await asyncio.sleep(dice.uniform(*self.lasts))

    async def mend(self, stage: Stage) -> None:
        await stage.links.clear(drop=self._drop_last)


@dataclass
class HangUp(Fault):
    """Buyers go away while their orders are on the way to the ledger, or its answer to them."""

    weather: Weather

    async def inject(self, stage: Stage, dice: Random) -> None:
        # Shorter than the ledger is waited for: the orders are written, and nobody hears of it.
        stage.buyers_hang_up_after_seconds = 0.2
        for _ in range(dice.randint(2, 4)):
            for api in stage.apis:
                await stage.links.set(api, Store.LEDGER, self.weather)
            await asyncio.sleep(0.5)
            await stage.links.clear()
            await asyncio.sleep(0.2)

    async def last(self, stage: Stage, dice: Random) -> None:
        """It has."""

    async def mend(self, stage: Stage) -> None:
        stage.buyers_hang_up_after_seconds = None
        await stage.links.clear()


# -- clocks


@dataclass
class WrongClock(Fault):
    """An API process runs on a host whose clock is wrong."""

    offset: str

    lasts_seconds: ClassVar[tuple[float, float]] = (4.0, 6.0)

    def __post_init__(self) -> None:
        self._name = ""

    def impossible(self, stage: Stage) -> str | None:
        return None if _libfaketime() else "needs libfaketime (Debian, Ubuntu: libfaketime)"

    async def inject(self, stage: Stage, dice: Random) -> None:
        self._name = f"api-{dice.randint(1, PER_KIND)}"
        wrong = {
            "LD_PRELOAD": str(_libfaketime()),
            "FAKETIME": self.offset,
            # Time-outs are of another clock, which nobody sets.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await stage.start(self._name, wrong)

    async def mend(self, stage: Stage) -> None:
        await stage.start(self._name)


def _libfaketime() -> Path | None:
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


# -- crashes between two steps


@dataclass
class Crash(Fault):
    """A process of a kind dies at a failpoint, so many times in a row; a worker has to get there
    itself, so its twin is away. `provoke` brings about what leads there.
    """

    point: str
    kind: str
    times: int
    provoke: Callable[[Stage], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self._away: list[str] = []

    async def inject(self, stage: Stage, dice: Random) -> None:
        twins = [f"{self.kind}-{number}" for number in range(1, PER_KIND + 1)]
        name = dice.choice(twins)
        self._away = [name] if self.kind == "api" else twins
        for twin in self._away:
            await stage.do(stage.process(twin).kill)
        for time in range(1, self.times + 1):
            await stage.do(stage.process(name).start, {"ONSALE_FAILPOINT": self.point})
            if self.provoke is not None:
                await self.provoke(stage)
            try:
                async with asyncio.timeout(_CRASHED_SECONDS_MAX):
                    await _until_dead(stage.process(name))
            except TimeoutError:
                raise NotInjected(f"{name} did not get there, time {time}") from None

    async def last(self, stage: Stage, dice: Random) -> None:
        """It is started again at once."""

    async def mend(self, stage: Stage) -> None:
        await stage.links.clear()
        for name in self._away:
            await stage.start(name)


async def _flushall(stage: Stage) -> None:
    async with redis_of(stage) as redis:
        await redis.flushall()


async def _strand_orders(stage: Stage) -> None:
    """Let the gate admit orders that the ledger does not take; not every buyer comes again."""
    await _cut_apis(stage, Store.LEDGER)
    await asyncio.sleep(_AWAY_SECONDS)
    await stage.links.clear()


async def _take_gate_away(stage: Stage) -> None:
    """Let orders be admitted by the ledger alone."""
    await _cut_apis(stage, Store.GATE)


async def _keep_from_gate(stage: Stage) -> None:
    """Let orders be admitted that the gate has yet to hear of."""
    await _cut_apis(stage, Store.GATE)
    await asyncio.sleep(_AWAY_SECONDS)
    await stage.links.clear()


async def _cut_apis(stage: Stage, store: Store) -> None:
    for api in stage.apis:
        await stage.links.set(api, store, Weather(refuses=True), drop=True)


async def _until_dead(process: Process) -> None:
    while process.runs:  # noqa: ASYNC110 - of another process there is no event to wait for
        await asyncio.sleep(_POLL_SECONDS)


# -- what they share


@asynccontextmanager
async def redis_of(stage: Stage) -> AsyncIterator[Redis]:
    """Redis itself, not by a link."""
    async with _redis_at(stage.valkey) as redis:
        yield redis


@asynccontextmanager
async def _redis_at(server: EmbeddedValkey) -> AsyncIterator[Redis]:
    redis = Redis.from_url(server.url, decode_responses=True)
    try:
        yield redis
    finally:
        await redis.aclose()


def _server(stage: Stage, store: Store) -> EmbeddedValkey | EmbeddedPostgres:
    return stage.valkey if store is Store.GATE else stage.postgres


async def start_store(stage: Stage, store: Store) -> None:
    """Start a store's server unless it runs."""
    server = _server(stage, store)
    if not server.is_running:
        await stage.do(server.start)


async def _ledger_answers(stage: Stage) -> bool:
    try:
        await stage.service.events.now()
    except LedgerUnavailable:
        return False
    return True


async def _replicate(primary: EmbeddedValkey, replica: EmbeddedValkey) -> None:
    """Let the replica hear of everything until now, and of nothing from now on.

    Replication is spoken over TCP alone: the primary opens a port on the loopback for as long.
    """
    async with _redis_at(primary) as from_redis, _redis_at(replica) as to_redis:
        port = free_port()
        # It would wait some seconds for more replicas than one.
        await from_redis.config_set("repl-diskless-sync-delay", 0)
        await from_redis.config_set("bind", "127.0.0.1")
        await from_redis.config_set("port", port)
        try:
            await to_redis.replicaof("127.0.0.1", port)
            async with asyncio.timeout(_REPLICATED_SECONDS_MAX):
                await _until_replicated(to_redis)
        finally:
            await from_redis.config_set("port", 0)
            await from_redis.client_kill_filter(_type="replica")


async def _until_replicated(replica: Redis) -> None:
    while True:
        if (await replica.info("replication"))["master_link_status"] == "up":
            return
        await asyncio.sleep(_POLL_SECONDS)


def _copy(source: Path, target: Path) -> None:
    """A copy with its owners, made while the server runs: what a backup of the disk would have."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def _empty(folder: Path) -> None:
    for each in folder.glob("*") if folder.exists() else ():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


# -- by name

_SLOW_SECONDS = 0.3
_STORE_NAMES = {Store.GATE: "redis", Store.LEDGER: "postgres"}
_KINDS = ("api", *WorkerKind)


# Who gets to a failpoint, and what has to be done for it.
_CRASHES: dict[str, tuple[str, Callable[[Stage], Awaitable[None]] | None]] = {
    **dict.fromkeys(("admitted", "before-place", "placed"), ("api", None)),
    **dict.fromkeys(("released", "refunded", "authorized", "confirmed"), ("api", None)),
    "admitted-by-ledger": ("api", _take_gate_away),
    "adopted": (WorkerKind.RECONCILER, _keep_from_gate),
    "expired": (WorkerKind.SWEEPER, None),
    "before-capture": (WorkerKind.OUTBOX, None),
    "captured": (WorkerKind.OUTBOX, None),
    "claimed": (WorkerKind.WEBHOOKS, None),
    "delivered": (WorkerKind.WEBHOOKS, None),
    "fenced": (WorkerKind.RECONCILER, _strand_orders),
    "gate-emptied": (WorkerKind.RECONCILER, _flushall),
    "gate-chunk": (WorkerKind.RECONCILER, _flushall),
    "gate-opened": (WorkerKind.RECONCILER, _flushall),
}


def _all_faults() -> Iterator[tuple[str, Callable[[], Fault]]]:
    for kind in _KINDS:
        yield f"kill-{kind}", partial(KillProcess, kind)
        yield f"freeze-{kind}", partial(FreezeProcess, kind)
    for store, name in _STORE_NAMES.items():
        yield f"kill-{name}", partial(KillStore, store)
        yield f"freeze-{name}", partial(FreezeStore, store)
        cut = Weather(refuses=True)
        yield f"cut-{name}", partial(BadWeather, store, cut, drop_first=True)
        half_open = Weather(holds_requests=True, holds_answers=True)
        yield f"half-open-{name}", partial(BadWeather, store, half_open, _LONG_SECONDS)
        slow = Weather(delay_seconds=_SLOW_SECONDS)
        yield f"slow-{name}", partial(BadWeather, store, slow)
        resets = Weather(breaks_before_answer=True)
        yield f"reset-{name}", partial(BadWeather, store, resets)
    for times, again in ((1, ""), (2, "-again")):
        for point, (kind, provoke) in _CRASHES.items():
            yield f"crash-{point}{again}", partial(Crash, point, kind, times, provoke)
    yield "restart-postgres", RestartLedger
    yield "disk-full", DiskFull
    yield "flushall", FlushAll
    yield "script-flush", ScriptFlush
    yield "old-snapshot", OldSnapshot
    yield "lagging-replica", LaggingReplica
    yield "redis-full", GateFull
    yield "hang-up-before-commit", partial(HangUp, Weather(holds_requests=True))
    yield "hang-up-before-answer", partial(HangUp, Weather(holds_answers=True))
    yield "clock-ahead", partial(WrongClock, "+1h")
    yield "clock-behind", partial(WrongClock, "-1h")


FAULTS = dict(_all_faults())

# One of each sort, for when there are minutes and not a quarter of an hour.
SHORT = (
    *("kill-redis", "kill-postgres", "kill-api", "kill-sweeper", "kill-webhooks"),
    *("freeze-api", "flushall", "old-snapshot", "lagging-replica"),
    *("half-open-postgres", "reset-postgres", "half-open-redis", "hang-up-before-answer"),
    *("crash-admitted", "crash-placed", "crash-expired", "crash-fenced", "crash-gate-chunk"),
)

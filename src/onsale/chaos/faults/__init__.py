"""What is done to the service, by name: each fault a small class that injects and mends.

How long it lasts, which process it meets and in which of its forms it comes is the dice's, so a
seed says it all. A fault outlasts every patience of the service (`stage.IMPATIENCE`) where the
point is that somebody comes back whom everybody has given up.
"""

from collections.abc import Callable, Iterator
from functools import partial

from onsale.chaos.faults.clocks import WrongClock
from onsale.chaos.faults.crashes import CRASHES, Crash
from onsale.chaos.faults.fault import LONG_SECONDS, Fault, NotInjected
from onsale.chaos.faults.forgetting import (
    FlushAll,
    GateFull,
    LaggingReplica,
    OldSnapshot,
    ScriptFlush,
)
from onsale.chaos.faults.network import BadWeather, HangUp
from onsale.chaos.faults.processes import FreezeProcess, KillProcess
from onsale.chaos.faults.stores import DiskFull, FreezeStore, KillStore, RestartLedger
from onsale.chaos.links import Store
from onsale.chaos.proxy import Weather
from onsale.workers.main import WorkerKind

__all__ = ["FAULTS", "SHORT", "Fault", "NotInjected"]

MakeFault = Callable[[], Fault]

_STORES = {"redis": Store.GATE, "postgres": Store.LEDGER}
_SLOW_SECONDS = 0.3


def _of_processes() -> Iterator[tuple[str, MakeFault]]:
    for kind in ("api", *WorkerKind):
        yield f"kill-{kind}", partial(KillProcess, kind)
        yield f"freeze-{kind}", partial(FreezeProcess, kind)


def _of_stores() -> Iterator[tuple[str, MakeFault]]:
    for name, store in _STORES.items():
        yield f"kill-{name}", partial(KillStore, store)
        yield f"freeze-{name}", partial(FreezeStore, store)
    yield "restart-postgres", RestartLedger
    yield "disk-full", DiskFull
    yield "flushall", FlushAll
    yield "script-flush", ScriptFlush
    yield "old-snapshot", OldSnapshot
    yield "lagging-replica", LaggingReplica
    yield "redis-full", GateFull


def _of_the_world() -> Iterator[tuple[str, MakeFault]]:
    cut, slow = Weather(refuses=True), Weather(delay_seconds=_SLOW_SECONDS)
    lost = Weather(holds_requests=True, holds_answers=True)
    for name, store in _STORES.items():
        yield f"cut-{name}", partial(BadWeather, store, cut, drop_first=True)
        yield f"half-open-{name}", partial(BadWeather, store, lost, LONG_SECONDS)
        yield f"slow-{name}", partial(BadWeather, store, slow)
        yield f"reset-{name}", partial(BadWeather, store, Weather(breaks_before_answer=True))
    yield "hang-up-before-commit", partial(HangUp, Weather(holds_requests=True))
    yield "hang-up-before-answer", partial(HangUp, Weather(holds_answers=True))
    yield "clock-ahead", partial(WrongClock, "+1h")
    yield "clock-behind", partial(WrongClock, "-1h")


def _of_crashes() -> Iterator[tuple[str, MakeFault]]:
    for times, again in ((1, ""), (2, "-again")):
        for point, (kind, provoke) in CRASHES.items():
            yield f"crash-{point}{again}", partial(Crash, point, kind, times, provoke)


FAULTS = dict((*_of_processes(), *_of_stores(), *_of_the_world(), *_of_crashes()))

# One of each sort, for when there are minutes and not a quarter of an hour.
SHORT = (
    *("kill-redis", "kill-postgres", "kill-api", "kill-sweeper", "kill-webhooks"),
    *("freeze-api", "flushall", "old-snapshot", "lagging-replica"),
    *("half-open-postgres", "reset-postgres", "half-open-redis", "hang-up-before-answer"),
    *("crash-admitted", "crash-placed", "crash-expired", "crash-fenced", "crash-gate-chunk"),
)

"""Processes die between two steps of the protocol."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

from onsale.chaos.faults.fault import Fault, NotInjected
from onsale.chaos.faults.forgetting import flushall
from onsale.chaos.links import Store
from onsale.chaos.processes import Process
from onsale.chaos.proxy import Weather
from onsale.chaos.stage import LONGEST_PATIENCE_SECONDS, Stage
from onsale.workers.main import WorkerKind

_POLL_SECONDS = 0.05
_CRASHED_SECONDS_MAX = 25.0
_AWAY_SECONDS = 0.8

Provoke = Callable[[Stage], Awaitable[None]]


@dataclass
class Crash(Fault):
    """A process of a kind dies at a failpoint, so many times in a row; a worker has to get there
    itself, so its twin is away. `provoke` brings about what it finds when it starts.
    """

    point: str
    kind: str
    times: int
    provoke: Provoke | None = None
    _away: list[str] = field(default_factory=list, init=False)

    async def inject(self, stage: Stage, dice: Random) -> None:
        twins = stage.of_kind(self.kind)
        name = dice.choice(twins)
        self._away = [name] if self.kind == "api" else twins
        for twin in self._away:
            await stage.do(stage.process(twin).kill)
        for _ in range(self.times):
            await self._crash(stage, name)

    async def _crash(self, stage: Stage, name: str) -> None:
        process = stage.process(name)
        if self.provoke is not None:
            await self.provoke(stage)
        await stage.do(process.start, {"ONSALE_FAILPOINT": self.point})
        try:
            async with asyncio.timeout(_CRASHED_SECONDS_MAX):
                await _until_dead(process)
        except TimeoutError:
            raise NotInjected(f"{name} did not get there") from None

    async def last(self, stage: Stage, dice: Random) -> None:
        """It is started again at once."""

    async def mend(self, stage: Stage) -> None:
        await stage.links.clear()
        for name in self._away:
            await stage.start(name)


async def _strand_orders(stage: Stage) -> None:
    """Let the gate admit orders that the ledger does not take, until they are given up; not every
    buyer comes again.
    """
    await _cut_apis(stage, Store.LEDGER)
    await asyncio.sleep(_AWAY_SECONDS)
    await stage.links.clear()
    await asyncio.sleep(LONGEST_PATIENCE_SECONDS)


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


# Who gets to a failpoint, and what has to be done for it.
CRASHES: dict[str, tuple[str, Provoke | None]] = {
    **dict.fromkeys(("admitted", "before-place", "placed"), ("api", None)),
    **dict.fromkeys(("released", "refunded", "authorized", "confirmed"), ("api", None)),
    "admitted-by-ledger": ("api", _take_gate_away),
    "adopted": (WorkerKind.RECONCILER, _keep_from_gate),
    "expired": (WorkerKind.SWEEPER, None),
    **dict.fromkeys(("before-capture", "captured"), (WorkerKind.OUTBOX, None)),
    **dict.fromkeys(("claimed", "delivered"), (WorkerKind.WEBHOOKS, None)),
    "fenced": (WorkerKind.RECONCILER, _strand_orders),
    **dict.fromkeys(
        ("gate-emptied", "gate-chunk", "gate-opened"), (WorkerKind.RECONCILER, flushall)
    ),
}

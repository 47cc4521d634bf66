"""The servers of the stores die, stand still, and run out of space."""

import asyncio
from dataclasses import dataclass
from random import Random

from onsale.chaos.faults.fault import LONG_SECONDS, Fault
from onsale.chaos.links import Store
from onsale.chaos.processes import freeze_tree, thaw_tree
from onsale.chaos.stage import Stage
from onsale.domain.errors import LedgerUnavailable

_POLL_SECONDS = 0.05


@dataclass
class KillStore(Fault):
    """kill -9 of a store's server."""

    store: Store

    def __post_init__(self) -> None:
        self.gate_alone = self.store is Store.GATE
        self.ledger_crashes = self.store is Store.LEDGER

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(stage.server(self.store).kill)

    async def mend(self, stage: Stage) -> None:
        await stage.start_server(self.store)


@dataclass
class FreezeStore(Fault):
    """SIGSTOP of a store's server and all its processes."""

    store: Store
    lasts_seconds: tuple[float, float] = LONG_SECONDS

    def __post_init__(self) -> None:
        self.gate_alone = self.store is Store.GATE

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(freeze_tree, stage.server(self.store).pid)

    async def mend(self, stage: Stage) -> None:
        await stage.do(thaw_tree, stage.server(self.store).pid)


class RestartLedger(Fault):
    """A restart of Postgres in good order, under load."""

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(stage.postgres.stop)

    async def mend(self, stage: Stage) -> None:
        await stage.start_server(Store.LEDGER)


class DiskFull(Fault):
    """The disk of Postgres is full: its files, its log, everything."""

    lasts_seconds = (1.5, 3.0)
    ledger_crashes = True

    def impossible(self, stage: Stage) -> str | None:
        return stage.disk_fault

    async def inject(self, stage: Stage, dice: Random) -> None:
        await stage.do(stage.disk.fill)

    async def mend(self, stage: Stage) -> None:
        await stage.do(stage.disk.relieve)
        # It may be about to give up, or to recover by itself; dead, it is started again.
        while not await _ledger_answers(stage):
            await stage.start_server(Store.LEDGER)
            await asyncio.sleep(_POLL_SECONDS)


async def _ledger_answers(stage: Stage) -> bool:
    try:
        await stage.service.events.now()
    except LedgerUnavailable:
        return False
    return True

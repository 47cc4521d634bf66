"""Processes of the service die, and stand still."""

from dataclasses import dataclass, field
from random import Random

from onsale.chaos.faults.fault import LONG_SECONDS, Fault
from onsale.chaos.stage import Stage


@dataclass
class KillProcess(Fault):
    """kill -9 of one process of a kind; whoever watches over it starts it again."""

    kind: str
    _name: str = field(default="", init=False)

    async def inject(self, stage: Stage, dice: Random) -> None:
        self._name = dice.choice(stage.of_kind(self.kind))
        await stage.do(stage.process(self._name).kill)

    async def mend(self, stage: Stage) -> None:
        await stage.start(self._name)


@dataclass
class FreezeProcess(Fault):
    """SIGSTOP of one process of a kind, and SIGCONT when it has been given up for dead."""

    kind: str
    lasts_seconds: tuple[float, float] = LONG_SECONDS
    _name: str = field(default="", init=False)

    async def inject(self, stage: Stage, dice: Random) -> None:
        self._name = dice.choice(stage.of_kind(self.kind))
        await stage.do(stage.process(self._name).freeze)

    async def mend(self, stage: Stage) -> None:
        await stage.do(stage.process(self._name).thaw)

"""What a fault is."""

import asyncio
from abc import ABC, abstractmethod
from random import Random

from onsale.chaos.stage import LONGEST_PATIENCE_SECONDS, Stage

SHORT_SECONDS = (0.5, 2.5)
# Who comes back after that has been given up by everybody.
LONG_SECONDS = (LONGEST_PATIENCE_SECONDS + 0.5, LONGEST_PATIENCE_SECONDS + 2.0)


class NotInjected(Exception):
    """The service did not get to the point where the fault is."""


class Fault(ABC):
    """One fault, used once. `gate_alone` and `ledger_crashes` as in `incidents.Incident`."""

    lasts_seconds: tuple[float, float] = SHORT_SECONDS
    gate_alone: bool = False
    ledger_crashes: bool = False

    def impossible(self, stage: Stage) -> str | None:
        """Why it cannot be injected here, if so."""
        return None

    @abstractmethod
    async def inject(self, stage: Stage, dice: Random) -> None:
        """Break it. Raises `NotInjected`."""

    async def last(self, stage: Stage, dice: Random) -> None:
        """Let it be broken for a while."""
        await asyncio.sleep(dice.uniform(*self.lasts_seconds))

    @abstractmethod
    async def mend(self, stage: Stage) -> None:
        """Mend it, however far the breaking went. What was killed runs again when this returns."""

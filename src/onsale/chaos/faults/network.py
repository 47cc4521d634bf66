"""The ways to the stores are bad, and clients go away."""

import asyncio
from dataclasses import dataclass, field
from random import Random

from onsale.chaos.faults.fault import SHORT_SECONDS, Fault
from onsale.chaos.links import Store
from onsale.chaos.proxy import Weather
from onsale.chaos.stage import Stage

# Shorter than the ledger is waited for: the orders are written, and nobody hears of it.
_HELD_UP_SECONDS = 0.5
_HANG_UP_SECONDS = 0.2


@dataclass
class BadWeather(Fault):
    """The ways from the processes to a store are bad: all of them, or those of one API process,
    so that two processes disagree about the store.

    `drop_first` breaks the connections that are open; what is held up arrives late in the end, or
    never, as the dice will have it.
    """

    store: Store
    weather: Weather
    lasts_seconds: tuple[float, float] = SHORT_SECONDS
    drop_first: bool = False
    _drop_last: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.gate_alone = self.store is Store.GATE

    async def inject(self, stage: Stage, dice: Random) -> None:
        self._drop_last = self.weather.holds_requests and dice.random() < 0.5
        names: tuple[str, ...] = (*stage.apis, *stage.workers)
        if dice.random() < 0.3:
            names = (dice.choice(tuple(stage.apis)),)
        for name in names:
            await stage.links.set(name, self.store, self.weather, drop=self.drop_first)

    async def mend(self, stage: Stage) -> None:
        await stage.links.clear(drop=self._drop_last)


@dataclass
class HangUp(Fault):
    """Buyers go away while their orders are on the way to the ledger, or its answer to them."""

    weather: Weather

    async def inject(self, stage: Stage, dice: Random) -> None:
        stage.buyers_hang_up_after_seconds = _HANG_UP_SECONDS
        for _ in range(dice.randint(2, 4)):
            for api in stage.apis:
                await stage.links.set(api, Store.LEDGER, self.weather)
            await asyncio.sleep(_HELD_UP_SECONDS)
            await stage.links.clear()
            await asyncio.sleep(_HANG_UP_SECONDS)

    async def last(self, stage: Stage, dice: Random) -> None:
        """It has."""

    async def mend(self, stage: Stage) -> None:
        stage.buyers_hang_up_after_seconds = None
        await stage.links.clear()

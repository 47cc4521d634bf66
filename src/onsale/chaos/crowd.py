"""Buyers who do everything that buyers do, and an organiser who refunds and changes capacities; by
the seed's dice.

They come in waves: in the lull between two, holds expire and seats come back, so that the next
wave finds whether they are on sale.
"""

import asyncio
import time
from itertools import count
from random import Random
from typing import Final

from onsale.chaos.client import Client
from onsale.chaos.history import Operation, OrderName, Outcome
from onsale.chaos.sales import Sale, Sales
from onsale.chaos.stage import Stage

_WAVE_SECONDS: Final = 6.0
_LULL_SECONDS: Final = 1.8
# Together with their think time these are about 100 requests a second: enough for every race, and
# little enough for two cores that run the stores and ten processes as well.
_BUYERS_AT_ONCE: Final = 24
_THINK_SECONDS: Final = (0.05, 0.4)
_RETRIES_MAX: Final = 12
_RETRY_SECONDS: Final = (0.1, 0.6)
_REFUND_SECONDS: Final = 0.15
_RESIZE_SECONDS: Final = 1.5
_CAPACITY_UNITS: Final = (60, 110)
# Of those who hang up by themselves, within this time: before, amid and after the commit.
_HANG_UP_SECONDS: Final = (0.001, 0.05)
# By then every process has a picture of the sale that is younger than the order.
_PICTURE_IS_NEW_SECONDS: Final = 0.3
# One order at each API process that often, whether or not the ones before were answered.
_PROBE_SECONDS: Final = 0.1

_METHODS: Final = {"ok": 70, "declined": 8, "slow": 8, "timeout": 4, "lost": 10}


class Crowd:
    """Every client of a campaign; `run` until cancelled."""

    def __init__(self, stage: Stage, client: Client, sales: Sales, seed: str) -> None:
        self._stage = stage
        self._client = client
        self._sales = sales
        self._seed = seed
        self._confirmed: list[tuple[OrderName, str]] = []
        self._numbers = count()

    async def run(self) -> None:
        """Buy, probe, refund and resize, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(_BUYERS_AT_ONCE):
                tasks.create_task(self._queue(Random(f"{self._seed} buyers {number}")))
            for api in self._client.apis:
                tasks.create_task(self._probe(api))
            tasks.create_task(self._refund(Random(f"{self._seed} refunds")))
            tasks.create_task(self._resize(Random(f"{self._seed} capacities")))

    async def _queue(self, dice: Random) -> None:
        while True:
            await _wait_for_a_wave()
            await self._visit(dice)
            await asyncio.sleep(dice.uniform(*_THINK_SECONDS))

    async def _probe(self, api: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in count():
                name = OrderName(self._sales.probe.event_id, f"{api}-probe-{number}", "press-1")
                tasks.create_task(self._client.place(api, name, (("ga", 1),)))
                await asyncio.sleep(_PROBE_SECONDS)

    async def _refund(self, dice: Random) -> None:
        while True:
            await asyncio.sleep(_REFUND_SECONDS)
            if self._confirmed:
                at = dice.randrange(len(self._confirmed))
                await self._client.refund(self._api(dice), *self._confirmed.pop(at))

    async def _resize(self, dice: Random) -> None:
        while True:
            await asyncio.sleep(_RESIZE_SECONDS)
            event_id, units = self._sales.free.event_id, dice.randint(*_CAPACITY_UNITS)
            await self._client.resize(self._api(dice), event_id, "ga", units)

    # -- one buyer

    async def _visit(self, dice: Random) -> None:
        sale = self._sales.card if dice.random() < 0.6 else self._sales.free
        buyer_id = f"buyer-{next(self._numbers)}"
        for press in range(dice.choice((1, 1, 1, 2, 3))):
            name = OrderName(sale.event_id, buyer_id, f"press-{press}")
            items = _items(dice, sale)
            method = _method(dice) if sale.payment == "card" and dice.random() < 0.15 else None
            placed = await self._buy(dice, name, items, method)
            if placed is not None:
                await self._afterwards(dice, sale, placed)

    async def _buy(
        self,
        dice: Random,
        name: OrderName,
        items: tuple[tuple[str, int], ...],
        method: str | None,
    ) -> Operation | None:
        """Press until there is a word that stands, or until he has had enough."""
        patience = 0 if dice.random() < 0.25 else _RETRIES_MAX
        for last_try in range(patience + 1):
            answers = await self._press(dice, name, items, method)
            told = next((answer for answer in answers if answer.acknowledged), None)
            if told is not None:
                return told
            if last_try == patience or not any(_may_try_again(answer) for answer in answers):
                return None
            await asyncio.sleep(dice.uniform(*_RETRY_SECONDS))
        return None

    async def _press(
        self,
        dice: Random,
        name: OrderName,
        items: tuple[tuple[str, int], ...],
        method: str | None,
    ) -> list[Operation]:
        """Once, or twice at once; and go away now and then before there is an answer."""
        hangs_up = self._hangs_up_after_seconds(dice)
        presses = (
            self._client.place(
                self._api(dice), name, items, method=method, hangs_up_after_seconds=hangs_up
            )
            for _ in range(2 if dice.random() < 0.1 else 1)
        )
        return await asyncio.gather(*presses)

    async def _afterwards(self, dice: Random, sale: Sale, placed: Operation) -> None:
        name, order_id = placed.name, placed.order_id
        assert order_id is not None
        if dice.random() < 0.15:
            await self._press_again(dice, placed)
        if dice.random() < 0.1:
            await self._press_for_something_else(dice, sale, placed)
        if placed.order_status == "held":
            await asyncio.sleep(dice.uniform(0, 0.3))
            await self._decide(dice, name, order_id)
        elif placed.order_status == "confirmed":
            self._confirmed.append((name, order_id))
        if dice.random() < 0.15:
            await self._client.read(self._api(dice), name, order_id)
        if dice.random() < 0.05:
            await self._client.list(self._api(dice), name)

    async def _decide(self, dice: Random, name: OrderName, order_id: str) -> None:
        """Pay for the hold, give it up, or forget about it."""
        choice = dice.random()
        if choice < 0.5:
            await self._pay(dice, name, order_id)
        elif choice < 0.75:
            await self._release(dice, name, order_id)

    async def _pay(self, dice: Random, name: OrderName, order_id: str) -> None:
        method = _method(dice)
        for _ in range(_RETRIES_MAX):
            paid = await self._client.pay(self._api(dice), name, order_id, method)
            if paid.outcome is Outcome.OK:
                self._confirmed.append((name, order_id))
            if not _may_try_again(paid):
                return
            await asyncio.sleep(dice.uniform(*_RETRY_SECONDS))

    async def _release(self, dice: Random, name: OrderName, order_id: str) -> None:
        for _ in range(_RETRIES_MAX):
            released = await self._client.release(self._api(dice), name, order_id)
            if not _may_try_again(released):
                return
            await asyncio.sleep(dice.uniform(*_RETRY_SECONDS))

    async def _press_again(self, dice: Random, placed: Operation) -> None:
        await self._client.place(self._api(dice), placed.name, placed.items, method=placed.method)

    async def _press_for_something_else(self, dice: Random, sale: Sale, placed: Operation) -> None:
        """The same key with another body, which must be refused."""
        await asyncio.sleep(dice.choice((0.0, _PICTURE_IS_NEW_SECONDS)))
        (tier, quantity), *_ = placed.items
        others = ((tier, quantity % sale.max_per_buyer_units + 1),)
        await self._client.place(self._api(dice), placed.name, others, method=placed.method)

    # -- dice

    def _api(self, dice: Random) -> str:
        return dice.choice(self._client.apis)

    def _hangs_up_after_seconds(self, dice: Random) -> float | None:
        by_fault = self._stage.buyers_hang_up_after_seconds
        if by_fault is not None:
            return by_fault if dice.random() < 0.7 else None
        return dice.uniform(*_HANG_UP_SECONDS) if dice.random() < 0.08 else None


def _items(dice: Random, sale: Sale) -> tuple[tuple[str, int], ...]:
    if dice.random() < 0.15:
        return tuple((tier, 1) for tier in sale.capacities_units)
    tier = dice.choice(list(sale.capacities_units))
    return ((tier, dice.choice((1, 1, 1, 2, 2, 3))),)


def _method(dice: Random) -> str:
    return dice.choices(list(_METHODS), list(_METHODS.values()))[0]


def _may_try_again(answer: Operation) -> bool:
    """Whether the buyer was not told what became of it, or was told to come back."""
    return answer.outcome is Outcome.UNKNOWN or answer.status in (None, 429, 503)


async def _wait_for_a_wave() -> None:
    # By the clock, so that all of them do it together.
    into_the_wave = time.time() % _WAVE_SECONDS
    if into_the_wave < _LULL_SECONDS:
        await asyncio.sleep(_LULL_SECONDS - into_the_wave)

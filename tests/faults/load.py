"""Buyers who keep pressing while something breaks, and who remember every word they were told."""

import asyncio
from collections import Counter
from collections.abc import Sequence, Sized
from itertools import count
from types import TracebackType
from typing import Self

from sqlalchemy import text

from onsale.sales.service import Service
from tests.races.crowd import Answer, Buyer, Press
from tests.support import items

# Of a handful at once, so that a store which is down is not asked thousands of times a second.
_PAUSE_SECONDS = 0.02
# Every fourth buyer does not press again when the service breaks: what they left must be mended.
_GIVES_UP_EVERY = 4


class Load:
    """An async context in which buyers buy one ticket each, `buyers_at_once` of them at a time."""

    def __init__(self, ports: Sequence[int], event_id: str, *, buyers_at_once: int = 16) -> None:
        self.acknowledged: dict[str, str] = {}
        self.broken: list[Answer] = []
        self.refused: Counter[str] = Counter()
        self.answers_lost = 0
        self._ports = ports
        self._event_id = event_id
        self._buyers_at_once = buyers_at_once
        self._numbers = count()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._queue(self._ports[number % len(self._ports)]))
            for number in range(self._buyers_at_once)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def has_sold(self, more: int) -> "Grown":
        """A state to wait for: so many more tickets were acknowledged than were until now."""
        return Grown(self.acknowledged, len(self.acknowledged) + more)

    def is_broken(self, more: int) -> "Grown":
        """A state to wait for: so many more buyers were told to try again."""
        return Grown(self.broken, len(self.broken) + more)

    async def assert_kept(self, service: Service) -> None:
        """Every order that a buyer was told of is in the ledger, and is theirs."""
        async with service.database.transaction("test") as connection:
            rows = await connection.execute(
                text(
                    "SELECT buyer_id, id FROM orders"
                    " WHERE event_id = :event AND status = 'confirmed'"
                ),
                {"event": self._event_id},
            )
            kept = {buyer_id: id_.hex for buyer_id, id_ in rows}
        lost = {b: id_ for b, id_ in self.acknowledged.items() if kept.get(b) != id_}
        assert not lost, f"{len(lost)} acknowledged orders are not in the ledger"

    async def _queue(self, port: int) -> None:
        buyer: Buyer | None = None
        while not self._stopping:
            number = next(self._numbers)
            press = Press(self._event_id, f"buyer-{number}", "press-1", items(1))
            buyer = await self._buy(buyer, port, press, number % _GIVES_UP_EVERY == 0)
        if buyer is not None:
            buyer.leave()

    async def _buy(
        self, buyer: Buyer | None, port: int, press: Press, gives_up: bool
    ) -> Buyer | None:
        """Press until there is a word that stands; the connection as it is then."""
        while True:
            try:
                buyer = buyer or await Buyer.connect(port)
                answer = await buyer.press(press)
            except (OSError, EOFError):
                self.answers_lost += 1
                buyer = None
            else:
                if answer.headers.get("connection") == "close":
                    buyer.leave()
                    buyer = None
                if answer.status == 201:
                    self.acknowledged[press.buyer_id] = answer.body["id"]
                    return buyer
                if answer.status != 503:
                    self.refused[answer.outcome] += 1
                    return buyer
                self.broken.append(answer)
            if gives_up or self._stopping:
                return buyer
            await asyncio.sleep(_PAUSE_SECONDS)


class Grown:
    """A state to wait for; a class so that a time-out can say how far it came."""

    def __init__(self, what: Sized, size_min: int) -> None:
        self._what = what
        self._size_min = size_min

    async def __call__(self) -> bool:
        return len(self._what) >= self._size_min

    def __repr__(self) -> str:
        return f"{self._size_min} (of them there are {len(self._what)})"

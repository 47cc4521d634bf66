"""Looks into both stores all the while, by ways of its own that nothing disturbs."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from onsale.chaos.sales import Sale
from onsale.domain.errors import OnsaleError
from onsale.gate.keys import event_keys
from onsale.ledger.ledger import BuyerUnits, LedgerTierBooks
from onsale.sales.service import Service

# Often enough to see a second go by.
_LOOK_SECONDS = 0.2

# $1 event, $2 ids that the gate holds. Overdue holds that are still in the ledger's way, or at the
# gate though the ledger has ended them.
_LATE = """
SELECT id, extract(epoch FROM expires_at)::float8 AS expired_at_seconds, status = 'held' AS held
FROM orders WHERE event_id = $1 AND expires_at < now()
  AND (status = 'held' OR status = 'expired' AND id = ANY($2::uuid[]))
"""


class Late(NamedTuple):
    """A hold whose seats are not on sale again, and which store has them."""

    order_id: str
    expired_at_seconds: float
    held_by: str


@dataclass(frozen=True, slots=True)
class Look:
    """What the stores said at one moment."""

    at_seconds: float
    books: dict[str, list[LedgerTierBooks]]
    above_limit: dict[str, list[BuyerUnits]]
    late: list[Late]

    def units_left(self, event_id: str, tier_id: str) -> int:
        """The units that were neither held nor sold, by the ledger's word."""
        counted = (tier.counted for tier in self.books[event_id])
        return next(tier.available_units for tier in counted if tier.tier_id == tier_id)


@dataclass(slots=True)
class Watcher:
    """See the module; `looks` are in the order of time."""

    service: Service
    redis: Redis
    sales: Sequence[Sale]
    looks: list[Look] = field(default_factory=list)

    async def run(self) -> None:
        """Look for ever; a store that is away is looked into the next time."""
        while True:
            with suppress(OnsaleError, TimeoutError):
                self.looks.append(await self._look())
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> Look:
        at_seconds = time.time()
        ledger = self.service.ledger
        gate_ids = await self._ids_at_gate()
        return Look(
            at_seconds,
            {sale.event_id: await ledger.books(sale.event_id) for sale in self.sales},
            {
                sale.event_id: await ledger.buyers_above(sale.event_id, sale.max_per_buyer_units)
                for sale in self.sales
                if sale.max_per_buyer_units
            },
            [
                late
                for sale in self.sales
                for late in await self._late(sale.event_id, gate_ids.get(sale.event_id, []))
            ],
        )

    async def _ids_at_gate(self) -> dict[str, list[str]]:
        """The ids of the orders there, by event id; none while the gate does not answer."""
        ids: dict[str, list[str]] = {}
        with suppress(RedisError, OSError, TimeoutError):
            for sale in self.sales:
                there: Any = await self.redis.hkeys(event_keys(sale.event_id).orders)
                ids[sale.event_id] = [id_.hex() for id_ in there]
        return ids

    async def _late(self, event_id: str, gate_ids: list[str]) -> list[Late]:
        async with self.service.database.driver("late") as connection:
            rows = await connection.fetch(_LATE, event_id, gate_ids)
        return [
            Late(id_.hex, expired_at_seconds, "ledger" if held else "gate")
            for id_, expired_at_seconds, held in rows
        ]

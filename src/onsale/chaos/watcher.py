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
    """What the stores said at one moment; `gate_units` is `None` when the gate did not answer."""

    at_seconds: float
    books: dict[str, list[LedgerTierBooks]]
    above_limit: dict[str, list[BuyerUnits]]
    gate_units: dict[tuple[str, str], int] | None
    late: list[Late]

    def units_left(self, event_id: str, tier_id: str) -> int:
        """The units that both stores had left; 0 when one of them did not say."""
        if self.gate_units is None:
            return 0
        counted = (tier.counted for tier in self.books[event_id])
        in_ledger = next(tier.available_units for tier in counted if tier.tier_id == tier_id)
        return min(in_ledger, self.gate_units.get((event_id, tier_id), 0))


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
        gate_units, gate_ids = await self._look_into_gate()
        return Look(
            at_seconds,
            {sale.event_id: await ledger.books(sale.event_id) for sale in self.sales},
            {
                sale.event_id: await ledger.buyers_above(sale.event_id, sale.max_per_buyer_units)
                for sale in self.sales
                if sale.max_per_buyer_units
            },
            gate_units,
            [
                late
                for sale in self.sales
                for late in await self._late(sale.event_id, gate_ids.get(sale.event_id, []))
            ],
        )

    async def _look_into_gate(
        self,
    ) -> tuple[dict[tuple[str, str], int] | None, dict[str, list[str]]]:
        """Units left by (event id, tier id), and the ids of the orders there by event id."""
        units: dict[tuple[str, str], int] = {}
        ids: dict[str, list[str]] = {}
        try:
            for sale in self.sales:
                keys, tiers = event_keys(sale.event_id), list(sale.capacities_units)
                left: Any = await self.redis.hgetall(keys.avail)
                there: Any = await self.redis.hkeys(keys.orders)
                for number, count in left.items():
                    units[sale.event_id, tiers[int(number) - 1]] = int(count)
                ids[sale.event_id] = [id_.hex() for id_ in there]
        except (RedisError, OSError, TimeoutError):
            return None, {}
        return units, ids

    async def _late(self, event_id: str, gate_ids: list[str]) -> list[Late]:
        async with self.service.database.driver("late") as connection:
            rows = await connection.fetch(_LATE, event_id, gate_ids)
        return [
            Late(id_.hex, expired_at_seconds, "ledger" if held else "gate")
            for id_, expired_at_seconds, held in rows
        ]

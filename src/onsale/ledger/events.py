"""The ledger's events and tiers: what organisers write, and which loading of the gate is valid."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, select, true, update

from onsale.domain.errors import CapacityBelowReserved, NotFound
from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.tier import Tier
from onsale.ledger import statements
from onsale.ledger.engine import ConstraintRefused, Database
from onsale.ledger.tables import STOCK_CONSTRAINT, events, tiers

_LOADERS_MAX = 2


@dataclass(frozen=True, slots=True)
class NewTier:
    """A tier to be; see `domain.tier`."""

    id: str
    name: str
    price_minor_units: int
    capacity_units: int


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be; see `domain.event`."""

    name: str
    venue: str | None
    starts_at: datetime
    sale_opens_at: datetime
    sale_closes_at: datetime
    hold_seconds: int
    max_per_buyer_units: int
    payment: PaymentKind
    currency: str
    tiers: tuple[NewTier, ...]


class Events:
    """Events in Postgres. Every method raises `LedgerUnavailable` when Postgres does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # A loader keeps one connection and needs others: the pool is not for loaders alone.
        self._loaders = asyncio.Semaphore(_LOADERS_MAX)

    async def create(self, new: NewEvent) -> Event:
        """Write an event down with its tiers, numbered in their order."""
        async with self._database.transaction("create_event") as connection:
            row = (
                await connection.execute(
                    insert(events)
                    .values(
                        name=new.name,
                        venue=new.venue,
                        starts_at=new.starts_at,
                        sale_opens_at=new.sale_opens_at,
                        sale_closes_at=new.sale_closes_at,
                        hold_seconds=new.hold_seconds,
                        max_per_buyer_units=new.max_per_buyer_units,
                        payment=new.payment,
                        currency=new.currency,
                    )
                    .returning(events)
                )
            ).one()
            tier_rows = [
                {
                    "event_id": row.id,
                    "number": number,
                    "id": tier.id,
                    "name": tier.name,
                    "price_minor_units": tier.price_minor_units,
                    "capacity": tier.capacity_units,
                }
                for number, tier in enumerate(new.tiers, start=1)
            ]
            inserted = await connection.execute(insert(tiers).returning(tiers), tier_rows)
            return _event_from(row, sorted(inserted.all(), key=lambda tier: tier.number))

    async def get(self, event_id: str) -> Event | None:
        """The event, or `None`."""
        found = await self._read(events.c.id == event_id, size=1)
        return found[0] if found else None

    async def several(self, event_ids: Sequence[str]) -> list[Event]:
        """Those of the events that there are."""
        return await self._read(events.c.id.in_(event_ids), size=None)

    async def with_unheard(self, event_ids: Sequence[str]) -> list[str]:
        """Those of the events of which the gate may not know every order: the ledger has admitted
        some alone.
        """
        # Each process asks many times a second: without the cost of making the statement.
        async with self._database.driver("with_unheard") as connection:
            found = await connection.fetch(statements.WITH_UNHEARD, event_ids)
        return [event_id.hex for (event_id,) in found]

    async def page(self, after: str | None, size: int) -> list[Event]:
        """Events, newest first, `size` after the event with id `after`."""
        # Ids begin with the time of their making, so their order is the order of the events.
        return await self._read(events.c.id < after if after else true(), size)

    async def with_gate(self) -> list[Event]:
        """Events that have a gate, or should have one: all but the retired."""
        return await self._read(events.c.gate_retired.is_(False), size=None)

    async def set_switch(self, event_id: str, switch: SaleSwitch) -> Event:
        """Open, pause or close the sale. A closed sale stays closed. Raises `NotFound`."""
        change = update(events).where(events.c.id == event_id)
        if switch is not SaleSwitch.CLOSED:
            change = change.where(events.c.switch != SaleSwitch.CLOSED)
        async with self._database.transaction("set_switch") as connection:
            await connection.execute(change.values(switch=switch, version=events.c.version + 1))
        return await self._require(event_id)

    async def set_capacity(self, event_id: str, tier_id: str, capacity_units: int) -> Event:
        """Give a tier another capacity. Raises `NotFound`, `CapacityBelowReserved`."""
        change = (
            update(tiers)
            .where(tiers.c.event_id == event_id, tiers.c.id == tier_id)
            .values(capacity=capacity_units)
            .returning(tiers.c.number)
        )
        count_up = (
            update(events).where(events.c.id == event_id).values(version=events.c.version + 1)
        )
        try:
            async with self._database.transaction("set_capacity") as connection:
                if (await connection.execute(change)).first() is None:
                    raise NotFound
                await connection.execute(count_up)
        except ConstraintRefused as refused:
            if refused.constraint != STOCK_CONSTRAINT:
                raise
            raise CapacityBelowReserved from refused
        return await self._require(event_id)

    @asynccontextmanager
    async def gate_loader(self, event_id: str, *, wait: bool) -> AsyncIterator[bool]:
        """The right to load the event's gate, for as long as the block lasts: whether it was had.

        One at a time, or two loaders would begin anew in turns for ever. The right goes with its
        connection, so a loader that dies does not keep it.
        """
        take = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
        # Half of the id will do for a name: should two events share it, they wait for each other.
        name = int(event_id[-16:], 16) - 2**63
        async with self._loaders, self._database.driver("gate_loader") as connection:
            try:
                taken = await connection.fetchval(f"SELECT {take}($1)", name)
                yield wait or bool(taken)
            finally:
                # Whatever was had, even when nobody waited for the answer: the lock is the
                # connection's, and the connection goes back to the pool.
                await connection.fetchval("SELECT pg_advisory_unlock_all()")

    async def next_gate_generation(self, event_id: str) -> int:
        """Count up how often the event's gate was loaded; from now on only this loading counts."""
        count_up = (
            update(events)
            .where(events.c.id == event_id)
            .values(gate_generation=events.c.gate_generation + 1, gate_epoch=None)
            .returning(events.c.gate_generation)
        )
        async with self._database.transaction("next_gate_generation") as connection:
            return int((await connection.execute(count_up)).scalar_one())

    async def authorise_gate(self, event_id: str, generation: int, epoch: str) -> bool:
        """Declare a loading valid; false when a later one has begun."""
        change = (
            update(events)
            .where(events.c.id == event_id, events.c.gate_generation == generation)
            .values(gate_epoch=epoch)
            .returning(events.c.id)
        )
        async with self._database.transaction("authorise_gate") as connection:
            return (await connection.execute(change)).first() is not None

    async def retire_gate(self, event_id: str) -> None:
        """Declare that the event needs no gate any more."""
        change = (
            update(events).where(events.c.id == event_id).values(gate_retired=True, gate_epoch=None)
        )
        async with self._database.transaction("retire_gate") as connection:
            await connection.execute(change)

    async def now(self) -> datetime:
        """The ledger's clock."""
        async with self._database.transaction("now") as connection:
            moment: datetime = (await connection.execute(select(func.now()))).scalar_one()
            return moment

    async def _require(self, event_id: str) -> Event:
        event = await self.get(event_id)
        if event is None:
            raise NotFound
        return event

    async def _read(self, condition: Any, size: int | None) -> list[Event]:
        wanted = select(events).where(condition).order_by(events.c.id.desc()).limit(size)
        async with self._database.transaction("read_events") as connection:
            rows = (await connection.execute(wanted)).all()
            tier_rows = (
                await connection.execute(
                    select(tiers)
                    .where(tiers.c.event_id.in_([row.id for row in rows]))
                    .order_by(tiers.c.event_id, tiers.c.number)
                )
            ).all()
        tiers_of: dict[str, list[Row[Any]]] = defaultdict(list)
        for tier in tier_rows:
            tiers_of[tier.event_id].append(tier)
        return [_event_from(row, tiers_of[row.id]) for row in rows]


def _event_from(row: Row[Any], tier_rows: Sequence[Row[Any]]) -> Event:
    return Event(
        id=UUID(row.id).hex,
        name=row.name,
        venue=row.venue,
        starts_at=row.starts_at,
        sale_opens_at=row.sale_opens_at,
        sale_closes_at=row.sale_closes_at,
        hold_seconds=row.hold_seconds,
        max_per_buyer_units=row.max_per_buyer_units,
        payment=row.payment,
        currency=row.currency,
        switch=row.switch,
        created_at=row.created_at,
        version=row.version,
        gate_epoch=row.gate_epoch,
        gate_retired=row.gate_retired,
        tiers=tuple(
            Tier(
                id=tier.id,
                number=tier.number,
                name=tier.name,
                price_minor_units=tier.price_minor_units,
                capacity_units=tier.capacity,
            )
            for tier in tier_rows
        ),
    )

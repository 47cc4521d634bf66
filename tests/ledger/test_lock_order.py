"""Statements of several processes lock in one order, so that none can wait in a circle.

A circle ends after Postgres' `deadlock_timeout` with an error for one of those in it, which is
`LedgerUnavailable` here. Planted: statements that lock in a random order are caught at it.
"""

import asyncio
import random
from collections.abc import Sequence

import pytest

from onsale.domain.errors import LedgerUnavailable
from onsale.domain.event import Event
from onsale.domain.order import OrderRequest, OrderStatus
from onsale.ledger import statements
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger
from tests.ledger.books import MakeLedgers, assert_balanced, key_of, new_event, request

PROCESSES = 4
TIERS = 10


def shuffled(event: Event, chance: random.Random, size: int) -> list[OrderRequest]:
    """Orders of some tiers each, their items in any order."""
    return [
        request(event, *((number, 1) for number in chance.sample(range(1, TIERS + 1), k=3)))
        for _ in range(size)
    ]


async def place_at_once(
    ledgers: Sequence[Ledger], batches: Sequence[Sequence[Sequence[OrderRequest]]]
) -> None:
    """Each process places its batches, one after the other, beside the other processes."""

    async def place(ledger: Ledger, mine: Sequence[Sequence[OrderRequest]]) -> None:
        for batch in mine:
            await ledger.place(batch)

    await asyncio.gather(*map(place, ledgers, batches))


async def test_batches_lock_the_tiers_in_one_order(
    make_ledgers: MakeLedgers, events: Events
) -> None:
    ledgers, chance = await make_ledgers(PROCESSES), random.Random(1)
    event = await new_event(events, *[10_000] * TIERS)
    await place_at_once(ledgers, [[shuffled(event, chance, 5) for _ in range(25)] for _ in ledgers])
    assert await assert_balanced(ledgers[0], event) == (PROCESSES * 25 * 5 * 3, 0)


async def test_batches_of_the_same_orders_wait_in_one_order(
    make_ledgers: MakeLedgers, events: Events
) -> None:
    """Twins at two processes: each id is somebody's, and nobody's twice."""
    ledgers, chance = await make_ledgers(PROCESSES), random.Random(2)
    event = await new_event(events, *[10_000] * TIERS)
    for _ in range(25):
        orders = shuffled(event, chance, 20)
        await place_at_once(ledgers, [[chance.sample(orders, k=len(orders))] for _ in ledgers])
    assert await assert_balanced(ledgers[0], event) == (25 * 20 * 3, 0)


async def test_every_step_goes_beside_every_other(
    make_ledgers: MakeLedgers, events: Events
) -> None:
    """Placing, sweeping, releasing, refunding and fencing, all on the same tiers at once."""
    ledgers, chance = await make_ledgers(PROCESSES), random.Random(3)
    event = await new_event(events, *[10_000] * TIERS)
    rounds = 15

    def batch(status: OrderStatus, hold_seconds: int = 600) -> list[OrderRequest]:
        return [
            request(
                event,
                *((number, 1) for number in chance.sample(range(1, TIERS + 1), k=3)),
                status=status,
                hold_seconds=hold_seconds,
            )
            for _ in range(5)
        ]

    async def place(ledger: Ledger) -> None:
        for _ in range(rounds):
            await ledger.place(batch(OrderStatus.HELD, hold_seconds=-1))

    async def sweep(ledger: Ledger) -> None:
        for _ in range(rounds):
            await ledger.expire(20)

    async def release(ledger: Ledger) -> None:
        for _ in range(rounds):
            held = batch(OrderStatus.HELD)
            await ledger.place(held)
            for order in held:
                assert await ledger.release(key_of(order), order.buyer_id)

    async def refund(ledger: Ledger) -> None:
        for _ in range(rounds):
            confirmed = batch(OrderStatus.CONFIRMED)
            await ledger.place(confirmed)
            for order in confirmed:
                assert await ledger.refund(key_of(order))

    async def fence(ledger: Ledger) -> None:
        for _ in range(rounds):
            await ledger.fence([key_of(order) for order in batch(OrderStatus.HELD)])

    doings = (place, sweep, release, refund, fence, sweep)
    await asyncio.gather(*(do(ledgers[at % PROCESSES]) for at, do in enumerate(doings)))
    while await ledgers[0].expire(100):
        pass
    assert await assert_balanced(ledgers[0], event) == (0, 0)


async def place_until_caught(ledgers: Sequence[Ledger], event: Event, *, twins: bool) -> None:
    """Batches that have tiers in common, or as twins all of their orders."""
    chance = random.Random(4)
    # Whether two batches meet is chance; that none do in so many is not.
    for _ in range(2_000):
        orders = shuffled(event, chance, 40)
        batches = [
            chance.sample(orders, k=len(orders)) if twins else shuffled(event, chance, 10)
            for _ in ledgers
        ]
        await place_at_once(ledgers, [[batch] for batch in batches])


@pytest.mark.parametrize(
    ("locking", "at_random", "twins"),
    [
        ("ORDER BY tiers.event_id, number FOR", "ORDER BY random() FOR", False),
        ("FROM asked ORDER BY event_id, id", "FROM asked ORDER BY random()", True),
    ],
    ids=["tiers", "orders"],
)
async def test_locking_in_any_order_is_caught(
    make_ledgers: MakeLedgers,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
    locking: str,
    at_random: str,
    twins: bool,
) -> None:
    assert statements.PLACE.count(locking) == 1, "the statement has changed: plant the fault anew"
    monkeypatch.setattr(statements, "PLACE", statements.PLACE.replace(locking, at_random))
    ledgers = await make_ledgers(PROCESSES)
    event = await new_event(events, *[100_000] * TIERS)
    with pytest.raises(LedgerUnavailable):
        await place_until_caught(ledgers, event, twins=twins)

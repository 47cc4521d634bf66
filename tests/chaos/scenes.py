"""Short scenes that a sound service comes through, each with the point where a bug would show."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import text

from onsale.chaos.history import Operation, OrderName
from onsale.chaos.links import Store
from onsale.chaos.observation import Observation
from onsale.chaos.proxy import Weather
from onsale.chaos.sales import Sale
from onsale.gate.keys import event_keys
from onsale.ledger.tables import STOCK_CONSTRAINT
from tests.support import wait_until

# `balcony` is the second tier.
_BALCONY = "2"
_GA = "1"

# Several passes of an outbox.
_SETTLED_SECONDS_MAX = 3.0


async def late_arrival(seen: Observation) -> None:
    """Orders are held up on their way to the ledger until the gate has sold their seats to others;
    then they arrive. The ledger's own check would refuse them, so it is away.
    """
    sale, capacity = seen.sales.free, seen.sales.free.capacities_units["balcony"]
    async with _without_stock_constraint(seen):
        await _warm_up(seen, "api-1")
        await seen.stage.links.set("api-1", Store.LEDGER, Weather(holds_requests=True))
        held_up = asyncio.create_task(_press_all(seen, "api-1", sale, "balcony", "late", 20))
        await _until_left(seen, sale, _BALCONY, at_most=capacity - 20)
        await _until_left(seen, sale, _BALCONY, at_least=capacity)
        await _press_all(seen, "api-2", sale, "balcony", "other", capacity)
        await seen.stage.links.clear()
        await held_up
        await _press_all(seen, "api-1", seen.sales.probe, "ga", "after", 1)


async def given_back_again(seen: Observation) -> None:
    """Holds are released, and looked at again by the reconcilers."""
    for number in range(3):
        name = OrderName(seen.sales.card.event_id, f"buyer-{number}", "press-1")
        held = await seen.client.place("api-1", name, (("ga", 2),))
        assert held.order_id is not None
        await seen.client.release("api-2", name, held.order_id)


async def left_to_expire(seen: Observation) -> None:
    """Nobody pays, until all holds have expired."""
    await _press_all(seen, "api-1", seen.sales.card, "ga", "forgetful", 5)


async def one_does_not_fit(seen: Observation) -> None:
    """The gate has forgotten two orders, and admits others in their place: one batch of the ledger
    holds these and some that want what there is plenty of.
    """
    sale, stage = seen.sales.free, seen.stage
    await _kill_reconcilers(seen)
    sold = [await _press(seen, "api-1", sale, "balcony", f"first-{n}", 3) for n in range(10)]
    event = await stage.service.events.get(sale.event_id)
    assert event is not None
    assert event.gate_epoch is not None
    forgotten = [bytes.fromhex(str(order.order_id)) for order in sold[:2]]
    await stage.service.gate.give_back(sale.event_id, event.gate_epoch, forgotten)
    await _until_looked(seen, 10)

    await stage.links.set("api-1", Store.LEDGER, Weather(holds_requests=True))
    async with asyncio.TaskGroup() as tasks:
        # Two batches that are on their way, so that the others wait for one another.
        for number in range(2):
            tasks.create_task(_press(seen, "api-1", seen.sales.probe, "ga", f"filler-{number}"))
            await asyncio.sleep(0.1)
        tasks.create_task(_press_all(seen, "api-1", sale, "ga", "fits", 6))
        tasks.create_task(_press_all(seen, "api-1", sale, "balcony", "does-not", 2))
        await _until_left(seen, sale, _GA, at_most=sale.capacities_units["ga"] - 6)
        await _until_left(seen, sale, _BALCONY, at_most=4)
        await stage.links.clear()
    for name in ("reconciler-1", "reconciler-2"):
        await stage.start(name)


async def paid_one_after_another(seen: Observation) -> None:
    """More payments than could come in the order of their ids by accident, each when the outboxes
    have settled the one before; or until they have not, of which it is for the rules to speak.
    """

    async def settled() -> bool:
        return not await seen.stage.service.ledger.count_payments_due(0)

    with suppress(TimeoutError):
        for number in range(16):
            name = OrderName(seen.sales.card.event_id, f"buyer-{number}", "press-1")
            held = await seen.client.place("api-1", name, (("ga", 1),))
            assert held.order_id is not None
            await seen.client.pay("api-2", name, held.order_id, "ok")
            await wait_until(settled, timeout_s=_SETTLED_SECONDS_MAX)


async def one_hangs_up(seen: Observation) -> None:
    """Many are in one batch, which the ledger has written, and one of them goes away: that is
    noticed half a second later.
    """
    sale = seen.sales.free
    await _warm_up(seen, "api-1")
    await seen.stage.links.set("api-1", Store.LEDGER, Weather(holds_answers=True))
    gone = OrderName(sale.event_id, "gone", "press-1")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_press_all(seen, "api-1", sale, "ga", "patient", 10))
        tasks.create_task(
            seen.client.place("api-1", gone, (("ga", 1),), hangs_up_after_seconds=0.15)
        )
        await asyncio.sleep(0.8)
        await seen.stage.links.clear()


async def emptied(seen: Observation) -> None:
    """FLUSHALL, in the midst of buyers."""
    await _press_all(seen, "api-1", seen.sales.free, "ga", "before", 5)
    await seen.stage.redis.flushall()
    await _press_all(seen, "api-2", seen.sales.free, "ga", "after", 5)


async def pressed_twice(seen: Observation) -> None:
    """The same key at both API processes, one after the other."""
    name = OrderName(seen.sales.free.event_id, "buyer-1", "press-1")
    for api in seen.stage.apis:
        await seen.client.place(api, name, (("ga", 1),))


async def more_than_there_is(seen: Observation) -> None:
    """Twice as many as there are seats, and no last line of defence."""
    sale = seen.sales.free
    async with _without_stock_constraint(seen):
        buyers = 2 * sale.capacities_units["balcony"]
        await _press_all(seen, "api-1", sale, "balcony", "buyer", buyers)


async def refunded(seen: Observation) -> None:
    """A refund while there is no reconciler that would mend what it forgot."""
    await _kill_reconcilers(seen)
    sale = seen.sales.free
    bought = await _press(seen, "api-1", sale, "ga", "buyer")
    assert bought.order_id is not None
    await seen.client.refund("api-2", bought.name, bought.order_id)


# -- what scenes are made of


async def _press(
    seen: Observation, api: str, sale: Sale, tier: str, buyer_id: str, quantity: int = 1
) -> Operation:
    name = OrderName(sale.event_id, buyer_id, "press-1")
    return await seen.client.place(api, name, ((tier, quantity),))


async def _press_all(
    seen: Observation, api: str, sale: Sale, tier: str, buyers: str, number: int
) -> None:
    presses: Iterable[Any] = (
        _press(seen, api, sale, tier, f"{buyers}-{each}") for each in range(number)
    )
    await asyncio.gather(*presses)


async def _warm_up(seen: Observation, api: str) -> None:
    """Let every connection to the ledger prepare its statements: from now on an order is one piece
    on the way there, and one on the way back.
    """
    for wave in range(8):
        await _press_all(seen, api, seen.sales.probe, "ga", f"early-{api}-{wave}", 10)


async def _until_left(
    seen: Observation, sale: Sale, tier: str, *, at_least: int = 0, at_most: int = 1_000_000
) -> None:
    """Wait until the gate has so many units left."""

    async def is_so() -> bool:
        left: Any = await seen.stage.redis.hget(event_keys(sale.event_id).avail, tier)
        return at_least <= int(left) <= at_most

    await wait_until(is_so)


async def _until_looked(seen: Observation, times: int) -> None:
    until = len(seen.watcher.looks) + times

    async def enough() -> bool:
        return len(seen.watcher.looks) >= until

    await wait_until(enough)


async def _kill_reconcilers(seen: Observation) -> None:
    for name in ("reconciler-1", "reconciler-2"):
        await seen.stage.do(seen.stage.process(name).kill)


@asynccontextmanager
async def _without_stock_constraint(seen: Observation) -> AsyncIterator[None]:
    await _execute(seen, f"ALTER TABLE tiers DROP CONSTRAINT {STOCK_CONSTRAINT}")
    try:
        yield
    finally:
        # What was sold too much stays; whatever comes is refused again.
        await _execute(
            seen,
            f"ALTER TABLE tiers ADD CONSTRAINT {STOCK_CONSTRAINT}"
            " CHECK (0 <= sold AND sold <= reserved AND reserved <= capacity) NOT VALID",
        )


async def _execute(seen: Observation, statement: str) -> None:
    async with seen.stage.service.database.transaction("test") as connection:
        await connection.execute(text(statement))

"""API processes that are killed with -9, in the middle of a sale and at the worst moments of it."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from onsale.domain.event import Event
from onsale.sales.service import Service
from tests.faults.conftest import reconcile
from tests.faults.load import Load
from tests.races.api import Api
from tests.races.books import assert_balanced, audit_at_quiet
from tests.races.crowd import Buyer, Press
from tests.support import MakeEvent, items, live_orders, wait_until

TICKETS = 100_000


async def test_killed_in_the_middle_of_a_sale(
    service: Service, make_event: MakeEvent, api: Api
) -> None:
    """Each of the processes is killed in turn; another takes its place and the sale goes on."""
    event = await make_event(TICKETS)
    async with Load([api.port], event.id, buyers_at_once=40) as load:
        for _ in range(2):
            await wait_until(load.has_sold(200))
            api.serving()[0].send_signal(signal.SIGKILL)
            # The one that is left may be the one that was killed before, and is starting.
            await wait_until(load.has_sold(200))
            await wait_until(api.is_whole)

    assert not load.broken, "who is not answered finds the connection closed, never a wrong word"
    assert not load.refused
    assert load.answers_lost > 0, "nobody noticed, so nothing was tested"
    await load.assert_kept(service)
    await reconcile(service, event.id)
    (tier,) = await assert_balanced(service, event.id)
    assert len(load.acknowledged) <= tier.sold_units == await live_orders(service, event.id)


@asynccontextmanager
async def tiers_locked(service: Service, event: Event) -> AsyncIterator[None]:
    """Whoever writes an order of the event down waits, as at a ledger that has become slow."""
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text("SELECT FROM tiers WHERE event_id = :event FOR UPDATE"), {"event": event.id}
        )
        yield


async def admitted_at_the_gate(service: Service, event: Event) -> int:
    """How many orders the gate holds."""
    assert event.gate_epoch is not None
    return (await service.gate.audit(event.id, event.gate_epoch)).live_orders


async def _end_orphaned_statements(service: Service) -> None:
    """What the network would do in time: Postgres hears that its clients are gone."""
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE wait_event_type = 'Lock'"
            )
        )


async def test_killed_between_gate_and_ledger(
    service: Service, other: Service, make_event: MakeEvent, api: Api
) -> None:
    """Twenty orders have taken stock and are not written down when their processes die.

    That they are between the stores is seen before the reconciler mends it.
    """
    event = await make_event(TICKETS)
    presses = [Press(event.id, f"buyer-{n}", "press-1", items(1)) for n in range(20)]
    buyers = await asyncio.gather(*(Buyer.connect(api.port) for _ in presses))
    async with tiers_locked(service, event):
        for buyer, press in zip(buyers, presses, strict=True):
            buyer.send(press)

        async def all_admitted() -> bool:
            return await admitted_at_the_gate(service, event) == len(presses)

        await wait_until(all_admitted)
        for process in api.serving():
            process.send_signal(signal.SIGKILL)
        await _end_orphaned_statements(other)
    gone = await asyncio.gather(*(buyer.answer() for buyer in buyers), return_exceptions=True)
    assert all(isinstance(one, OSError | EOFError) for one in gone)
    assert await live_orders(service, event.id) == 0
    found = await audit_at_quiet(service, event.id)
    assert [one.kind for one in found.differences] == ["gate_only"] * len(presses)

    await reconcile(service, event.id)
    (tier,) = await assert_balanced(service, event.id)
    assert tier.available_units == TICKETS
    # The same key buys after all: under another id, for the first one is spent.
    await wait_until(api.is_whole)
    buyer = await Buyer.connect(api.port)
    answers = [await buyer.press(press) for press in presses for _ in range(2)]
    buyer.leave()
    assert {answer.status for answer in answers} == {201}
    assert await live_orders(service, event.id) == len(presses)
    await assert_balanced(service, event.id)


async def test_a_client_that_goes_away_between_gate_and_commit(
    service: Service, make_event: MakeEvent, api: Api
) -> None:
    """Its order is committed all the same, and is there when it comes back."""
    event = await make_event(TICKETS)
    press = Press(event.id, "buyer-1", "press-1", items(2))
    leaving = await Buyer.connect(api.port)
    async with tiers_locked(service, event):
        leaving.send(press)

        async def admitted() -> bool:
            return await admitted_at_the_gate(service, event) == 1

        await wait_until(admitted)
        leaving.leave()
        assert await live_orders(service, event.id) == 0

    async def committed() -> bool:
        return await live_orders(service, event.id) == 1

    await wait_until(committed)
    back = await Buyer.connect(api.port)
    answer = await back.press(press)
    back.leave()
    assert (answer.status, answer.replayed) == (201, True)
    (tier,) = await assert_balanced(service, event.id)
    assert tier.sold_units == 2

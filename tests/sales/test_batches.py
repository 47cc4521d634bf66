"""A batch is never failed whole, and batches of several processes do not stand in each other's way.

What the gate admits and the ledger refuses is planted: the gate is told of seats that the ledger
does not have, or an order is what the ledger's constraints forbid.

Seen red with a batch that is failed whole, halved in the wrong order or not given back at the gate,
and with tiers that are locked in a random order.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from onsale.domain.errors import LedgerUnavailable, SoldOut
from onsale.domain.event import Event
from onsale.gate.gate import Gate
from onsale.sales.baskets import Asked
from onsale.sales.loading import load_gate
from onsale.sales.placing import Placed
from onsale.sales.sale import Sale
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.sales.meter import Meter
from tests.support import MakeEvent, count_rows, live_orders, wait_until

# A batch that nobody answers is waited for: say so soon.
pytestmark = pytest.mark.timeout(60)

ONE = Asked((("t1", 1),), None)


async def place_together(
    service: Service, event: Event, asked: Sequence[tuple[str, Asked]]
) -> list[Placed | BaseException]:
    """Orders of these buyers that arrive in one turn of the loop, and so in one batch."""
    placing = (service.placing.place(event.id, buyer, "key", body) for buyer, body in asked)
    return await asyncio.gather(*placing, return_exceptions=True)


async def gate_believes(gate: Gate, event: Event, capacity_units: int) -> None:
    """The gate has this capacity for every tier, whatever the ledger has."""
    assert event.gate_epoch is not None
    tiers = tuple(replace(tier, capacity_units=capacity_units) for tier in event.tiers)
    await gate.configure(replace(event, tiers=tiers), event.gate_epoch)


async def gate_has_left(service: Service, event: Event, tier_number: int = 1) -> int:
    assert event.gate_epoch is not None
    seen = await service.gate.availability(event.id, event.gate_epoch)
    return seen.available_units[tier_number]


@pytest.mark.parametrize("capacity_units", [0, 1, 5, 19])
async def test_only_the_orders_that_do_not_fit_are_refused(
    service: Service, make_event: MakeEvent, meter: Meter, capacity_units: int
) -> None:
    """And those that came first fit: the ledger decides the batch again, in its order."""
    event = await make_event(capacity_units)
    await gate_believes(service.gate, event, 20)
    answers = await place_together(service, event, [(f"b-{at}", ONE) for at in range(20)])
    assert [isinstance(answer, Placed) for answer in answers] == (
        [True] * capacity_units + [False] * (20 - capacity_units)
    )
    assert all(isinstance(answer, SoldOut) for answer in answers[capacity_units:])
    assert meter.splits == 0
    assert await live_orders(service, event.id) == capacity_units
    assert await gate_has_left(service, event) == 20 - capacity_units, "given back at the gate"


FORBIDDEN = {
    "a quantity that a constraint forbids": ("buyer", Asked((("t1", 101),), None)),
    "a text that Postgres cannot hold": ("buyer\x00", ONE),
}


@pytest.mark.parametrize("fault", FORBIDDEN)
@pytest.mark.parametrize("place", [0, 7, 15])
async def test_only_the_order_at_fault_fails(
    service: Service, make_event: MakeEvent, meter: Meter, fault: str, place: int
) -> None:
    event = await make_event(1_000)
    asked = [(f"b-{at}", ONE) for at in range(16)]
    asked[place] = FORBIDDEN[fault]
    answers = await place_together(service, event, asked)
    failed = [at for at, answer in enumerate(answers) if not isinstance(answer, Placed)]
    assert failed == [place]
    assert not isinstance(answers[place], LedgerUnavailable), "asking again would not help"
    # Sixteen are halved four times until one is alone.
    assert meter.splits == 4
    assert await live_orders(service, event.id) == 15
    assert await gate_has_left(service, event) == 1_000 - 15


async def test_a_batch_without_fault_is_not_split(
    service: Service, make_event: MakeEvent, meter: Meter
) -> None:
    event = await make_event(1_000)
    before = meter.admissions
    answers = await place_together(service, event, [(f"b-{at}", ONE) for at in range(200)])
    assert all(isinstance(answer, Placed) for answer in answers)
    assert meter.splits == 0
    assert meter.admissions == before + 1, "they shared one call of the gate"


async def test_a_client_that_goes_away_has_its_order_all_the_same(
    service: Service, make_event: MakeEvent
) -> None:
    """And whoever shares its batch has theirs."""
    event = await make_event(10)
    gone, stays = (
        asyncio.create_task(service.placing.place(event.id, buyer, "key", ONE))
        for buyer in ("gone", "stays")
    )

    async def both_wait() -> bool:
        return bool(service.placing._gate_stages)

    await wait_until(both_wait, poll_s=0)
    gone.cancel()
    assert not (await stays).replayed
    await service.placing.drain()
    assert await live_orders(service, event.id) == 2
    assert (await service.placing.place(event.id, "gone", "key", ONE)).replayed


async def test_draining_waits_for_what_an_aside_led_to(
    service: Service, neighbour: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order that met a gate loaded anew is refused by that one, and then it is read who was
    admitted. Seen red with only those waited for that there are at first.
    """
    event = await make_event(1)
    await neighbour.catalog.require(event.id)
    await service.placing.place(event.id, "winner", "key", ONE)
    await load_gate(event, service.gate, service.ledger, service.events)
    drained, informed, goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    reload, read = neighbour.catalog.reload, neighbour.gate.seen

    async def reload_late(event_id: str) -> Sale:
        await drained.wait()
        return await reload(event_id)

    async def read_late(event_id: str, epoch: str, known_orders: int) -> tuple[int, ...]:
        informed.set()
        await goes_on.wait()
        return await read(event_id, epoch, known_orders)

    monkeypatch.setattr(neighbour.catalog, "reload", reload_late)
    monkeypatch.setattr(neighbour.gate, "seen", read_late)
    loser = asyncio.create_task(neighbour.placing.place(event.id, "loser", "key", ONE))

    async def is_aside() -> bool:
        return bool(neighbour.placing._asides)

    await wait_until(is_aside, poll_s=0)
    draining = asyncio.create_task(neighbour.placing.drain())
    await asyncio.sleep(0)
    drained.set()
    await informed.wait()
    for _ in range(10):  # turns of the loop, in which it could end
        await asyncio.sleep(0)
    assert not draining.done()
    goes_on.set()
    await draining
    with pytest.raises(SoldOut):
        await loser


async def test_batches_of_several_processes_do_not_deadlock(
    settings: Settings, make_event: MakeEvent, service: Service
) -> None:
    """Each process meets the tiers in an order of its own; the ledger locks them in one."""
    tiers, orders_each = 12, 150
    event = await make_event(*[10_000] * tiers)
    small = settings.model_copy(update={"ledger_batch_size_max": 5})
    processes = [Service.of(small) for _ in range(4)]
    chance = random.Random(4)

    def cart() -> Asked:
        some = chance.sample(range(1, tiers + 1), k=4)
        return Asked(tuple((f"t{number}", 1) for number in some), None)

    answers = await asyncio.gather(
        *(
            place_together(
                process, event, [(f"b-{number}-{at}", cart()) for at in range(orders_each)]
            )
            for number, process in enumerate(processes)
        )
    )
    await asyncio.gather(*(process.close() for process in processes))
    assert all(isinstance(answer, Placed) for answered in answers for answer in answered)
    reserved = await count_rows(
        service, "SELECT sum(reserved) FROM tiers WHERE event_id = :event", event=event.id
    )
    assert reserved == 4 * orders_each * 4

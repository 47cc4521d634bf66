"""What a process knows of the sales, and how seldom it has to ask.

Seen red with each of its savings taken out: the shared reading, its shield, the memory of unknown
ids and its bound, the young picture, the idle sales left alone.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from onsale.domain.errors import GateLost, GateUnavailable, NotFound, SoldOut
from onsale.domain.event import Event
from onsale.domain.ids import order_id
from onsale.domain.inventory import Outcome
from onsale.domain.order import Item
from onsale.embedded import EmbeddedValkey
from onsale.gate import gate
from onsale.gate.gate import Availability
from onsale.gate.keys import event_keys
from onsale.observability.runtime import stop
from onsale.sales import catalog
from onsale.sales.baskets import Asked
from onsale.sales.service import Service
from onsale.workers.reconciler import Reconciler
from tests.sales.meter import Meter
from tests.support import MakeEvent, wait_until

READERS = 50


def unknown_id() -> str:
    """An id that no event has."""
    return secrets.token_hex(16)


async def ask_all(service: Service, event_id: str) -> list[BaseException | object]:
    asking = (service.catalog.require(event_id) for _ in range(READERS))
    return await asyncio.gather(*asking, return_exceptions=True)


async def test_many_who_ask_at_once_share_one_reading(
    neighbour: Service, make_event: MakeEvent, meter: Meter
) -> None:
    event = await make_event(5)
    before = meter.events_read
    found = await ask_all(neighbour, event.id)
    assert len({id(sale) for sale in found}) == 1
    assert meter.events_read == before + 1
    await ask_all(neighbour, event.id)
    assert meter.events_read == before + 1, "it is known now"


async def test_an_unknown_id_reaches_the_ledger_once(service: Service, meter: Meter) -> None:
    event_id = unknown_id()
    for _ in range(3):
        found = await ask_all(service, event_id)
        assert all(isinstance(error, NotFound) for error in found)
    assert meter.events_read == 1


async def test_an_id_that_was_unknown_is_looked_up_again_in_time(
    service: Service, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event made at another process must not stay unknown here."""
    monkeypatch.setattr(catalog, "_UNKNOWN_SECONDS", 0.0)
    event_id = unknown_id()
    for reads in (1, 2, 3):
        with pytest.raises(NotFound):
            await service.catalog.require(event_id)
        assert meter.events_read == reads


async def test_guessing_does_not_fill_the_memory(
    service: Service, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_UNKNOWN_IDS_MAX", 3)
    guesses = [unknown_id() for _ in range(5)]
    for event_id in guesses:
        with pytest.raises(NotFound):
            await service.catalog.require(event_id)
    assert meter.events_read == 5
    for event_id in guesses[-3:]:
        with pytest.raises(NotFound):
            await service.catalog.require(event_id)
    assert meter.events_read == 5, "the newest are remembered"
    with pytest.raises(NotFound):
        await service.catalog.require(guesses[0])
    assert meter.events_read == 6, "the oldest made way"


async def test_the_sale_asked_for_least_lately_makes_way(
    neighbour: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the one on sale, however long it has been known."""
    monkeypatch.setattr(catalog, "_SALES_MAX", 2)
    on_sale, old, new = [(await make_event(5)).id for _ in range(3)]
    for event_id in (on_sale, old, on_sale, new):
        await neighbour.catalog.require(event_id)
    assert {sale.event.id for sale in neighbour.catalog.sales()} == {on_sale, new}


async def test_one_who_stops_waiting_does_not_stop_the_reading(
    neighbour: Service, make_event: MakeEvent, meter: Meter
) -> None:
    event = await make_event(5)
    before = meter.events_read
    gone, stays = (asyncio.create_task(neighbour.catalog.require(event.id)) for _ in range(2))
    await asyncio.sleep(0)  # one turn of the loop, and both are waiting
    gone.cancel()
    assert (await stays).event.id == event.id
    assert meter.events_read == before + 1


async def test_a_young_picture_saves_a_look(
    service: Service, make_event: MakeEvent, meter: Meter
) -> None:
    sale = await service.catalog.require((await make_event(5)).id)
    before = meter.gate_looks
    first = await service.catalog.availability(sale)
    sale._age_seconds_max = 3_600.0
    assert await service.catalog.availability(sale) == first
    assert meter.gate_looks == before + 1
    sale._age_seconds_max = -1.0
    await service.catalog.availability(sale)
    assert meter.gate_looks == before + 2


async def test_a_lost_gate_takes_the_picture_with_it(
    service: Service, make_event: MakeEvent, valkey: EmbeddedValkey
) -> None:
    sale = await service.catalog.require((await make_event(5)).id)
    await service.catalog.availability(sale)
    async with Redis.from_url(valkey.url) as redis:
        await redis.delete(*event_keys(sale.event.id))
    sale._age_seconds_max = -1.0
    with pytest.raises(GateLost):
        await service.catalog.availability(sale)
    assert sale.view is None


async def test_news_of_an_earlier_loading_is_no_news(
    neighbour: Service, service: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its count of admitted orders would hide for long that the filter lacks some of the new
    loading's, and refuse their buyers' repeated presses. Seen red with the epochs not compared.
    """
    event = await make_event(5)
    sale = await neighbour.catalog.require(event.id)
    ask = neighbour.gate.availabilities

    async def answer_late(
        events: Sequence[tuple[str, str]],
    ) -> list[Availability | GateUnavailable]:
        answers = await ask(events)
        await service.events.next_gate_generation(event.id)
        await Reconciler(service).run_once()
        await neighbour.catalog.reload(event.id)
        return answers

    monkeypatch.setattr(neighbour.gate, "availabilities", answer_late)
    with pytest.raises(GateLost):
        await neighbour.catalog.availability(sale)
    assert sale.event.gate_epoch not in (None, event.gate_epoch)
    assert sale.view is None


# -- with its pictures kept young, as in the API


async def sold_out_event(service: Service, make_event: MakeEvent) -> tuple[Event, bytes]:
    """An event whose two seats a buyer has, and the order's id."""
    event = await make_event(2)
    placed = await service.placing.place(event.id, "buyer", "key", Asked((("t1", 2),), None))
    return event, placed.order.id


async def test_a_loser_is_refused_without_asking_anybody(
    neighbour: Service, service: Service, make_event: MakeEvent
) -> None:
    """At another process than the one that sold the seats, once it knows who has them."""
    event, bought = await sold_out_event(service, make_event)
    stranger = order_id(event.id, "stranger", "key")
    sale = await neighbour.catalog.require(event.id)
    young = asyncio.create_task(neighbour.catalog.keep_young())

    async def knows_the_losers() -> bool:
        await neighbour.catalog.require(event.id)
        return not sale.may_have_admitted(stranger)

    await wait_until(knows_the_losers)
    await stop(young)
    # As fresh as at its last look, for as long as this test needs.
    sale._age_seconds_max = 3_600.0
    assert sale.refusal([Item(1, 1)]) is Outcome.SOLD_OUT
    assert sale.may_have_admitted(bought)
    meter = Meter()
    with pytest.raises(SoldOut):
        await neighbour.placing.place(event.id, "stranger", "key", Asked((("t1", 1),), None))
    assert (meter.admissions, meter.gate_looks, meter.events_read) == (0, 0, 0)
    again = await neighbour.placing.place(event.id, "buyer", "key", Asked((("t1", 2),), None))
    assert again.replayed
    assert again.order.id == bought


async def test_many_who_learn_at_once_share_one_reading(
    neighbour: Service, service: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a log that takes several calls; seen red with each reading it for themselves."""
    monkeypatch.setattr(gate, "_SEEN_AT_ONCE_ORDERS", 2)
    event = await make_event(9)
    for number in range(6):
        await service.placing.place(event.id, f"buyer-{number}", "key", Asked((("t1", 1),), None))
    sale = await neighbour.catalog.require(event.id)
    read, calls = neighbour.gate.seen, []

    async def counted(event_id: str, epoch: str, known_orders: int) -> tuple[int, ...]:
        calls.append(known_orders)
        return await read(event_id, epoch, known_orders)

    monkeypatch.setattr(neighbour.gate, "seen", counted)
    await asyncio.gather(*(neighbour.catalog.learn_orders(sale, 6) for _ in range(READERS)))
    assert calls == [0, 2, 4]
    assert sale.known_orders == 6


async def test_what_was_forgotten_meanwhile_is_read_from_its_beginning(
    neighbour: Service, service: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the epoch is the same again. Seen red with only the epochs compared: the error ended
    the looks at all sales.
    """
    monkeypatch.setattr(gate, "_SEEN_AT_ONCE_ORDERS", 1)
    event, bought = await sold_out_event(service, make_event)
    sale = await neighbour.catalog.require(event.id)
    await neighbour.catalog.learn_orders(sale, 1)
    read = neighbour.gate.seen

    async def answer_late(event_id: str, epoch: str, known_orders: int) -> tuple[int, ...]:
        names = await read(event_id, epoch, known_orders - 1)
        of_now = sale.event
        sale.see_event(replace(of_now, gate_epoch="0.earlier"))
        sale.see_event(of_now)
        return names

    monkeypatch.setattr(neighbour.gate, "seen", answer_late)
    await neighbour.catalog.learn_orders(sale, 2)
    assert sale.known_orders == 0
    monkeypatch.setattr(neighbour.gate, "seen", read)
    await neighbour.catalog.learn_orders(sale, 1)
    assert not sale.surely_never_admitted(bought, 1)


async def test_only_sales_that_are_asked_for_are_kept_young(
    neighbour: Service, make_event: MakeEvent
) -> None:
    asked, idle = [await neighbour.catalog.require((await make_event(5)).id) for _ in range(2)]
    idle.asked_at_seconds -= 3_600
    young = asyncio.create_task(neighbour.catalog.keep_young())

    async def is_pictured() -> bool:
        return asked.view is not None

    await wait_until(is_pictured)
    await stop(young)
    assert idle.view is None


async def test_nothing_is_left_running_when_a_cancellation_was_lost(
    neighbour: Service, make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As redis-py loses one on Python 3.11; seen red with the first of the two ending both."""
    await neighbour.catalog.require((await make_event(5)).id)
    looking = asyncio.Event()
    lost = 0

    async def look(*_: object) -> None:
        nonlocal lost
        looking.set()
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            lost += 1
            if lost > 1:
                raise

    monkeypatch.setattr(neighbour.catalog, "_look_after", look)
    before = asyncio.all_tasks()
    young = asyncio.create_task(neighbour.catalog.keep_young())
    await looking.wait()
    await stop(young)
    assert lost == 2
    assert asyncio.all_tasks() == before

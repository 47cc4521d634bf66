"""Buyers who press again: the same order, wherever they ask and whatever became of it since.

Seen red with a filter that always says "surely not".
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from onsale.domain.errors import SoldOut
from onsale.domain.event import PaymentKind
from onsale.ledger.ledger import OrderKey
from onsale.observability.runtime import stop
from onsale.sales.baskets import Asked
from onsale.sales.placing import Placed
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers import sweeper
from tests.races.books import assert_balanced, place
from tests.races.crowd import press_at_once, presses
from tests.support import MakeEvent, count_rows, wait_until


async def _press(service: Service, event_id: str, buyer_id: str, tier_id: str = "t1") -> Placed:
    return await service.placing.place(event_id, buyer_id, "press-1", Asked(((tier_id, 1),), None))


def _refuses(service: Service, event_id: str) -> Callable[[], Awaitable[bool]]:
    """Whether the service answers losers of the event by itself, knowing who was admitted."""

    async def reached() -> bool:
        sale = await service.catalog.require(event_id)
        return sale.fresh and sale.refuses and sale.knows_everybody

    return reached


async def test_after_the_sell_out_at_every_process(
    ports: list[int], service: Service, make_event: MakeEvent
) -> None:
    """Each winner presses again at both processes, amid a crowd of losers."""
    event = await make_event(50)
    pressed = presses(event.id, 400)
    first = await press_at_once(ports, pressed)
    again = await press_at_once(ports, pressed)
    elsewhere = await press_at_once(ports[::-1], pressed)

    for before, *later in zip(first, again, elsewhere, strict=True):
        assert {before.outcome} == {answer.outcome for answer in later}
        if before.status == 201:
            assert [answer.body for answer in later] == [before.body] * 2
            assert all(answer.replayed for answer in later)
    assert sum(answer.status == 201 for answer in first) == 50
    await assert_balanced(service, event.id)


async def test_while_losers_are_answered_in_process(
    services: list[Service], make_event: MakeEvent
) -> None:
    here, elsewhere, _ = services
    event = await make_event(1)
    placed = await _press(here, event.id, "winner")
    with pytest.raises(SoldOut):
        await _press(elsewhere, event.id, "loser")
    await wait_until(_refuses(elsewhere, event.id))

    again = await _press(elsewhere, event.id, "winner")
    assert (again.order, again.replayed) == (placed.order, True)
    with pytest.raises(SoldOut):
        await _press(elsewhere, event.id, "loser")


async def test_just_after_another_process_sold_the_last_seat(
    services: list[Service], settings: Settings, make_event: MakeEvent, exits: AsyncExitStack
) -> None:
    """A batch tells that a tier is empty before the next look tells whom it went to.

    The other tier is sold out, so that the process already has a filter, from before that order.
    """
    here, *_ = services
    elsewhere = Service.of(settings.model_copy(update={"sale_view_age_seconds_max": 60.0}))
    exits.push_async_callback(elsewhere.close)
    event = await make_event(1, 1)
    await _press(here, event.id, "early", "t2")
    with pytest.raises(SoldOut):
        await _press(elsewhere, event.id, "loser", "t2")
    looking = asyncio.create_task(elsewhere.catalog.keep_young())
    await wait_until(_refuses(elsewhere, event.id))
    await stop(looking)

    placed = await _press(here, event.id, "winner", "t1")
    with pytest.raises(SoldOut):
        await _press(elsewhere, event.id, "loser", "t1")
    again = await _press(elsewhere, event.id, "winner", "t1")
    assert (again.order, again.replayed) == (placed.order, True)


@pytest.mark.parametrize("end", ["released", "expired"])
async def test_the_key_of_an_order_that_ended_gets_that_order(
    services: list[Service], make_event: MakeEvent, end: str
) -> None:
    here, elsewhere, worker = services
    event = await make_event(3, payment=PaymentKind.CARD, hold_seconds=1)
    placed = await _press(here, event.id, "buyer-1")
    key = OrderKey(event.id, placed.order.id)
    if end == "released":
        await here.ending.release(key, "buyer-1")
    else:

        async def swept() -> bool:
            return await sweeper.run_once(worker) > 0

        await wait_until(swept)

    again = await asyncio.gather(
        *(_press(service, event.id, "buyer-1") for service in (here, elsewhere) for _ in range(3))
    )
    assert {(one.order.id, one.order.status.value, one.replayed) for one in again} == {
        (placed.order.id, end, True)
    }
    orders = await count_rows(
        here, "SELECT count(*) FROM orders WHERE event_id = :event", event=event.id
    )
    assert orders == 1
    (tier,) = await assert_balanced(here, event.id)
    assert tier.available_units == 3


async def test_the_key_of_an_order_that_ended_after_others_took_its_seat(
    services: list[Service], make_event: MakeEvent
) -> None:
    here, elsewhere, _ = services
    event = await make_event(1, payment=PaymentKind.CARD)
    placed = await _press(here, event.id, "buyer-1")
    await here.ending.release(OrderKey(event.id, placed.order.id), "buyer-1")
    await place(here, event.id, "buyer-2", "press-1", 1)

    for service in (here, elsewhere):
        again = await _press(service, event.id, "buyer-1")
        assert (again.order.id, again.order.status.value) == (placed.order.id, "released")
    await assert_balanced(here, event.id)

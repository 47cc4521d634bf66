"""Many processes place orders at once: limits, several tiers, all or nothing.

Seen red with the limit taken out of `admit.lua`, and with a stock check there that drops the items
it refuses and takes the others.
"""

import asyncio
import contextlib
from collections import Counter
from contextlib import AsyncExitStack
from itertools import cycle

import pytest
from prometheus_client import REGISTRY

from onsale.domain.errors import LedgerUnavailable, SoldOut
from onsale.domain.event import Event
from onsale.ledger import statements
from onsale.sales.baskets import Asked
from onsale.sales.placing import Placed
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.races.books import assert_balanced, code_of, place
from tests.races.conftest import running
from tests.support import MakeEvent, count_rows, live_orders


async def test_the_limit_of_a_buyer_holds_at_every_process(
    services: list[Service], make_event: MakeEvent
) -> None:
    """Each of 20 buyers asks 12 times at once for 2 and may have 4 in all."""
    event = await make_event(1_000, max_per_buyer_units=4)
    asked = [
        place(services[press % 3], event.id, f"buyer-{number}", f"press-{press}", 2)
        for press in range(12)
        for number in range(20)
    ]
    outcomes = Counter(map(code_of, await asyncio.gather(*asked, return_exceptions=True)))

    assert outcomes == {"confirmed": 2 * 20, "buyer_limit_reached": 10 * 20}
    most_units = await count_rows(
        services[0],
        "SELECT max(units) FROM (SELECT sum(quantity) AS units FROM orders"
        " JOIN order_items ON order_items.event_id = orders.event_id AND order_id = id"
        " WHERE orders.event_id = :event GROUP BY buyer_id) AS of_buyer",
        event=event.id,
    )
    assert most_units == 4
    await assert_balanced(services[0], event.id)


async def test_one_order_over_the_limit_takes_nothing(
    service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(1_000, max_per_buyer_units=4)
    over, within = await asyncio.gather(
        place(service, event.id, "buyer-1", "five", 5),
        place(service, event.id, "buyer-1", "four", 4),
        return_exceptions=True,
    )
    assert (code_of(over), code_of(within)) == ("buyer_limit_reached", "confirmed")
    await assert_balanced(service, event.id)


@pytest.fixture
async def hurried(settings: Settings, exits: AsyncExitStack) -> list[Service]:
    """Three services that write five orders at a time, so that many batches meet."""
    small = settings.model_copy(update={"ledger_batch_size_max": 5})
    return [await exits.enter_async_context(running(small)) for _ in range(3)]


async def _want_both_ways(services: list[Service], event: Event) -> Counter[str]:
    """600 orders name the same two tiers, half of them the other way round."""
    ways = cycle([(("t1", 1), ("t2", 1)), (("t2", 1), ("t1", 1))])
    placed = (
        services[number % 3].placing.place(
            event.id, f"buyer-{number}", "press-1", Asked(next(ways), None)
        )
        for number in range(600)
    )
    found = await asyncio.gather(*placed, return_exceptions=True)
    return Counter(code_of(one.order if isinstance(one, Placed) else one) for one in found)


# Whether batches meet is chance; that none does in so many crowds is not.
_CROWDS_MAX = 20


def _deadlocks() -> float:
    labels = {"operation": "place", "error": "DeadlockDetectedError"}
    return REGISTRY.get_sample_value("onsale_db_errors_total", labels) or 0.0


async def test_tiers_in_opposite_order_do_not_deadlock(
    hurried: list[Service], make_event: MakeEvent
) -> None:
    event = await make_event(500, 500)
    before = _deadlocks()
    assert await _want_both_ways(hurried, event) == {"confirmed": 500, "sold_out": 100}
    assert _deadlocks() == before
    await assert_balanced(hurried[0], event.id)


async def test_without_one_order_of_locks_they_do(
    hurried: list[Service], make_event: MakeEvent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault for the test above. What deadlocks is refused, not lost or oversold."""
    in_order = "ORDER BY tiers.event_id, number FOR NO KEY UPDATE"
    assert in_order in statements.PLACE
    at_random = statements.PLACE.replace(in_order, "ORDER BY random() FOR NO KEY UPDATE")
    monkeypatch.setattr(statements, "PLACE", at_random)
    before = _deadlocks()
    for _ in range(_CROWDS_MAX):
        event = await make_event(500, 500)
        with contextlib.suppress(LedgerUnavailable):
            await _want_both_ways(hurried, event)
        assert not any(tier.oversold_units for tier in await hurried[0].ledger.books(event.id))
        if _deadlocks() > before:
            return
    raise AssertionError("batches that lock at random never met")


async def test_an_order_has_all_of_its_items_or_none(
    services: list[Service], make_event: MakeEvent
) -> None:
    """Pairs of a scarce and an ample tier: what sold out takes no seat of what did not."""
    event = await make_event(30, 1_000)
    asked = [
        place(services[number % 3], event.id, f"buyer-{number}", "press-1", 2, 5)
        for number in range(120)
    ]
    outcomes = Counter(map(code_of, await asyncio.gather(*asked, return_exceptions=True)))
    assert outcomes == {"confirmed": 15, "sold_out": 105}
    scarce, ample = await assert_balanced(services[0], event.id)
    assert (scarce.sold_units, ample.sold_units) == (30, 75)
    halves = await count_rows(
        services[0],
        "SELECT count(*) FROM (SELECT FROM order_items WHERE event_id = :event"
        " GROUP BY order_id HAVING count(*) <> 2) AS half",
        event=event.id,
    )
    assert halves == 0


async def test_the_last_seats_go_to_orders_they_suffice_for(
    services: list[Service], make_event: MakeEvent
) -> None:
    """Five are left of ten: three and three do not both fit, and nobody gets a part."""
    event = await make_event(5)
    found = await asyncio.gather(
        *(place(services[n], event.id, f"buyer-{n}", "press-1", 3) for n in range(2)),
        return_exceptions=True,
    )
    assert Counter(map(code_of, found)) == {"confirmed": 1, "sold_out": 1}
    (tier,) = await assert_balanced(services[0], event.id)
    assert tier.available_units == 2
    assert code_of(await place(services[2], event.id, "buyer-3", "press-1", 2)) == "confirmed"


async def test_ten_twins_at_three_processes_are_one_order(
    services: list[Service], make_event: MakeEvent
) -> None:
    event = await make_event(1_000)
    found = await asyncio.gather(
        *(
            place(services[twin % 3], event.id, f"buyer-{number}", "press-1", 1)
            for number in range(30)
            for twin in range(10)
        )
    )
    assert len({order.id for order in found}) == 30
    assert await live_orders(services[0], event.id) == 30
    await assert_balanced(services[0], event.id)


async def test_a_tier_filled_from_three_processes_has_not_one_seat_too_many(
    services: list[Service], make_event: MakeEvent
) -> None:
    event = await make_event(50)
    found = await asyncio.gather(
        *(place(services[n % 3], event.id, f"buyer-{n}", "press-1", 1) for n in range(400)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, SoldOut) for one in found) == 350
    assert await live_orders(services[0], event.id) == 50
    await assert_balanced(services[0], event.id)

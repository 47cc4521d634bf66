"""A capacity that is lowered while orders come in: it holds from the commit on, in both stores."""

import asyncio
from collections import Counter

from onsale.domain.event import Event
from onsale.sales.service import Service
from onsale.workers.reconciler import Reconciler
from tests.races.books import assert_balanced, code_of, place
from tests.support import MakeEvent


async def _buy(services: list[Service], event: Event, crowd: str, buyers: int) -> Counter[str]:
    placed = (place(services[n % 3], event.id, f"{crowd}-{n}", "press-1", 1) for n in range(buyers))
    return Counter(map(code_of, await asyncio.gather(*placed, return_exceptions=True)))


async def _lower(service: Service, event: Event, capacity_units: int) -> str:
    lowering = service.organising.set_capacity(event.id, "t1", capacity_units)
    (told,) = await asyncio.gather(lowering, return_exceptions=True)
    return "lowered" if isinstance(told, Event) else code_of(told)


async def test_lowered_against_orders(services: list[Service], make_event: MakeEvent) -> None:
    """Eight sales in which 90 orders meet a change from 100 to 60: what is told is what holds."""
    for _ in range(8):
        event = await make_event(100)
        outcomes, told = await asyncio.gather(
            _buy(services, event, "first", 90), _lower(services[0], event, 60)
        )
        assert told in {"lowered", "capacity_below_reserved"}
        capacity_units = 60 if told == "lowered" else 100
        assert set(outcomes) <= {"confirmed", "sold_out"}
        assert outcomes["confirmed"] == min(90, capacity_units)

        (tier,) = await assert_balanced(services[0], event.id)
        assert tier.capacity_units == capacity_units
        rest = await _buy(services, event, "second", 90)
        assert rest["confirmed"] == capacity_units - outcomes["confirmed"]
        await assert_balanced(services[0], event.id)


async def test_changed_by_several_at_once(services: list[Service], make_event: MakeEvent) -> None:
    """The last commit holds; a gate that heard of them in another order is told again."""
    event = await make_event(100)
    changes = [services[n % 3].organising.set_capacity(event.id, "t1", 50 + n) for n in range(12)]
    outcomes, *_ = await asyncio.gather(_buy(services, event, "first", 40), *changes)
    assert outcomes == {"confirmed": 40}

    await Reconciler(services[0]).run_once()
    (tier,) = await assert_balanced(services[0], event.id)
    rest = await _buy(services, event, "second", 100)
    assert rest["confirmed"] == tier.available_units
    await assert_balanced(services[0], event.id)


async def test_lowered_below_what_is_reserved_changes_nothing(
    services: list[Service], make_event: MakeEvent
) -> None:
    event = await make_event(10)
    await _buy(services, event, "first", 6)
    told = await asyncio.gather(*(_lower(service, event, 5) for service in services))
    assert told == ["capacity_below_reserved"] * 3
    (tier,) = await assert_balanced(services[0], event.id)
    assert (tier.capacity_units, tier.available_units) == (10, 4)

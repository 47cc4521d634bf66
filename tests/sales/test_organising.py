"""What organisers do reaches both stores, and many of them may do it at once."""

import asyncio

import pytest

from onsale.domain.errors import CapacityBelowReserved, NotFound, SaleClosed
from onsale.domain.event import SaleSwitch
from onsale.sales.baskets import Asked
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.support import MakeEvent


async def test_more_events_are_made_at_once_than_there_are_connections(
    make_event: MakeEvent, settings: Settings
) -> None:
    """Loading a gate must not hold a connection while it waits for another."""
    events = await asyncio.gather(*(make_event(5) for _ in range(2 * settings.db_pool_size_max)))
    assert all(event.gate_epoch is not None for event in events)


async def test_an_event_is_on_sale_at_both_stores_at_once(
    service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(5, 7)
    assert event.gate_epoch is not None
    seen = await service.gate.availability(event.id, event.gate_epoch)
    assert seen.available_units == {1: 5, 2: 7}


@pytest.mark.parametrize("capacity_units", [2, 3, 100])
async def test_a_capacity_changes_at_both_stores(
    service: Service, make_event: MakeEvent, capacity_units: int
) -> None:
    event = await make_event(5)
    await service.placing.place(event.id, "buyer", "key", Asked((("t1", 2),), None))
    changed = await service.organising.set_capacity(event.id, "t1", capacity_units)
    assert changed.tier_by_id["t1"].capacity_units == capacity_units
    assert changed.gate_epoch is not None
    seen = await service.gate.availability(event.id, changed.gate_epoch)
    assert seen.available_units == {1: capacity_units - 2}


async def test_a_capacity_below_what_is_taken_changes_neither(
    service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(5)
    await service.placing.place(event.id, "buyer", "key", Asked((("t1", 2),), None))
    with pytest.raises(CapacityBelowReserved):
        await service.organising.set_capacity(event.id, "t1", 1)
    assert event.gate_epoch is not None
    seen = await service.gate.availability(event.id, event.gate_epoch)
    assert seen.available_units == {1: 3}


async def test_a_closed_sale_stays_closed(service: Service, make_event: MakeEvent) -> None:
    event = await make_event(5)
    for switch in (SaleSwitch.PAUSED, SaleSwitch.OPEN, SaleSwitch.CLOSED, SaleSwitch.CLOSED):
        changed = await service.organising.switch(event.id, switch)
        assert changed.switch is switch
        assert changed.gate_epoch is not None
        seen = await service.gate.availability(event.id, changed.gate_epoch)
        assert seen.switch is switch
    for switch in (SaleSwitch.PAUSED, SaleSwitch.OPEN):
        with pytest.raises(SaleClosed):
            await service.organising.switch(event.id, switch)


async def test_what_is_not_there_is_not_changed(service: Service, make_event: MakeEvent) -> None:
    event = await make_event(5)
    with pytest.raises(NotFound):
        await service.organising.switch("0" * 32, SaleSwitch.PAUSED)
    with pytest.raises(NotFound):
        await service.organising.set_capacity("0" * 32, "t1", 5)
    with pytest.raises(NotFound):
        await service.organising.set_capacity(event.id, "t2", 5)

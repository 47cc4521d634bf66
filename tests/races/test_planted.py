"""The races can fail: with the gate's stock check taken out the ledger refuses instead, and with
the ledger's taken out as well the same race oversells, and the audit says so.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from prometheus_client import REGISTRY

from onsale.domain.event import Event
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.gate import scripts
from onsale.gate.scripts import ScriptName
from onsale.ledger.tables import STOCK_CONSTRAINT
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.races.books import assert_balanced, audit_at_quiet, code_of, new_event, place
from tests.races.conftest import running
from tests.races.stores import execute, own_stores
from tests.support import MakeEvent, live_orders

BUYERS = 300
TICKETS = 100

_STOCK_CHECK = "lacking = lacking or units_left(tier) < quantity"


@pytest.fixture
def gate_without_stock_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services made from now on admit whoever asks."""
    source = scripts.source

    def altered(name: ScriptName) -> str:
        sound = source(name)
        if name is not ScriptName.ADMIT:
            return sound
        assert _STOCK_CHECK in sound, "the check that this fault takes out is another one now"
        return sound.replace(_STOCK_CHECK, "units_left(tier)")

    monkeypatch.setattr(scripts, "source", altered)


async def _race(services: list[Service], event: Event) -> Counter[str]:
    """Every buyer presses once, at one process or the other; what they were told."""
    placed = (
        place(services[number % len(services)], event.id, f"buyer-{number}", "press-1", 1)
        for number in range(BUYERS)
    )
    return Counter(map(code_of, await asyncio.gather(*placed, return_exceptions=True)))


def _refused_by_the_ledger() -> float:
    labels = {"operation": "place", "error": "CheckViolationError"}
    return REGISTRY.get_sample_value("onsale_db_errors_total", labels) or 0.0


async def test_the_sound_race(services: list[Service], make_event: MakeEvent) -> None:
    """What the two below are held against: the gate alone refuses, the ledger never has to."""
    event = await make_event(TICKETS)
    before = _refused_by_the_ledger()
    assert await _race(services, event) == {"confirmed": TICKETS, "sold_out": BUYERS - TICKETS}
    assert _refused_by_the_ledger() == before
    await assert_balanced(services[0], event.id)


async def test_without_the_gates_check_the_ledger_refuses_the_surplus_and_nobody_else(
    gate_without_stock_check: None, services: list[Service], make_event: MakeEvent
) -> None:
    event = await make_event(TICKETS)
    before = _refused_by_the_ledger()
    assert await _race(services, event) == {"confirmed": TICKETS, "sold_out": BUYERS - TICKETS}
    assert _refused_by_the_ledger() > before
    assert await live_orders(services[0], event.id) == TICKETS
    await assert_balanced(services[0], event.id)


@pytest.fixture
def unguarded(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> Iterator[Settings]:
    """Stores whose tiers have no stock constraint."""
    with own_stores(postgres, valkey, "unguarded", redis_db=2) as settings:
        execute(settings.database_url, f"ALTER TABLE tiers DROP CONSTRAINT {STOCK_CONSTRAINT}")
        yield settings


async def test_without_either_check_it_oversells_and_the_audit_says_so(
    gate_without_stock_check: None,
    unguarded: Settings,
    exits: AsyncExitStack,
) -> None:
    services = [await exits.enter_async_context(running(unguarded)) for _ in range(2)]
    event = await services[0].organising.create(new_event(TICKETS))
    outcomes = await _race(services, event)

    assert outcomes["confirmed"] > TICKETS
    found = await audit_at_quiet(services[0], event.id)
    assert found.oversold_units == outcomes["confirmed"] - TICKETS > 0
    assert not found.balanced
    assert {"oversold", "ledger_unbalanced"} <= {one.kind for one in found.differences}

"""The books of both stores after a race, which must balance to the unit."""

from datetime import UTC, datetime, timedelta
from functools import partial

from onsale.domain.errors import GateUnavailable, Refused
from onsale.domain.event import PaymentKind
from onsale.domain.order import Order
from onsale.domain.tier import TierBooks
from onsale.ledger.events import NewEvent, NewTier
from onsale.sales.baskets import Asked
from onsale.sales.books import Audit, audit
from onsale.sales.service import Service
from tests.support import wait_until

# Before the present second: at quiet every order must be in both stores, however young it is.
_NO_GRACE_SECONDS = -1.0


async def audit_at_quiet(service: Service, event_id: str) -> Audit:
    """The audit of an event that has nothing on its way between the stores."""
    event = await service.events.get(event_id)
    assert event is not None
    return await audit(event, service.gate, service.ledger, _NO_GRACE_SECONDS)


async def gate_answers(service: Service) -> bool:
    """Whether this process has found its gate well again."""
    try:
        await service.gate.keeping()
    except GateUnavailable:
        return False
    return True


async def assert_balanced(service: Service, event_id: str) -> list[TierBooks]:
    """Both stores balance, and say the same of every tier; the tiers' books by number.

    A process that met the test's fault leaves its gate alone for a moment, whoever else has found
    it well since: that moment is waited for. Seen red without that, and a breaker opened before.
    """
    await wait_until(partial(gate_answers, service))
    found = await audit_at_quiet(service, event_id)
    assert found.balanced, found.differences
    assert found.oversold_units == 0
    assert found.gate is not None
    counted = [tier.counted for tier in found.ledger]
    left_at_gate = [tier.available_units for tier in found.gate.tiers]
    assert left_at_gate == [tier.available_units for tier in counted]
    return counted


def new_event(
    *capacities_units: int,
    payment: PaymentKind = PaymentKind.NONE,
    max_per_buyer_units: int = 0,
    hold_seconds: int = 600,
) -> NewEvent:
    """An event on sale, for services on stores of their own, where `make_event` does not reach."""
    now = datetime.now(UTC)
    return NewEvent(
        name="A night to test",
        venue=None,
        starts_at=now + timedelta(days=30),
        sale_opens_at=now - timedelta(minutes=1),
        sale_closes_at=now + timedelta(days=1),
        hold_seconds=hold_seconds,
        max_per_buyer_units=max_per_buyer_units,
        payment=payment,
        currency="EUR",
        tiers=tuple(
            NewTier(f"t{number}", f"Tier {number}", 1_000 * number, capacity_units)
            for number, capacity_units in enumerate(capacities_units, start=1)
        ),
    )


async def place(
    service: Service, event_id: str, buyer_id: str, key: str, *quantities: int
) -> Order:
    """Order so many of the first tier, of the second…; 0 leaves a tier out. Raises refusals."""
    asked = [(f"t{number}", quantity) for number, quantity in enumerate(quantities, 1) if quantity]
    placed = await service.placing.place(event_id, buyer_id, key, Asked(tuple(asked), None))
    return placed.order


def code_of(outcome: object) -> str:
    """What a use case came to, in a word: an order's status, `done`, or the code of a refusal.

    Anything but a refusal is raised: no race may end in an error of ours.
    """
    if isinstance(outcome, Refused):
        return outcome.code
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome.status.value if isinstance(outcome, Order) else "done"

"""Switch and window together say what the sale is; a closed sale stays closed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onsale.domain.event import Event, PaymentKind, SaleState, SaleSwitch, sale_state
from onsale.domain.tier import Tier

OPENS_MS, CLOSES_MS = 1_000, 2_000

moments = st.integers(0, 3_000)
switches = st.sampled_from(SaleSwitch)


@pytest.mark.parametrize(
    ("switch", "now_ms", "state"),
    [
        (SaleSwitch.OPEN, 999, SaleState.SCHEDULED),
        (SaleSwitch.OPEN, 1_000, SaleState.OPEN),
        (SaleSwitch.OPEN, 1_999, SaleState.OPEN),
        (SaleSwitch.OPEN, 2_000, SaleState.CLOSED),
        (SaleSwitch.PAUSED, 999, SaleState.PAUSED),
        (SaleSwitch.PAUSED, 1_000, SaleState.PAUSED),
        (SaleSwitch.PAUSED, 2_000, SaleState.CLOSED),
        (SaleSwitch.CLOSED, 999, SaleState.CLOSED),
        (SaleSwitch.CLOSED, 1_500, SaleState.CLOSED),
    ],
)
def test_the_state_of_a_sale(switch: SaleSwitch, now_ms: int, state: SaleState) -> None:
    assert sale_state(switch, now_ms, OPENS_MS, CLOSES_MS) is state


@given(switches, moments, moments)
def test_nothing_follows_a_closed_sale(switch: SaleSwitch, now_ms: int, later_ms: int) -> None:
    if sale_state(switch, now_ms, OPENS_MS, CLOSES_MS) is SaleState.CLOSED:
        later = sale_state(switch, now_ms + later_ms, OPENS_MS, CLOSES_MS)
        assert later is SaleState.CLOSED


@given(switches, moments)
def test_a_sale_is_open_only_within_its_window(switch: SaleSwitch, now_ms: int) -> None:
    is_open = sale_state(switch, now_ms, OPENS_MS, CLOSES_MS) is SaleState.OPEN
    assert is_open == (switch is SaleSwitch.OPEN and OPENS_MS <= now_ms < CLOSES_MS)


def test_an_event_knows_its_state_and_its_tiers() -> None:
    opens_at = datetime(2030, 1, 1, 12, tzinfo=UTC)
    event = Event(
        id="e" * 32,
        name="A night to test",
        venue=None,
        starts_at=opens_at + timedelta(days=1),
        sale_opens_at=opens_at,
        sale_closes_at=opens_at + timedelta(hours=1),
        hold_seconds=600,
        max_per_buyer_units=0,
        payment=PaymentKind.CARD,
        currency="EUR",
        switch=SaleSwitch.OPEN,
        tiers=(Tier("floor", 1, "Floor", 5_000, 10), Tier("balcony", 2, "Balcony", 3_000, 5)),
        created_at=opens_at,
    )
    millisecond = timedelta(milliseconds=1)
    assert event.state_at(opens_at - millisecond) is SaleState.SCHEDULED
    assert event.state_at(opens_at) is SaleState.OPEN
    assert event.state_at(event.sale_closes_at - millisecond) is SaleState.OPEN
    assert event.state_at(event.sale_closes_at) is SaleState.CLOSED
    assert event.tier_by_id["balcony"] is event.tier_by_number[2]

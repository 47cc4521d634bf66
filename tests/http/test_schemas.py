"""The crowd's answer is written without a model, and says what the model says."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.order import Item, Order, OrderStatus
from onsale.domain.tier import Tier
from onsale.http.schemas import OrderOut

_NOW = datetime(2030, 5, 1, 10, tzinfo=UTC)
_TIERS = tuple(Tier(f"tier-{number}", number, "", 100, 10) for number in (1, 2, 3))
_EVENT = Event(
    id="0198f3a2b4c57d6e8f901a2b3c4d5e6f",
    name="An event",
    venue=None,
    starts_at=_NOW,
    sale_opens_at=_NOW,
    sale_closes_at=_NOW + timedelta(days=1),
    hold_seconds=600,
    max_per_buyer_units=0,
    payment=PaymentKind.CARD,
    currency="EUR",
    switch=SaleSwitch.OPEN,
    tiers=_TIERS,
    created_at=_NOW,
)
_MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))
_ITEMS = st.builds(Item, st.sampled_from([tier.number for tier in _TIERS]), st.integers(1, 100))
_ORDERS = st.builds(
    Order,
    event_id=st.just(_EVENT.id),
    id=st.binary(min_size=16, max_size=16),
    buyer_id=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1),
    status=st.sampled_from(OrderStatus),
    fingerprint=st.binary(min_size=8, max_size=8),
    items=st.lists(_ITEMS, min_size=1, max_size=10).map(tuple),
    amount_minor_units=st.integers(0, 2**60),
    currency=st.just("EUR"),
    created_at=_MOMENTS,
    expires_at=_MOMENTS,
)


@given(_ORDERS)
def test_the_bytes_are_those_of_the_model(order: Order) -> None:
    """Seen red with a field left out, and with two in another order."""
    assert OrderOut.json_of(order, _EVENT) == OrderOut.of(order, _EVENT).model_dump_json().encode()

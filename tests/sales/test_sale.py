"""A process's picture of a sale: it only refuses, only while it is young, and never a twin."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic

import pytest

from onsale.domain.errors import SaleClosed, SaleNotOpen, SalePaused, SoldOut
from onsale.domain.event import Event, PaymentKind, SaleState, SaleSwitch
from onsale.domain.ids import order_id
from onsale.domain.inventory import Outcome
from onsale.domain.order import Item
from onsale.domain.tier import Tier
from onsale.gate.gate import Admission, Availability, seen_name
from onsale.sales.sale import Sale

OPENS_AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVENT = Event(
    id="0198c5a0b7d27c3e9f00112233445566",
    name="A night to test",
    venue=None,
    starts_at=OPENS_AT + 24 * HOUR,
    sale_opens_at=OPENS_AT,
    sale_closes_at=OPENS_AT + HOUR,
    hold_seconds=600,
    max_per_buyer_units=0,
    payment=PaymentKind.NONE,
    currency="EUR",
    switch=SaleSwitch.OPEN,
    tiers=(Tier("floor", 1, "Floor", 5_000, 10), Tier("balcony", 2, "Balcony", 3_000, 5)),
    created_at=OPENS_AT - HOUR,
    gate_epoch="1.run",
)
FOREVER, NEVER = 3_600.0, -1.0
ORDER_ID = order_id(EVENT.id, "buyer", "key")


def seen(
    *left: int,
    at: datetime = OPENS_AT + HOUR / 2,
    switch: SaleSwitch = SaleSwitch.OPEN,
    admitted: int = 7,
) -> Availability:
    """What the gate says: units left of tier 1, tier 2."""
    now_ms = int(at.timestamp() * 1000)
    return Availability(now_ms, switch, admitted, dict(enumerate(left, start=1)))


def pictured(availability: Availability, age_seconds_max: float = FOREVER) -> Sale:
    """A sale with this picture."""
    sale = Sale(EVENT, age_seconds_max)
    sale.see(availability, monotonic())
    return sale


def know(sale: Sale, *order_ids: bytes, strangers: int = 0) -> None:
    """Let it read on in the log of admitted orders: of these, and of so many others."""
    others = [order_id(EVENT.id, f"other-{sale.known_orders + n}", "key") for n in range(strangers)]
    sale.see_orders([seen_name(each) for each in (*order_ids, *others)], sale.known_orders)


REFUSING = [
    (seen(0, 5), Outcome.SOLD_OUT),
    (seen(1, 5), Outcome.SOLD_OUT),
    (seen(-3, 5), Outcome.SOLD_OUT),
    (seen(9, 5, at=OPENS_AT - timedelta(minutes=1)), Outcome.NOT_OPEN),
    (seen(9, 5, switch=SaleSwitch.PAUSED), Outcome.PAUSED),
    (seen(9, 5, switch=SaleSwitch.CLOSED), Outcome.CLOSED),
    (seen(9, 5, at=OPENS_AT + HOUR), Outcome.CLOSED),
]


@pytest.mark.parametrize(("availability", "outcome"), REFUSING)
def test_a_young_picture_refuses(availability: Availability, outcome: Outcome) -> None:
    assert pictured(availability).refusal([Item(1, 2)]) is outcome


@pytest.mark.parametrize(("availability", "_"), REFUSING)
def test_an_old_picture_refuses_nobody(availability: Availability, _: Outcome) -> None:
    assert pictured(availability, NEVER).refusal([Item(1, 2)]) is None


def test_without_a_picture_the_gate_is_asked() -> None:
    assert Sale(EVENT, FOREVER).refusal([Item(1, 2)]) is None
    assert not Sale(EVENT, FOREVER).refuses


def test_what_may_be_there_is_for_the_gate_to_say() -> None:
    sale = pictured(seen(2, 0))
    assert sale.refusal([Item(1, 2)]) is None
    assert sale.refusal([Item(1, 2), Item(2, 1)]) is Outcome.SOLD_OUT
    assert sale.refusal([Item(9, 1)]) is None, "a tier that the picture lacks is not sold out"


def test_the_latest_batch_is_in_the_picture() -> None:
    sale = pictured(seen(5, 5))
    sale.see_batch(Admission([Outcome.ADMITTED], 8, {1: 0}))
    assert sale.refusal([Item(1, 1)]) is Outcome.SOLD_OUT
    sale.see_units({1: 3})
    assert sale.refusal([Item(1, 1)]) is None


@pytest.mark.parametrize(
    ("availability", "state"),
    [
        (seen(1, 1), SaleState.OPEN),
        (seen(1, 1, at=OPENS_AT - HOUR), SaleState.SCHEDULED),
        (seen(1, 1, switch=SaleSwitch.PAUSED), SaleState.PAUSED),
        (seen(1, 1, at=OPENS_AT + 2 * HOUR), SaleState.CLOSED),
    ],
)
def test_the_state_is_by_the_gates_clock(availability: Availability, state: SaleState) -> None:
    """In 2030 by the gate, whatever this machine's clock says."""
    assert pictured(availability).state() is state


def test_a_buyer_is_told_when_the_sale_opens() -> None:
    minute = timedelta(minutes=1)
    error = pictured(seen(1, 1, at=OPENS_AT - minute)).error_for(Outcome.NOT_OPEN)
    assert isinstance(error, SaleNotOpen)
    assert error.opens_at == OPENS_AT
    assert 0 < error.opens_in_seconds <= 60
    late = pictured(seen(1, 1, at=OPENS_AT + minute)).error_for(Outcome.NOT_OPEN)
    assert isinstance(late, SaleNotOpen)
    assert late.opens_in_seconds == 0


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.SOLD_OUT, SoldOut),
        (Outcome.PAUSED, SalePaused),
        (Outcome.CLOSED, SaleClosed),
    ],
)
def test_each_refusal_has_its_error(outcome: Outcome, kind: type[Exception]) -> None:
    assert isinstance(Sale(EVENT, FOREVER).error_for(outcome), kind)


# -- who may have an order already


def test_who_knows_nobody_takes_anybody_for_a_buyer() -> None:
    assert pictured(seen(0, 0)).may_have_admitted(ORDER_ID)


def test_who_knows_everybody_tells_strangers_from_buyers() -> None:
    sale = pictured(seen(0, 0, admitted=7))
    know(sale, ORDER_ID, strangers=6)
    assert sale.may_have_admitted(ORDER_ID)
    assert not sale.may_have_admitted(order_id(EVENT.id, "stranger", "key"))


def test_who_lacks_an_order_sends_everybody_to_the_gate() -> None:
    stranger = order_id(EVENT.id, "stranger", "key")
    sale = pictured(seen(0, 0, admitted=7))
    know(sale, ORDER_ID, strangers=5)
    assert sale.may_have_admitted(stranger)
    know(sale, strangers=1)
    assert not sale.may_have_admitted(stranger)
    sale.see_batch(Admission([Outcome.ADMITTED], 8, {1: 0}))
    assert sale.may_have_admitted(stranger), "the batch admitted somebody: perhaps this one"
    know(sale, strangers=1)
    sale.see(seen(0, 0, admitted=9), monotonic())
    assert sale.may_have_admitted(stranger), "another process admitted somebody"


def test_an_answer_that_comes_late_takes_no_order_back() -> None:
    sale = pictured(seen(0, 0, admitted=7))
    sale.see_batch(Admission([Outcome.ADMITTED], 8, {1: 0}))
    know(sale, strangers=7)
    assert sale.may_have_admitted(ORDER_ID)
    sale.see_batch(Admission([Outcome.SEEN], 7, {1: 0}))
    assert sale.may_have_admitted(ORDER_ID), "an older answer, which came late"


def test_two_who_read_the_log_at_once_read_the_same() -> None:
    """Seen red with what each of them read counted."""
    sale = pictured(seen(0, 0, admitted=4))
    for _ in range(2):
        sale.see_orders([1, 2, 3], after_orders=0)
    assert sale.known_orders == 3
    assert not sale.knows_everybody


def test_a_refusal_is_for_strangers_of_all_who_were_admitted_before_it() -> None:
    sale = pictured(seen(0, 0, admitted=1))
    know(sale, ORDER_ID)
    stranger = order_id(EVENT.id, "stranger", "key")
    assert sale.surely_never_admitted(stranger, 1)
    assert not sale.surely_never_admitted(ORDER_ID, 1)
    assert not sale.surely_never_admitted(stranger, 2)


def test_a_new_epoch_forgets_picture_and_orders() -> None:
    sale = pictured(seen(0, 0, admitted=7))
    know(sale, strangers=7)
    sale.see_event(replace(EVENT, gate_epoch="2.run"))
    assert sale.view is None
    assert sale.refusal([Item(1, 1)]) is None
    # As many orders as before, all adopted: the log has to be read again all the same.
    sale.see(seen(0, 0, admitted=7), monotonic())
    assert sale.may_have_admitted(ORDER_ID)
    assert not sale.knows_everybody


def test_the_same_epoch_keeps_them() -> None:
    sale = pictured(seen(0, 0, admitted=7))
    know(sale, strangers=7)
    sale.see_event(replace(EVENT, name="Another name"))
    assert sale.event.name == "Another name"
    assert sale.refusal([Item(1, 1)]) is Outcome.SOLD_OUT
    assert not sale.may_have_admitted(ORDER_ID)


def test_who_may_be_unheard_of_stays_so_until_the_ledger_says_otherwise() -> None:
    """However slow it is to say so, and not by an answer that is older. Seen red with a time after
    which it was forgotten: with a ledger that was away, an owner was told that it is sold out.
    """
    sale = pictured(seen(0, 5), NEVER)
    know(sale, strangers=7)
    assert not sale.may_have_admitted(ORDER_ID)
    asked_before_seconds = monotonic()
    sale.see_unheard()
    assert sale.may_have_admitted(ORDER_ID)
    sale.see_all_heard(asked_before_seconds)
    assert sale.may_have_admitted(ORDER_ID)
    sale.see_all_heard(monotonic())
    assert not sale.may_have_admitted(ORDER_ID)

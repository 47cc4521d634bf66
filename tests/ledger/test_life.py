"""An order's life in the ledger: which step leads where, and none of them twice.

Seen red with each step's `WHERE status = …` widened, with an overdue hold that can be paid, with
units that are counted for an order that was there already or not counted back on a refund, with a
late authorisation that is not let go, and with a sweeper that waits for another.
"""

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from sqlalchemy import text

from onsale.domain.event import Event
from onsale.domain.order import OrderRequest, OrderStatus
from onsale.domain.payment import PaymentState
from onsale.ledger.engine import ConstraintRefused, Database
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger, OrderKey, PaymentAuthorized
from tests.ledger.books import assert_balanced, key_of, new_event, request
from tests.support import begin_payment, confirm

BUYER = "buyer"
HELD, CONFIRMED = OrderStatus.HELD, OrderStatus.CONFIRMED
RELEASED, EXPIRED = OrderStatus.RELEASED, OrderStatus.EXPIRED
REFUNDED, ABANDONED = OrderStatus.REFUNDED, OrderStatus.ABANDONED

# Two tiers, so that a step that moves only one of them is found.
ITEMS = ((1, 2), (2, 1))
UNITS = 3


async def pay(ledger: Ledger, key: OrderKey) -> object:
    attempt = await begin_payment(ledger, key, BUYER, "ok")
    return attempt and await confirm(ledger, key, attempt)


async def expire(ledger: Ledger, key: OrderKey) -> bool:
    """Whether it was this one's turn too: a sweep takes whatever is overdue."""
    return key in await ledger.expire(1_000)


Step = Callable[[Ledger, OrderKey], Awaitable[object]]
STEPS: dict[str, Step] = {
    "pay": pay,
    "release": lambda ledger, key: ledger.release(key, BUYER),
    "expire": expire,
    "refund": lambda ledger, key: ledger.refund(key),
    "fence": lambda ledger, key: ledger.fence([key]),
}

# From each beginning, where each step leads; a step that is not named leads nowhere.
BEGINNINGS: dict[str, tuple[OrderStatus, dict[str, OrderStatus]]] = {
    "held": (HELD, {"pay": CONFIRMED, "release": RELEASED}),
    "overdue": (HELD, {"expire": EXPIRED}),
    "confirmed": (CONFIRMED, {"refund": REFUNDED}),
    "paid": (CONFIRMED, {"refund": REFUNDED}),
    "released": (RELEASED, {}),
    "expired": (EXPIRED, {}),
    "refunded": (REFUNDED, {}),
    "abandoned": (ABANDONED, {}),
}


async def begin(ledger: Ledger, event: Event, beginning: str) -> OrderRequest:
    """An order that is there, in the only way it can get there."""
    order = request(
        event,
        *ITEMS,
        buyer=BUYER,
        status=CONFIRMED if beginning in {"confirmed", "refunded"} else HELD,
        hold_seconds=-1 if beginning in {"overdue", "expired"} else 600,
    )
    if beginning == "abandoned":
        await ledger.fence([key_of(order)])
    else:
        await ledger.place([order])
    step = {"paid": "pay", "released": "release", "expired": "expire", "refunded": "refund"}
    if beginning in step:
        await STEPS[step[beginning]](ledger, key_of(order))
    return order


async def status_of(ledger: Ledger, order: OrderRequest) -> OrderStatus:
    found = await ledger.get(key_of(order))
    assert found is not None
    return found.status


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_where_a_step_leads(
    ledger: Ledger, events: Events, beginning: str, step: str
) -> None:
    """Taken twice, for no step may count twice; the tiers' counters follow the orders."""
    event = await new_event(events, 10, 10)
    order = await begin(ledger, event, beginning)
    there, leads_to = BEGINNINGS[beginning]
    assert await status_of(ledger, order) is there
    for is_first in (True, False):
        done = await STEPS[step](ledger, key_of(order))
        assert bool(done) == (is_first and step in leads_to)
        arrived = leads_to.get(step, there)
        assert await status_of(ledger, order) is arrived
        assert await assert_balanced(ledger, event) == (
            UNITS * arrived.live,
            UNITS * (arrived is CONFIRMED),
        )


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_an_id_that_is_there_is_not_placed_again(
    ledger: Ledger, events: Events, beginning: str
) -> None:
    """Whatever became of it: the late worker is told, and nothing is counted."""
    event = await new_event(events, 10, 10)
    order = await begin(ledger, event, beginning)
    before = await ledger.get(key_of(order))
    books = await assert_balanced(ledger, event)
    (placement,) = await ledger.place([order])
    assert not placement.new
    assert placement.order == before
    assert await assert_balanced(ledger, event) == books


async def test_a_batch_places_what_is_new_and_finds_what_is_not(
    ledger: Ledger, events: Events
) -> None:
    event = await new_event(events, 100)
    orders = [request(event, (1, at + 1)) for at in range(6)]
    await ledger.place(orders[::2])
    placements = await ledger.place(orders)
    assert [placement.new for placement in placements] == [False, True] * 3
    assert [placement.order.id for placement in placements] == [order.order_id for order in orders]
    assert await assert_balanced(ledger, event) == (21, 0)


async def test_one_id_twice_in_a_batch_is_one_order(ledger: Ledger, events: Events) -> None:
    """As when a retry joins the batch of the first press."""
    event = await new_event(events, 100)
    order = request(event)
    placements = await ledger.place([order, order])
    assert [placement.order.id for placement in placements] == [order.order_id] * 2
    assert await assert_balanced(ledger, event) == (1, 0)


async def test_a_batch_that_does_not_fit_leaves_nothing(ledger: Ledger, events: Events) -> None:
    event = await new_event(events, 2, 10)
    with pytest.raises(ConstraintRefused) as refused:
        await ledger.place([request(event, (2, 5)), request(event, (1, 3))])
    assert refused.value.constraint == "tiers_stock"
    assert await assert_balanced(ledger, event) == (0, 0)


async def test_what_is_read_back_is_what_was_placed(ledger: Ledger, events: Events) -> None:
    event = await new_event(events, *[100] * 10)
    order = request(event, *((number, 10 * number) for number in range(1, 11)))
    (placement,) = await ledger.place([order])
    assert await ledger.get(key_of(order)) == placement.order
    assert placement.order.items == order.items
    assert placement.order.fingerprint == order.fingerprint


async def test_only_the_buyer_releases_and_pays(ledger: Ledger, events: Events) -> None:
    event = await new_event(events, 10)
    order = request(event, buyer=BUYER)
    await ledger.place([order])
    assert not await ledger.release(key_of(order), "somebody else")
    assert await begin_payment(ledger, key_of(order), "somebody else", "ok") is None
    assert await status_of(ledger, order) is HELD


async def test_an_order_is_paid_by_one_attempt_at_a_time(ledger: Ledger, events: Events) -> None:
    event = await new_event(events, 10)
    order = request(event, buyer=BUYER)
    key = key_of(order)
    await ledger.place([order])
    first = await begin_payment(ledger, key, BUYER, "ok")
    assert first == 1
    assert await begin_payment(ledger, key, BUYER, "ok") is None
    assert await ledger.move_payment(key, first, PaymentState.STARTED, PaymentState.DECLINED)
    assert not await ledger.move_payment(key, first, PaymentState.STARTED, PaymentState.DECLINED)
    assert await confirm(ledger, key, first) is None, "it was declined"
    second = await begin_payment(ledger, key, BUYER, "ok")
    assert second == 2
    assert await confirm(ledger, key, second) is not None
    assert await begin_payment(ledger, key, BUYER, "ok") is None


async def test_a_payment_of_a_hold_that_is_gone_is_let_go(ledger: Ledger, events: Events) -> None:
    """Authorised too late: the money must not stay with us."""
    event = await new_event(events, 10)
    order = request(event, buyer=BUYER)
    key = key_of(order)
    await ledger.place([order])
    attempt = await begin_payment(ledger, key, BUYER, "ok")
    assert attempt is not None
    assert await ledger.release(key, BUYER)
    assert await confirm(ledger, key, attempt) is None
    due = await ledger.payments_due(given_up_after_seconds=3_600, size=1_000)
    assert [(d.attempt, d.state) for d in due if d.key == key] == [(1, PaymentState.VOID_DUE)]


async def test_a_hold_that_ran_out_while_it_was_paid_is_not_confirmed(
    database: Database, ledger: Ledger, events: Events
) -> None:
    """Though no sweeper has come by yet: its seats may be promised to somebody else."""
    event = await new_event(events, 10)
    order = request(event, buyer=BUYER)
    key = key_of(order)
    await ledger.place([order])
    attempt = await begin_payment(ledger, key, BUYER, "ok")
    assert attempt is not None
    async with database.transaction("test") as connection:
        await connection.execute(
            text("UPDATE orders SET expires_at = now() WHERE event_id = :event"),
            {"event": event.id},
        )
    assert await confirm(ledger, key, attempt) is None
    assert await status_of(ledger, order) is HELD
    due = await ledger.payments_due(given_up_after_seconds=3_600, size=1_000)
    assert [found.state for found in due if found.key == key] == [PaymentState.VOID_DUE]


@pytest.mark.parametrize("state", [PaymentState.AUTHORIZED, PaymentState.CAPTURED])
async def test_a_refund_gives_the_money_back_wherever_it_is(
    ledger: Ledger, events: Events, state: PaymentState
) -> None:
    event = await new_event(events, 10, 10)
    order = await begin(ledger, event, "paid")
    key = key_of(order)
    if state is PaymentState.CAPTURED:
        assert await ledger.move_payment(key, 1, PaymentState.AUTHORIZED, state)
    assert await ledger.refund(key)
    found = await ledger.payments_due(given_up_after_seconds=3_600, size=1_000)
    assert [due.state for due in found if due.key == key] == [PaymentState.REFUND_DUE]


async def test_holds_expire_oldest_first_and_as_many_as_asked(
    ledger: Ledger, events: Events
) -> None:
    await ledger.expire(1_000_000)
    event = await new_event(events, 10)
    overdue = [request(event, hold_seconds=-at) for at in (3, 1, 2)]
    await ledger.place([*overdue, request(event)])
    assert await ledger.oldest_overdue_seconds() >= 3
    # The two that are overdue longest, told in any order.
    assert set(await ledger.expire(2)) == {key_of(overdue[0]), key_of(overdue[2])}
    assert await ledger.expire(2) == [key_of(overdue[1])]
    assert await ledger.expire(2) == []
    assert await assert_balanced(ledger, event) == (1, 0)


async def test_a_sweeper_passes_by_what_another_has_in_hand(
    database: Database, ledger: Ledger, events: Events
) -> None:
    await ledger.expire(1_000_000)
    event = await new_event(events, 10)
    in_hand, free = request(event, hold_seconds=-2), request(event, hold_seconds=-1)
    await ledger.place([in_hand, free])
    async with database.transaction("test") as connection:
        await connection.execute(
            text("SELECT FROM orders WHERE id = :order FOR UPDATE"),
            {"order": in_hand.order_id.hex()},
        )
        assert await ledger.expire(10) == [key_of(free)]
    assert await ledger.expire(10) == [key_of(in_hand)]


async def test_only_ids_that_never_arrived_are_fenced(ledger: Ledger, events: Events) -> None:
    event = await new_event(events, 10)
    here, there = request(event), request(event)
    await ledger.place([here])
    assert await ledger.fence([key_of(here), key_of(there)]) == [key_of(there)]
    assert await ledger.known(event.id, [here.order_id, there.order_id]) == {
        here.order_id: (HELD, here.fingerprint),
        there.order_id: (ABANDONED, bytes(8)),
    }


async def test_an_attempt_that_was_let_go_is_not_the_one_that_confirmed(
    ledger: Ledger, events: Events
) -> None:
    """Though both are of one order and in one batch: its authorisation is to be let go once more,
    and its order was sold once. Seen red with the confirmed told apart by their orders alone.
    """
    event = await new_event(events, 5)
    order = request(event, buyer=BUYER)
    await ledger.place([order])
    key = key_of(order)
    forgotten = await begin_payment(ledger, key, BUYER, "slow")
    assert forgotten is not None
    for leave, enter in pairwise(
        (PaymentState.STARTED, PaymentState.VOID_DUE, PaymentState.VOIDED)
    ):
        assert await ledger.move_payment(key, forgotten, leave, enter)
    attempt = await begin_payment(ledger, key, BUYER, "ok")
    assert attempt is not None
    late, paid = await ledger.confirm_orders(
        [PaymentAuthorized(key, forgotten), PaymentAuthorized(key, attempt)]
    )
    assert late.held_seconds is None
    assert paid.held_seconds is not None

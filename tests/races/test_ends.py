"""The ends of an order raced against each other: one winner each time, and its units back once.

Each race runs for many orders at once, on processes that know nothing of each other.

Seen red with a give-back that leaves the id at the gate, and with `status = …` or the deadline
taken out of RELEASE, REFUND, CONFIRM and MOVE_PAYMENT in turn.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import text

from onsale.domain.errors import OrderNotPayable, PaymentDeclined
from onsale.domain.event import Event, PaymentKind
from onsale.domain.order import Order, OrderStatus
from onsale.ledger.ledger import PAYMENT_ATTEMPTS_MAX, OrderKey
from onsale.sales.service import Service
from onsale.workers import outbox, sweeper
from tests.races.books import assert_balanced, code_of, place
from tests.support import MakeEvent, count_rows, wait_until

RACES = 40

Racer = Callable[[OrderKey, str], Coroutine[Any, Any, Order | None]]


async def _holds(services: Sequence[Service], event: Event, number: int = RACES) -> list[Order]:
    return await asyncio.gather(
        *(place(services[0], event.id, f"buyer-{n}", "press-1", 2) for n in range(number))
    )


async def _race(orders: Sequence[Order], *racers: Racer) -> list[tuple[str, ...]]:
    """Let the racers at every order at once; per order what each of them was told."""
    running = [
        racer(OrderKey(order.event_id, order.id), order.buyer_id)
        for order in orders
        for racer in racers
    ]
    told = [code_of(one) for one in await asyncio.gather(*running, return_exceptions=True)]
    width = len(racers)
    return [tuple(told[at : at + width]) for at in range(0, len(told), width)]


async def _statuses(service: Service, event: Event) -> Counter[str]:
    async with service.database.transaction("test") as connection:
        rows = await connection.execute(
            text("SELECT status::text FROM orders WHERE event_id = :event"), {"event": event.id}
        )
        return Counter(status for (status,) in rows)


async def _payments(service: Service, event: Event) -> Counter[str]:
    async with service.database.transaction("test") as connection:
        rows = await connection.execute(
            text("SELECT state::text FROM payments WHERE event_id = :event"), {"event": event.id}
        )
        return Counter(state for (state,) in rows)


async def _expire_in(service: Service, orders: Sequence[Order], *ms: int) -> None:
    """Let the holds expire so many milliseconds from now, by the ledger's clock."""
    async with service.database.transaction("test") as connection:
        for order, in_ms in zip(orders, ms, strict=True):
            await connection.execute(
                text(
                    "UPDATE orders SET expires_at = now() + make_interval(secs => :seconds)"
                    " WHERE event_id = :event AND id = :id"
                ),
                {"seconds": in_ms / 1000, "event": order.event_id, "id": order.id.hex()},
            )


async def _expire_all(service: Service, event: Event) -> None:
    """Sweep until no hold of the event is left."""

    async def none_held() -> bool:
        await sweeper.run_once(service)
        return not (await _statuses(service, event))["held"]

    await wait_until(none_held, poll_s=0.005)


def _pay(service: Service, method: str = "ok") -> Racer:
    return lambda key, buyer_id: service.paying.pay(key, buyer_id, method)


def _release(service: Service) -> Racer:
    return service.ending.release


def _refund(service: Service) -> Racer:
    return lambda key, _: service.ending.refund(key)


async def test_pay_against_release(services: list[Service], make_event: MakeEvent) -> None:
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    told = Counter(await _race(orders, _pay(services[0]), _release(services[1])))

    assert set(told) <= {
        ("confirmed", "order_not_releasable"),
        ("order_not_payable", "done"),
    }
    paid = told["confirmed", "order_not_releasable"]
    assert await _statuses(services[0], event) == _counted(confirmed=paid, released=RACES - paid)
    (tier,) = await assert_balanced(services[0], event.id)
    assert (tier.sold_units, tier.held_units) == (2 * paid, 0)
    # What was authorised for an order that was released is let go, and nothing else is.
    await outbox.run_once(services[0])
    payments = await _payments(services[0], event)
    assert payments["captured"] == paid
    assert set(payments) <= {"captured", "voided"}


async def test_pay_against_expire(services: list[Service], make_event: MakeEvent) -> None:
    """Deadlines lie all around the payments; the first hold is over before, the last long after."""
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    await _expire_in(services[0], orders, -1, *(3 * n for n in range(RACES - 2)), 60_000)
    sweeping = asyncio.create_task(_expire_all(services[2], event))
    told = [one for (one,) in await _race(orders, _pay(services[0]))]
    await sweeping

    assert (told[0], told[-1]) == ("order_expired", "confirmed")
    outcomes = Counter(told)
    assert await _statuses(services[0], event) == _counted(
        confirmed=outcomes["confirmed"], expired=outcomes["order_expired"]
    )
    (tier,) = await assert_balanced(services[0], event.id)
    assert (tier.sold_units, tier.held_units) == (2 * outcomes["confirmed"], 0)
    await outbox.run_once(services[0])
    payments = await _payments(services[0], event)
    assert payments["captured"] == outcomes["confirmed"]
    assert set(payments) <= {"captured", "voided"}


async def test_a_payment_that_takes_longer_than_the_hold(
    services: list[Service], make_event: MakeEvent
) -> None:
    """Begun in time and authorised too late: it is refused by the deadline, swept or not."""
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    await _expire_in(services[0], orders, *[100] * RACES)
    told = await _race(orders, _pay(services[0], "slow"))

    assert set(told) == {("order_expired",)}
    assert await _statuses(services[0], event) == {"held": RACES}
    await _expire_all(services[2], event)
    await outbox.run_once(services[0])
    assert set(await _payments(services[0], event)) <= {"voided"}
    (tier,) = await assert_balanced(services[0], event.id)
    assert tier.available_units == tier.capacity_units


async def test_release_against_expire(services: list[Service], make_event: MakeEvent) -> None:
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    await _expire_in(services[0], orders, -1, *(3 * n for n in range(RACES - 2)), 60_000)
    sweeping = asyncio.create_task(_expire_all(services[2], event))
    told = [one for (one,) in await _race(orders, _release(services[1]))]
    await sweeping

    assert (told[0], told[-1]) == ("order_expired", "done")
    outcomes = Counter(told)
    assert await _statuses(services[0], event) == _counted(
        released=outcomes["done"], expired=outcomes["order_expired"]
    )
    (tier,) = await assert_balanced(services[0], event.id)
    assert tier.available_units == tier.capacity_units


async def test_double_pay(services: list[Service], make_event: MakeEvent) -> None:
    """Four presses of one method, at two processes: every one is told that the order is paid."""
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    told = await _race(orders, *(_pay(services[n % 2]) for n in range(4)))

    assert set(told) == {("confirmed",) * 4}
    await outbox.run_once(services[0])
    assert await _payments(services[0], event) == {"captured": RACES}
    (tier,) = await assert_balanced(services[0], event.id)
    assert tier.sold_units == 2 * RACES


async def test_pay_with_two_methods(services: list[Service], make_event: MakeEvent) -> None:
    """One of them pays; the other is told that it does, or did. Nobody is charged twice."""
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    told = await _race(orders, _pay(services[0], "ok"), _pay(services[1], "slow"))

    for one in told:
        assert "confirmed" in one
        assert set(one) <= {"confirmed", "request_in_progress"}
    await outbox.run_once(services[0])
    assert await _payments(services[0], event) == {"captured": RACES}
    (tier,) = await assert_balanced(services[0], event.id)
    assert tier.sold_units == 2 * RACES


async def test_a_declined_method_leaves_the_hold_to_another(
    services: list[Service], make_event: MakeEvent
) -> None:
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    told = await _race(orders, _pay(services[0], "declined"), _pay(services[1], "ok"))

    for declined, paid in told:
        assert declined in {"payment_declined", "request_in_progress", "confirmed"}
        assert paid in {"confirmed", "request_in_progress"}
    assert await _statuses(services[0], event) <= _counted(held=RACES, confirmed=RACES)
    again = await _race(orders, _pay(services[2], "ok"))
    assert set(again) == {("confirmed",)}
    await assert_balanced(services[0], event.id)


async def test_double_release(services: list[Service], make_event: MakeEvent) -> None:
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    told = await _race(orders, *(_release(services[n % 3]) for n in range(4)))

    assert set(told) == {("done",) * 4}
    assert await _statuses(services[0], event) == {"released": RACES}
    (tier,) = await assert_balanced(services[0], event.id)
    assert tier.available_units == tier.capacity_units


async def test_refund_against_refund(services: list[Service], make_event: MakeEvent) -> None:
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    await _race(orders, _pay(services[0]))
    await outbox.run_once(services[0])
    told = await _race(orders, *(_refund(services[n % 3]) for n in range(4)))

    assert set(told) == {("refunded",) * 4}
    assert await _statuses(services[0], event) == {"refunded": RACES}
    await outbox.run_once(services[0])
    assert await _payments(services[0], event) == {"refunded": RACES}
    (tier,) = await assert_balanced(services[0], event.id)
    assert tier.available_units == tier.capacity_units


async def test_refund_against_capture(services: list[Service], make_event: MakeEvent) -> None:
    """Whether the money was taken before or not, it ends where it came from."""
    event = await make_event(1_000, payment=PaymentKind.CARD)
    orders = await _holds(services, event)
    await _race(orders, _pay(services[0]))
    _, told = await asyncio.gather(
        outbox.run_once(services[2]), _race(orders, _refund(services[1]))
    )
    assert set(told) == {("refunded",)}

    await outbox.run_once(services[2])
    assert await _payments(services[0], event) == {"refunded": RACES}
    await assert_balanced(services[0], event.id)


async def test_units_that_came_back_are_sold_once(
    services: list[Service], make_event: MakeEvent
) -> None:
    """Holders release while a crowd waits: every seat finds one new owner and no second one."""
    event = await make_event(2 * RACES, payment=PaymentKind.CARD)
    orders = await _holds(services, event)

    async def want(number: int) -> Order:
        return await place(services[number % 3], event.id, f"waiting-{number}", "press-1", 2)

    waiting = [want(number) for number in range(100)]
    releasing = [
        services[1].ending.release(OrderKey(event.id, order.id), order.buyer_id) for order in orders
    ]
    await asyncio.gather(*waiting, *releasing, return_exceptions=True)
    await assert_balanced(services[0], event.id)
    # A process may refuse from a picture of a quarter of a second; then it asks the gate again.
    released_at_seconds = monotonic()
    await wait_until(lambda: _pictures_are_younger(services, event, released_at_seconds))
    # Those who came too early press again: now there is a seat for each.
    early = [want(number) for number in range(100)]
    found = Counter(map(code_of, await asyncio.gather(*early, return_exceptions=True)))
    assert found == {"held": RACES, "sold_out": 100 - RACES}
    (tier,) = await assert_balanced(services[0], event.id)
    assert (tier.held_units, tier.available_units) == (2 * RACES, 0)
    assert (
        await count_rows(
            services[0], "SELECT count(*) FROM orders WHERE event_id = :event", event=event.id
        )
        == 2 * RACES
    )


async def _pictures_are_younger(
    services: list[Service], event: Event, moment_seconds: float
) -> bool:
    pictures = [
        sale.view
        for service in services
        for sale in service.catalog.sales()
        if sale.event.id == event.id and sale.fresh
    ]
    return all(view is not None and view.read_at_seconds > moment_seconds for view in pictures)


def _counted(**statuses: int) -> Counter[str]:
    return Counter({OrderStatus(name).value: number for name, number in statuses.items() if number})


async def test_payments_for_one_order_have_an_end(
    services: list[Service], make_event: MakeEvent
) -> None:
    """Each attempt leaves a row: seen red, without the bound the 51st was declined as well."""
    event = await make_event(10, payment=PaymentKind.CARD)
    order = await place(services[0], event.id, "buyer-1", "press-1", 1)
    key = OrderKey(event.id, order.id)
    for _ in range(PAYMENT_ATTEMPTS_MAX):
        with pytest.raises(PaymentDeclined):
            await services[0].paying.pay(key, "buyer-1", "declined")
    with pytest.raises(OrderNotPayable):
        await services[0].paying.pay(key, "buyer-1", "ok")
    await services[0].ending.release(key, "buyer-1")

"""Payments that the provider has yet to hear of: taken, let go, given back, each once."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import text

from onsale.domain.errors import PaymentDeclined
from onsale.domain.event import Event, PaymentKind
from onsale.domain.order import Order, OrderStatus
from onsale.ledger.ledger import OrderKey, payment_key
from onsale.payments.provider import AnswerLost
from onsale.payments.simulated import SimulatedProvider
from onsale.sales.service import Service
from onsale.workers import outbox
from tests.races.books import assert_balanced, place
from tests.support import MakeEvent, begin_payment, wait_until

BUYER = "buyer-1"


async def _states(service: Service) -> list[str]:
    """The states of all payments, oldest attempt first."""
    async with service.database.transaction("test") as connection:
        rows = await connection.execute(text("SELECT state::text FROM payments ORDER BY attempt"))
        return [state for (state,) in rows]


async def _forget_payments(service: Service) -> None:
    """Let the payments have been touched last an hour ago."""
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text("UPDATE payments SET changed_at = changed_at - interval '1 h'")
        )


@pytest.fixture
async def event(make_event: MakeEvent) -> Event:
    return await make_event(100, payment=PaymentKind.CARD)


@pytest.fixture
async def held(service: Service, event: Event) -> Order:
    """A hold of `BUYER`."""
    return await place(service, event.id, BUYER, "press-1", 2)


@pytest.fixture
def key(held: Order) -> OrderKey:
    return OrderKey(held.event_id, held.id)


@pytest.fixture
def asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the provider was told: (call, name of the payment)."""
    calls: list[tuple[str, str]] = []
    for call in ("capture", "void", "refund"):

        async def told(name: str, call: str = call) -> None:
            calls.append((call, name))

        monkeypatch.setattr(service.provider, call, told)
    return calls


async def test_a_confirmed_payment_is_captured_once(
    service: Service, key: OrderKey, asked: list[tuple[str, str]]
) -> None:
    await service.paying.pay(key, BUYER, "ok")
    assert await _states(service) == ["authorized"]
    assert await outbox.run_once(service) == 1
    assert await _states(service) == ["captured"]
    assert await outbox.run_once(service) == 0
    assert asked == [("capture", payment_key(key, 1))]


async def test_a_declined_payment_is_nobodys_business(
    service: Service, key: OrderKey, asked: list[tuple[str, str]]
) -> None:
    with pytest.raises(PaymentDeclined):
        await service.paying.pay(key, BUYER, "declined")
    assert await outbox.run_once(service) == 0
    assert (await _states(service), asked) == (["declined"], [])


async def test_a_refund_gives_back_what_was_captured(
    service: Service, key: OrderKey, asked: list[tuple[str, str]]
) -> None:
    await service.paying.pay(key, BUYER, "ok")
    await outbox.run_once(service)
    await service.ending.refund(key)
    assert await outbox.run_once(service) == 1
    assert await _states(service) == ["refunded"]
    assert asked[0] == ("capture", payment_key(key, 1))
    assert asked[-1] == ("refund", payment_key(key, 1))
    await assert_balanced(service, key.event_id)


async def test_a_refund_before_the_capture_is_captured_and_given_back(
    service: Service, key: OrderKey, asked: list[tuple[str, str]]
) -> None:
    """Nobody knows whether a capture was under way, so it is made certain first."""
    await service.paying.pay(key, BUYER, "ok")
    await service.ending.refund(key)
    assert await outbox.run_once(service) == 1
    name = payment_key(key, 1)
    assert (await _states(service), asked) == (["refunded"], [("capture", name), ("refund", name)])


async def test_a_refund_during_the_capture_gives_the_money_back(
    service: Service, key: OrderKey, asked: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red with a refund that lets an authorised payment go: it was captured, and kept."""
    await service.paying.pay(key, BUYER, "ok")
    capture = service.provider.capture

    async def refunded_meanwhile(name: str) -> None:
        await service.ending.refund(key)
        await capture(name)

    with monkeypatch.context() as patched:
        patched.setattr(service.provider, "capture", refunded_meanwhile)
        assert await outbox.run_once(service) == 0
    assert await _states(service) == ["refund_due"]
    assert await outbox.run_once(service) == 1
    assert (await _states(service), asked[-1]) == (["refunded"], ("refund", payment_key(key, 1)))


async def test_a_payment_that_never_answered_is_let_go(
    service: Service, key: OrderKey, asked: list[tuple[str, str]]
) -> None:
    """Nobody knows whether it was authorised; the hold stands and another method pays for it."""
    with pytest.raises(PaymentDeclined):
        await service.paying.pay(key, BUYER, "timeout")
    assert await outbox.run_once(service) == 1
    assert (await _states(service), asked) == (["voided"], [("void", payment_key(key, 1))])
    paid = await service.paying.pay(key, BUYER, "ok")
    assert paid.status is OrderStatus.CONFIRMED


async def test_an_attempt_whose_process_died_is_let_go(
    service: Service, key: OrderKey, asked: list[tuple[str, str]]
) -> None:
    """Begun and forgotten, maybe authorised: a crash between the provider and the ledger."""
    attempt = await begin_payment(service.ledger, key, BUYER, "ok")
    assert attempt == 1
    assert await outbox.run_once(service) == 0, "it may still be under way"
    await _forget_payments(service)
    while await outbox.run_once(service):
        pass
    assert (await _states(service), asked) == (["voided"], [("void", payment_key(key, 1))])
    await assert_balanced(service, key.event_id)


async def test_a_buyer_does_not_wait_for_the_outbox_after_a_crash(
    service: Service, key: OrderKey, asked: list[tuple[str, str]]
) -> None:
    """The forgotten attempt makes way for a new one, of any method, and is let go after."""
    await begin_payment(service.ledger, key, BUYER, "slow")
    await _forget_payments(service)
    paid = await service.paying.pay(key, BUYER, "ok")
    assert paid.status is OrderStatus.CONFIRMED
    while await outbox.run_once(service):
        pass
    assert await _states(service) == ["voided", "captured"]
    assert sorted(asked) == [("capture", payment_key(key, 2)), ("void", payment_key(key, 1))]


async def test_an_authorisation_that_comes_too_late_confirms_nothing(
    service: Service, key: OrderKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outbox had let the attempt go while the provider was still at it."""
    at_provider, may = asyncio.Event(), asyncio.Event()

    async def authorize(self: SimulatedProvider, *_: object) -> None:
        at_provider.set()
        await may.wait()

    with monkeypatch.context() as patched:
        patched.setattr(SimulatedProvider, "authorize", authorize)
        paying = asyncio.create_task(service.paying.pay(key, BUYER, "ok"))
        await at_provider.wait()
        await _forget_payments(service)
        await outbox.run_once(service)
        may.set()
        with pytest.raises(PaymentDeclined):
            await paying
    assert (await service.paying.pay(key, BUYER, "ok")).status is OrderStatus.CONFIRMED
    while await outbox.run_once(service):
        pass
    assert await _states(service) == ["voided", "captured"]
    await assert_balanced(service, key.event_id)


async def test_a_provider_that_does_not_answer_is_asked_again(
    service: Service, key: OrderKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.paying.pay(key, BUYER, "ok")

    async def lost(name: str) -> None:
        raise AnswerLost

    async def never(name: str) -> None:
        await asyncio.Event().wait()

    for answer in (lost, never):
        with monkeypatch.context() as patched:
            patched.setattr(service.provider, "capture", answer)
            assert await outbox.run_once(service) == 0
            assert await _states(service) == ["authorized"]
    assert await outbox.run_once(service) == 1
    assert await _states(service) == ["captured"]


async def test_two_at_once_settle_each_payment_once(
    service: Service, other: Service, event: Event
) -> None:
    """More than two batches; to the provider a repeated call is the same one."""
    number = 2 * outbox.BATCH_PAYMENTS_MAX + 50
    wide = await service.organising.set_capacity(event.id, "t1", number)
    orders = await asyncio.gather(
        *(place(service, wide.id, f"buyer-{n}", "press-1", 1) for n in range(number))
    )
    await asyncio.gather(
        *(service.paying.pay(OrderKey(event.id, o.id), o.buyer_id, "ok") for o in orders)
    )
    settled = await asyncio.gather(*(outbox.run_once(one) for one in (service, other)))

    async def all_settled() -> bool:
        await outbox.run_once(other)
        return Counter(await _states(service)) == {"captured": number}

    await wait_until(all_settled)
    assert sum(settled) <= number

"""The webhooks' worker, with real receivers: everything arrives, nothing waits for one that hangs.

Seen red with one lane for all endpoints, with a claim that is for good, with messages marked before
they are sent, without a last attempt, and with a 410 that is an answer like any other.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from onsale.domain.errors import LedgerUnavailable
from onsale.domain.event import Event, PaymentKind
from onsale.domain.webhook import DeliveryState, WebhookKind
from onsale.embedded import spawn_child, stop_child
from onsale.http.schemas import OrderOut, WebhookMessage
from onsale.ledger.ledger import OrderKey
from onsale.ledger.webhooks import Delivery
from onsale.observability import metrics
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.webhooks.signing import new_secret
from onsale.workers import sweeper
from onsale.workers.webhooks import Courier, pause_seconds
from tests.races.books import place
from tests.support import MakeEvent, wait_until
from tests.webhooks.receiver import Receiver

SECRET = new_secret()
BUYER = "buyer-1"


@pytest.fixture(scope="session")
def settings(settings: Settings) -> Settings:
    """Receivers on loopback, and few attempts. Pauses are as long as ever: tests let time pass."""
    return settings.model_copy(
        update={"webhook_private_targets_allowed": True, "webhook_attempts_max": 3}
    )


@pytest.fixture
async def couriers(service: Service, other: Service, exits: AsyncExitStack) -> list[Courier]:
    """Of two processes."""
    return [await exits.enter_async_context(Courier.of(one)) for one in (service, other)]


@pytest.fixture
def courier(couriers: list[Courier]) -> Courier:
    return couriers[0]


@pytest.fixture
async def event(make_event: MakeEvent) -> Event:
    return await make_event(1_000, payment=PaymentKind.CARD)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


async def register(service: Service, receiver: Receiver, *kinds: WebhookKind) -> str:
    """The id of an endpoint there, told of everything unless asked otherwise."""
    kinds = kinds or tuple(WebhookKind)
    return (await service.webhooks.register(receiver.url, SECRET, kinds)).id


async def deliver(*couriers: Courier) -> None:
    """Whatever is due now."""
    await asyncio.gather(*(courier.run_once() for courier in couriers))
    await asyncio.gather(*(courier.finish() for courier in couriers))


async def deliveries(service: Service) -> list[Delivery]:
    """All of them, oldest first."""
    return (await service.webhooks.page(None, None, 1_000))[::-1]


async def states(service: Service) -> Counter[str]:
    return Counter(delivery.state.value for delivery in await deliveries(service))


async def make_due(service: Service) -> None:
    """Let a day pass for messages that wait."""
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text("UPDATE webhook_deliveries SET next_attempt_at = now() - interval '1 s'")
        )


# -- what is told


async def test_the_life_of_orders_is_told(
    service: Service, courier: Courier, receiver: Receiver, make_event: MakeEvent, event: Event
) -> None:
    """Each kind once for each order that went through it, signed, and as a buyer would see it."""
    await register(service, receiver)
    names = ("refunded", "released", "expired")
    refunded, released, expired = [
        await place(service, event.id, f"{BUYER}-{name}", name, 2) for name in names
    ]
    await service.paying.pay(OrderKey(event.id, refunded.id), refunded.buyer_id, "ok")
    await service.ending.refund(OrderKey(event.id, refunded.id))
    await service.ending.release(OrderKey(event.id, released.id), released.buyer_id)
    async with service.database.transaction("test") as connection:
        await connection.execute(
            text("UPDATE orders SET expires_at = now() - interval '1 s' WHERE status = 'held'")
        )
    await sweeper.run_once(service)
    await deliver(courier)

    told: dict[str, set[str]] = {}
    for received in receiver.received:
        received.verified(SECRET)
        message = WebhookMessage.model_validate_json(received.body)
        told.setdefault(message.data.id, set()).add(message.type)
        assert message.data.status == message.type.status
        assert received.headers["content-type"] == "application/json"
    assert told == {
        refunded.id.hex(): {"order.held", "order.confirmed", "order.refunded"},
        released.id.hex(): {"order.held", "order.released"},
        expired.id.hex(): {"order.held", "order.expired"},
    }
    assert len(receiver.received) == len({received.id for received in receiver.received}) == 7
    assert await states(service) == {"delivered": 7}

    held = next(
        WebhookMessage.model_validate_json(received.body)
        for received in receiver.received
        if received.message["data"]["id"] == refunded.id.hex()
        and received.message["type"] == "order.held"
    )
    assert held.data == OrderOut.of(refunded, event)
    assert held.timestamp == refunded.created_at


async def test_nothing_is_told_twice(
    service: Service, courier: Courier, receiver: Receiver, event: Event
) -> None:
    await register(service, receiver)
    for _ in range(3):
        await place(service, event.id, BUYER, "press-1", 1)
        await deliver(courier)
    assert receiver.kinds() == ["order.held"]


async def test_every_endpoint_is_told(service: Service, courier: Courier, event: Event) -> None:
    with Receiver() as one, Receiver() as two, Receiver() as three:
        for receiver in (one, two, three):
            await register(service, receiver)
        for number in range(10):
            await place(service, event.id, f"buyer-{number}", "press-1", 1)
        await deliver(courier)
        ids = [received.id for r in (one, two, three) for received in r.received]
    assert len(ids) == len(set(ids)) == 30


async def test_two_workers_deliver_once_in_calm(
    service: Service, couriers: list[Courier], receiver: Receiver, event: Event
) -> None:
    """More than either takes at once."""
    await register(service, receiver)
    placing = [place(service, event.id, f"buyer-{n}", "press-1", 1) for n in range(120)]
    await asyncio.gather(*placing)
    await deliver(*couriers)
    assert len(receiver.received) == len({received.id for received in receiver.received}) == 120
    assert await states(service) == {"delivered": 120}


# -- receivers that hang


async def test_a_receiver_that_hangs_delays_nobody_else(
    service: Service, courier: Courier, receiver: Receiver, event: Event
) -> None:
    """Neither those who are told the same, nor those who buy meanwhile."""
    with Receiver(hangs=True) as hanging:
        for one in (hanging, receiver):
            await register(service, one)

        async def buy(first: int) -> None:
            for number in range(first, first + 50):
                await place(service, event.id, f"buyer-{number}", "press-1", 1)

        async def told(messages: int) -> None:
            async def arrived() -> bool:
                await courier.run_once()
                return len(receiver.received) == messages

            await wait_until(arrived)

        await buy(0)
        await told(50)
        await buy(50)
        await told(100)
        in_flight_max = service.settings.webhooks_in_flight_max
        assert len(hanging.received) == in_flight_max, "and its lane is as wide as it may be"
        hanging.go_on()
        await courier.finish()
        assert len({received.id for received in hanging.received}) == 100
    assert await states(service) == {"delivered": 200}


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again(
    settings: Settings, service: Service, courier: Courier, event: Event
) -> None:
    with Receiver(hangs=True) as receiver:
        await register(service, receiver)
        await place(service, event.id, BUYER, "press-1", 1)
        impatient = Service.of(settings.model_copy(update={"webhook_timeout_seconds": 0.05}))
        async with Courier.of(impatient) as in_haste:
            await deliver(in_haste)
        await impatient.close()
        (waiting,) = await deliveries(service)
        assert (waiting.state, waiting.last_error) == ("pending", "no answer within 0.05 s")
        receiver.go_on()
        await make_due(service)
        await deliver(courier)
        first, again = receiver.received
    assert (first.id, first.body) == (again.id, again.body)
    assert await states(service) == {"delivered": 1}


# -- receivers that refuse


async def test_it_is_given_up_after_the_last_attempt_and_sent_again_when_asked(
    service: Service, courier: Courier, event: Event
) -> None:
    with Receiver([500, 503, 404, 200]) as receiver:
        await register(service, receiver)
        await place(service, event.id, BUYER, "press-1", 1)

        for _ in range(3):
            await deliver(courier)
            await deliver(courier)
            await make_due(service)
        (dead,) = await service.webhooks.page(DeliveryState.DEAD, None, 10)
        assert (dead.attempts, dead.last_error) == (3, "answered 404")
        await deliver(courier)
        assert len(receiver.received) == 3, "once after each pause, and dead is dead"

        await service.webhooks.resend(dead.id)
        await deliver(courier)
        assert len({(received.id, received.body) for received in receiver.received}) == 1
        for received in receiver.received:
            assert received.verified(SECRET)["type"] == "order.held"
    (sent,) = await deliveries(service)
    assert (sent.id, sent.state, sent.attempts) == (dead.id, "delivered", 1)
    assert sent.last_error is None


async def test_one_that_refuses_does_not_keep_its_other_messages(
    service: Service, courier: Courier, event: Event
) -> None:
    with Receiver([500, 200]) as receiver:
        await register(service, receiver)
        for number in range(20):
            await place(service, event.id, f"buyer-{number}", "press-1", 1)
        await deliver(courier)
        assert await states(service) == {"delivered": 19, "pending": 1}
        await make_due(service)
        await deliver(courier)
    assert await states(service) == {"delivered": 20}
    assert len(receiver.received) == 21


async def test_one_that_is_gone_is_left_alone(
    service: Service, courier: Courier, receiver: Receiver, event: Event
) -> None:
    """Until it is enabled: then what waited for it is sent."""
    with Receiver([410, 200]) as gone:
        endpoint_id = await register(service, gone)
        await register(service, receiver)
        await place(service, event.id, BUYER, "press-1", 1)
        await deliver(courier)
        await place(service, event.id, BUYER, "press-2", 1)
        await make_due(service)
        await deliver(courier)
        assert (len(gone.received), len(receiver.received)) == (1, 2)

        await service.webhooks.enable(endpoint_id)
        await deliver(courier)
        assert [received.id for received in gone.received] == [gone.received[0].id] * 2
    assert await states(service) == {"delivered": 3}


async def test_a_target_that_is_not_allowed_any_more(
    settings: Settings, service: Service, receiver: Receiver, event: Event
) -> None:
    """What stands in the ledger is no permission."""
    await register(service, receiver)
    await place(service, event.id, BUYER, "press-1", 1)
    strict = Service.of(settings.model_copy(update={"webhook_private_targets_allowed": False}))
    async with Courier.of(strict) as courier:
        await deliver(courier)
    await strict.close()
    (waiting,) = await deliveries(service)
    assert waiting.last_error == "the URL must begin with https://"
    assert receiver.connections == 0


# -- crashes


async def test_a_crash_between_sending_and_settling_sends_the_same_again(
    service: Service,
    couriers: list[Courier],
    receiver: Receiver,
    event: Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await register(service, receiver)
    await place(service, event.id, BUYER, "press-1", 1)
    courier, other = couriers

    async def ledger_is_away(*_: object) -> None:
        raise LedgerUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(type(service.webhooks), "mark_delivered", ledger_is_away)
        await deliver(courier)
    assert await states(service) == {"pending": 1}
    await deliver(other)
    assert len(receiver.received) == 1, "whoever has it in hand may still be at it"
    await make_due(service)
    await deliver(other)
    first, again = receiver.received
    assert (first.id, first.body) == (again.id, again.body)
    assert await states(service) == {"delivered": 1}


@contextmanager
def worker_process(settings: Settings, folder: Path) -> Iterator[int]:
    """`onsale worker webhooks`, as it runs in production; its process id."""
    child = spawn_child(
        [sys.executable, "-m", "onsale", "worker", "webhooks"],
        env={
            **os.environ,
            "ONSALE_DATABASE_URL": settings.database_url,
            "ONSALE_REDIS_URL": settings.redis_url,
            "ONSALE_WORKER_METRICS_PORT": "0",
            "ONSALE_WEBHOOK_PRIVATE_TARGETS_ALLOWED": "true",
        },
        log_path=folder / "worker.log",
    )
    try:
        yield child.pid
    finally:
        stop_child(child)


async def test_a_worker_that_is_killed_while_it_waits_for_the_answer(
    settings: Settings, service: Service, event: Event, tmp_path: Path
) -> None:
    """The receiver has it, the ledger does not know, and the next process sends it once more."""
    with Receiver(hangs=True) as receiver:
        await register(service, receiver)
        await place(service, event.id, BUYER, "press-1", 1)

        async def sent(times: int) -> None:
            async def has_them() -> bool:
                return len(receiver.received) == times

            await wait_until(has_them)

        with worker_process(settings, tmp_path) as pid:
            await sent(1)
            os.kill(pid, signal.SIGKILL)
        assert await states(service) == {"pending": 1}
        receiver.go_on()
        await make_due(service)
        with worker_process(settings, tmp_path):
            await sent(2)

            async def is_delivered() -> bool:
                return await states(service) == {"delivered": 1}

            await wait_until(is_delivered)
        first, again = receiver.received
    assert (first.id, first.body) == (again.id, again.body)


async def test_a_worker_that_is_stopped_leaves_what_is_under_way_due(
    service: Service, event: Event
) -> None:
    with Receiver(hangs=True) as receiver:
        await register(service, receiver)
        await place(service, event.id, BUYER, "press-1", 1)
        async with Courier.of(service) as courier:
            await courier.run_once()

            async def under_way() -> bool:
                return bool(receiver.received)

            await wait_until(under_way)
    (waiting,) = await deliveries(service)
    assert (waiting.state, waiting.attempts) == ("pending", 1)
    assert waiting.next_attempt_at is not None


# -- pauses and figures


def test_pauses_grow_up_to_a_day_and_differ() -> None:
    settings = Settings()
    for attempt, longest_seconds in enumerate(
        (5, 20, 80, 320, 1_280, 5_120, 20_480, 81_920, 86_400), start=1
    ):
        pauses = {pause_seconds(settings, attempt) for _ in range(50)}
        assert len(pauses) > 1
        assert all(p is not None and longest_seconds / 2 <= p <= longest_seconds for p in pauses)
    assert pause_seconds(settings, settings.webhook_attempts_max) is None


async def test_the_figures(service: Service, courier: Courier, event: Event) -> None:
    with Receiver([500, 200]) as receiver:
        await register(service, receiver, WebhookKind.ORDER_HELD)
        await place(service, event.id, BUYER, "press-1", 1)
        await courier.run_once()
        assert metrics.webhook_lag_seconds._value.get() > 0
        assert metrics.webhook_backlog._value.get() == 1
        await courier.finish()
        dead = (await deliveries(service))[0]
        await service.webhooks.mark_failed(dead.id, dead.attempts, "enough", None)
        courier._look_after_due_seconds = 0.0
        await courier.run_once()
        assert metrics.webhook_lag_seconds._value.get() == 0
        assert metrics.webhook_backlog._value.get() == 0
        assert metrics.webhook_dead_letters._value.get() == 1

"""Messages about orders: one for each change and each endpoint that wants to know, written down
with the change, claimed by one worker at a time.

Seen red with a PLACE that tells of what was asked for, without the statuses of an endpoint, without
ON CONFLICT, without SKIP LOCKED, without the lease, with a failure that comes too late and counts,
and with a claim that shows an order as it is now.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from onsale.domain.errors import NotFound, WebhookEndpointDisabled, WebhookEndpointLimitReached
from onsale.domain.event import Event
from onsale.domain.order import OrderRequest, OrderStatus
from onsale.domain.webhook import DeliveryState, WebhookKind
from onsale.ledger import statements
from onsale.ledger.engine import ConstraintRefused, Database
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger
from onsale.ledger.webhooks import ENDPOINTS_MAX, Claimed, Delivery, Endpoint, Webhooks
from tests.ledger.books import MakeLedgers, key_of, new_event, request
from tests.support import begin_payment, confirm

EVERY_KIND = tuple(WebhookKind)
HELD, CONFIRMED = WebhookKind.ORDER_HELD, WebhookKind.ORDER_CONFIRMED
LONG_SECONDS = 600.0
URL = "https://receiver.example/"


@pytest.fixture
async def webhooks(database: Database) -> AsyncIterator[Webhooks]:
    """Without endpoints and messages, before and after: the room's other tests have none."""
    await _empty(database)
    yield Webhooks(database)
    await _empty(database)


async def _empty(database: Database) -> None:
    async with database.transaction("test") as connection:
        await connection.execute(text("TRUNCATE webhook_endpoints, webhook_deliveries"))


@pytest.fixture
async def endpoint(webhooks: Webhooks) -> Endpoint:
    """One that wants to know everything."""
    return await webhooks.register(URL, "whsec_1", EVERY_KIND)


@pytest.fixture
async def event(events: Events) -> Event:
    return await new_event(events, 1_000)


async def told(webhooks: Webhooks, endpoint: Endpoint) -> list[WebhookKind]:
    """What there is to tell an endpoint, oldest first."""
    found = await webhooks.page(None, None, 1_000)
    return [one.kind for one in reversed(found) if one.endpoint_id == endpoint.id]


async def only(webhooks: Webhooks) -> Delivery:
    """The one message there is."""
    (delivery,) = await webhooks.page(None, None, 10)
    return delivery


async def only_claimed(webhooks: Webhooks, endpoint: Endpoint) -> Claimed:
    """The one message that is due."""
    (message,) = await webhooks.claim(endpoint.id, 10, LONG_SECONDS)
    return message


async def pay(ledger: Ledger, order: OrderRequest) -> None:
    attempt = await begin_payment(ledger, key_of(order), order.buyer_id, "ok")
    assert attempt is not None
    assert await confirm(ledger, key_of(order), attempt) is not None


async def make_due(database: Database) -> None:
    """Let an hour pass for messages that wait."""
    async with database.transaction("test") as connection:
        await connection.execute(
            text("UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at - interval '1 h'")
        )


# -- written down


async def test_every_statement_that_changes_an_order_tells_of_it() -> None:
    """But the one that abandons, for nobody was ever promised such an order, and the one that
    writes candidates: those that stay are told of when they are settled.
    """
    changes = re.compile(r"INSERT INTO orders |UPDATE orders SET status")
    changing = {
        name
        for name, statement in vars(statements).items()
        if name.isupper() and isinstance(statement, str) and changes.search(statement)
    }
    telling = {
        name
        for name, statement in vars(statements).items()
        if name.isupper() and "INSERT INTO webhook_deliveries" in str(statement)
    }
    assert changing - telling == {"FENCE", "WRITE_CANDIDATES"}
    assert telling >= {"PLACE", "SETTLE", "RELEASE", "EXPIRE", "REFUND", "CONFIRM"}


async def test_each_step_of_a_life_is_told_once(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """However often it is asked for."""
    order = request(event)
    for _ in range(3):
        await ledger.place([order, order])
    assert await told(webhooks, endpoint) == [HELD]
    await pay(ledger, order)
    for _ in range(3):
        assert await confirm(ledger, key_of(order), 1) is None
        assert not await ledger.release(key_of(order), order.buyer_id)
    for _ in range(3):
        await ledger.refund(key_of(order))
    assert await told(webhooks, endpoint) == [HELD, CONFIRMED, WebhookKind.ORDER_REFUNDED]


async def test_the_other_ends_are_told_once(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    released, overdue = request(event), request(event, hold_seconds=-1)
    at_once = request(event, status=OrderStatus.CONFIRMED)
    await ledger.place([released, overdue, at_once])
    for _ in range(3):
        await ledger.release(key_of(released), released.buyer_id)
        await ledger.expire(1_000)
    assert Counter(await told(webhooks, endpoint)) == {
        HELD: 2,
        CONFIRMED: 1,
        WebhookKind.ORDER_RELEASED: 1,
        WebhookKind.ORDER_EXPIRED: 1,
    }


async def test_an_abandoned_order_is_not_told_of(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """Nor when the worker that had it on its way wakes up late."""
    order = request(event)
    await ledger.fence([key_of(order)])
    await ledger.place([order])
    assert await told(webhooks, endpoint) == []


async def test_what_the_ledger_admits_alone_is_told(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, events: Events
) -> None:
    """Of two tiers each, in one batch, asked for again and again; who is refused is not told of."""
    event = await new_event(events, 2, 2)
    orders = [
        request(event, (1, 1), (2, 1), status=status)
        for status in (OrderStatus.HELD, OrderStatus.CONFIRMED, OrderStatus.HELD)
    ]
    for _ in range(3):
        await ledger.admit(orders)
    told_of = {one.order_id for one in await webhooks.page(None, None, 10)}
    assert Counter(await told(webhooks, endpoint)) == {HELD: 1, CONFIRMED: 1}
    assert told_of == {order.order_id for order in orders[:2]}


async def test_racing_processes_tell_once(
    make_ledgers: MakeLedgers, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """Everybody does everything to the same orders at once."""
    ledgers = await make_ledgers(4)
    orders = [request(event) for _ in range(40)]

    async def live(ledger: Ledger) -> None:
        await ledger.place(orders)
        for order in orders:
            attempt = await begin_payment(ledger, key_of(order), order.buyer_id, "ok")
            await ledger.release(key_of(order), order.buyer_id)
            if attempt is not None:
                await confirm(ledger, key_of(order), attempt)
            await ledger.refund(key_of(order))

    await asyncio.gather(*map(live, ledgers))
    counted = Counter(await told(webhooks, endpoint))
    assert counted[HELD] == 40
    ended = counted[WebhookKind.ORDER_RELEASED] + counted[WebhookKind.ORDER_REFUNDED]
    assert (ended, counted[CONFIRMED]) == (40, counted[WebhookKind.ORDER_REFUNDED])


async def test_each_endpoint_hears_what_it_asked_for(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    picky = await webhooks.register(URL, "whsec_2", [CONFIRMED])
    order = request(event)
    await ledger.place([order])
    await pay(ledger, order)
    assert await told(webhooks, endpoint) == [HELD, CONFIRMED]
    assert await told(webhooks, picky) == [CONFIRMED]


async def test_an_endpoint_hears_nothing_from_before_it(
    ledger: Ledger, webhooks: Webhooks, event: Event
) -> None:
    order = request(event)
    await ledger.place([order])
    endpoint = await webhooks.register(URL, "whsec_1", EVERY_KIND)
    await pay(ledger, order)
    assert await told(webhooks, endpoint) == [CONFIRMED]


async def test_what_was_refused_is_not_told_of(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, events: Events
) -> None:
    """The batch that a constraint refuses takes its messages with it."""
    small = await new_event(events, 1)
    with pytest.raises(ConstraintRefused):
        await ledger.place([request(small), request(small)])
    assert await told(webhooks, endpoint) == []


async def test_a_purchase_does_not_wait_for_an_endpoint_and_never_fails_with_it(
    database: Database, ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """While the endpoint is being removed, and when its message is there already, somehow."""
    order = request(event)
    async with database.transaction("test") as connection:
        await connection.execute(text("DELETE FROM webhook_endpoints"))
        await ledger.place([order])
    assert await webhooks.page(None, None, 10) == [], "of an endpoint that is gone"

    again = await webhooks.register(URL, "whsec_1", EVERY_KIND)
    there = request(event)
    async with database.transaction("test") as connection:
        await connection.execute(
            text(
                "INSERT INTO webhook_deliveries (event_id, order_id, status, endpoint_id)"
                " VALUES (:event, :order, 'held', :endpoint)"
            ),
            {"event": event.id, "order": there.order_id.hex(), "endpoint": again.id},
        )
    await ledger.place([there])
    assert await told(webhooks, again) == [HELD]


# -- endpoints


async def test_there_is_a_limit_of_endpoints(webhooks: Webhooks) -> None:
    for _ in range(ENDPOINTS_MAX):
        await webhooks.register(URL, "whsec_1", EVERY_KIND)
    with pytest.raises(WebhookEndpointLimitReached):
        await webhooks.register(URL, "whsec_1", EVERY_KIND)
    first, *_ = await webhooks.endpoints()
    await webhooks.remove(first.id)
    await webhooks.register(URL, "whsec_1", EVERY_KIND)


async def test_a_removed_endpoint_is_forgotten(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    await ledger.place([request(event)])
    delivery = await only(webhooks)
    await webhooks.remove(endpoint.id)
    assert await webhooks.endpoints() == []
    assert await webhooks.endpoints_due() == []
    assert await webhooks.claim(endpoint.id, 10, LONG_SECONDS) == []
    assert await webhooks.page(None, None, 10) == []
    assert await webhooks.count_undelivered() == (0, 0)
    for forgotten in (webhooks.remove(endpoint.id), webhooks.resend(delivery.id)):
        with pytest.raises(NotFound):
            await forgotten


async def test_a_disabled_endpoint_is_left_alone_until_it_is_enabled(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """What waits, waits; what happens meanwhile is never told."""
    order = request(event)
    await ledger.place([order])
    await webhooks.disable(endpoint.id)
    await pay(ledger, order)
    assert (await webhooks.endpoints())[0].disabled_at is not None
    assert await webhooks.endpoints_due() == []
    assert await webhooks.claim(endpoint.id, 10, LONG_SECONDS) == []
    assert await webhooks.count_undelivered() == (0, 0)
    with pytest.raises(WebhookEndpointDisabled):
        await webhooks.resend((await only(webhooks)).id)

    assert (await webhooks.enable(endpoint.id)).disabled_at is None
    assert (await only_claimed(webhooks, endpoint)).kind is HELD
    with pytest.raises(NotFound):
        await webhooks.enable("0" * 32)


# -- claimed and settled


async def test_a_claimed_message_tells_of_the_order_as_it_was(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """Claimed long after the order went on, each message shows it as it was then."""
    order = request(event, (1, 3))
    (placed,) = await ledger.place([order])
    await pay(ledger, order)
    await ledger.refund(key_of(order))
    claimed = await webhooks.claim(endpoint.id, 10, LONG_SECONDS)
    messages = {message.kind: message for message in claimed}
    assert messages[HELD].order == placed.order
    assert messages[HELD].changed_at == placed.order.created_at
    for kind in (CONFIRMED, WebhookKind.ORDER_REFUNDED):
        assert messages[kind].order == placed.order._replace(status=kind.status, expires_at=None)
    moments = [messages[kind].changed_at for kind in EVERY_KIND if kind in messages]
    assert moments == sorted(moments)


async def test_workers_share_what_is_due(
    make_ledgers: MakeLedgers,
    database: Database,
    ledger: Ledger,
    webhooks: Webhooks,
    endpoint: Endpoint,
    event: Event,
) -> None:
    """While one transaction has some in hand, another takes the others, and none waits."""
    await ledger.place([request(event) for _ in range(20)])
    async with database.transaction("test") as connection:
        await connection.execute(
            text("SELECT FROM webhook_deliveries ORDER BY id LIMIT 5 FOR UPDATE")
        )
        assert len(await webhooks.claim(endpoint.id, 100, LONG_SECONDS)) == 15
    batches = await asyncio.gather(
        *(webhooks.claim(endpoint.id, 2, LONG_SECONDS) for _ in range(5))
    )
    claimed = [message.id for batch in batches for message in batch]
    assert len(claimed) == len(set(claimed)) == 5


async def test_a_crash_leaves_a_message_due_again(
    database: Database, ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """Under the same id, and not before its lease is over."""
    await ledger.place([request(event)])
    first = await only_claimed(webhooks, endpoint)
    assert await webhooks.endpoints_due() == []
    assert await webhooks.claim(endpoint.id, 10, LONG_SECONDS) == []
    await make_due(database)
    (due,) = await webhooks.endpoints_due()
    assert (due.id, due.url, due.secret) == (endpoint.id, URL, "whsec_1")
    assert due.overdue_seconds > 0
    again = await only_claimed(webhooks, endpoint)
    assert (again.id, first.attempt, again.attempt) == (first.id, 1, 2)
    assert again.order == first.order
    assert again.changed_at == first.changed_at


async def test_delivered_is_delivered(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """Whatever an earlier attempt comes back with."""
    await ledger.place([request(event)])
    message = await only_claimed(webhooks, endpoint)
    await webhooks.mark_delivered([message.id])
    await webhooks.mark_failed(message.id, message.attempt, "late", None)
    delivery = await only(webhooks)
    assert (delivery.state, delivery.last_error) == (DeliveryState.DELIVERED, None)
    assert delivery.ended_at is not None
    assert delivery.next_attempt_at is None
    assert await webhooks.count_undelivered() == (0, 0)


async def test_a_late_failure_does_not_touch_the_next_attempt(
    database: Database, ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    await ledger.place([request(event)])
    late = await only_claimed(webhooks, endpoint)
    await make_due(database)
    await only_claimed(webhooks, endpoint)
    await webhooks.mark_failed(late.id, late.attempt, "late", None)
    delivery = await only(webhooks)
    assert (delivery.state, delivery.attempts, delivery.last_error) == ("pending", 2, None)


async def test_a_dead_letter_is_sent_again(
    ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    await ledger.place([request(event)])
    message = await only_claimed(webhooks, endpoint)
    await webhooks.mark_failed(message.id, 1, "answered 500", LONG_SECONDS)
    waiting = await only(webhooks)
    assert (waiting.state, waiting.last_error) == ("pending", "answered 500")
    assert waiting.next_attempt_at is not None
    assert await webhooks.claim(endpoint.id, 10, LONG_SECONDS) == []

    resent = await webhooks.resend(message.id)
    assert (resent.id, resent.attempts) == (message.id, 0)
    second = await only_claimed(webhooks, endpoint)
    await webhooks.mark_failed(message.id, second.attempt, "answered 500", None)
    dead = await only(webhooks)
    assert (dead.state, dead.next_attempt_at) == ("dead", None)
    assert await webhooks.count_undelivered() == (0, 1)
    assert await webhooks.endpoints_due() == []
    assert [one.id for one in await webhooks.page(DeliveryState.DEAD, None, 10)] == [message.id]

    await webhooks.resend(message.id)
    assert await webhooks.page(DeliveryState.DEAD, None, 10) == []
    assert (await only_claimed(webhooks, endpoint)).id == message.id


async def test_old_messages_are_purged(
    database: Database, ledger: Ledger, webhooks: Webhooks, endpoint: Endpoint, event: Event
) -> None:
    """In whatever state; ids tell their age."""
    await ledger.place([request(event) for _ in range(3)])
    async with database.transaction("test") as connection:
        await connection.execute(
            text(
                "UPDATE webhook_deliveries SET id = uuidv7(interval '-31 days') WHERE id IN"
                " (SELECT id FROM webhook_deliveries ORDER BY id LIMIT 2)"
            )
        )
    young, *_ = await webhooks.page(None, None, 10)
    await webhooks.purge(30, 1)
    assert len(await webhooks.page(None, None, 10)) == 2, "in small batches"
    await webhooks.purge(30, 10)
    await webhooks.purge(30, 10)
    assert [one.id for one in await webhooks.page(None, None, 10)] == [young.id]

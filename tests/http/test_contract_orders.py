"""Orders: placed, placed again, looked at, released, refunded; and what the losers are told."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from onsale.domain.event import Event, PaymentKind
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.http.calls import (
    UNKNOWN_ID,
    event_path,
    order_path,
    place,
    placed,
    problem_of,
    started,
    units_taken,
)
from tests.support import (
    MakeEvent,
    as_buyer,
    count_rows,
    items,
    live_orders,
    wait_until,
    with_scope,
)

ADMIN = with_scope("admin", "organiser")
REPLAYED = "idempotent-replayed"


async def expired(service: Service, event: Event) -> None:
    """Wait until the ledger's clock has passed the end of every hold of the event."""

    async def over() -> bool:
        holds = "SELECT count(*) FROM orders WHERE event_id = :event AND expires_at >= now()"
        return await count_rows(service, holds, event=event.id) == 0

    await wait_until(over)


# -- placing


async def test_an_order_is_confirmed_at_once_where_nothing_is_to_pay(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event = await make_event(10, 10)
    body = {"items": [*items(2)["items"], *items(1, "t2")["items"]]}
    answer = await place(client, event.id, body)
    order = answer.json()
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["location"] == order_path(order)
    assert REPLAYED not in answer.headers
    assert order == {
        "id": order["id"],
        "event_id": event.id,
        "buyer_id": "buyer-1",
        "status": "confirmed",
        "items": [{"tier_id": "t1", "quantity": 2}, {"tier_id": "t2", "quantity": 1}],
        "amount": 2 * 1_000 + 2_000,
        "currency": "EUR",
        "created_at": order["created_at"],
        "expires_at": None,
    }
    assert abs(datetime.fromisoformat(order["created_at"]) - datetime.now(UTC)) < timedelta(hours=1)
    assert (await client.get(answer.headers["location"], headers=as_buyer())).json() == order


async def test_an_order_is_held_where_a_card_pays(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event = await make_event(payment=PaymentKind.CARD, hold_seconds=90)
    order = await placed(client, event.id)
    held_for = datetime.fromisoformat(order["expires_at"]) - datetime.fromisoformat(
        order["created_at"]
    )
    assert (order["status"], held_for) == ("held", timedelta(seconds=90))
    assert order["expires_at"].endswith("Z")
    assert (await client.get(order_path(order), headers=as_buyer())).json() == order


# -- placing again


async def test_the_same_request_is_the_same_order(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event, headers = await make_event(10), as_buyer()
    first = await placed(client, event.id, headers=headers)
    again = await place(client, event.id, headers=headers)
    assert (again.status_code, again.headers[REPLAYED]) == (201, "true")
    assert again.json() == first
    assert again.headers["location"] == order_path(first)
    assert await units_taken(service, event) == (1, 1, 1, 1)


async def test_the_same_request_in_parallel_and_at_two_processes(
    client: httpx.AsyncClient, settings: Settings, service: Service, make_event: MakeEvent
) -> None:
    event, headers = await make_event(10), as_buyer()
    async with started(settings) as (_, elsewhere):
        answers = await asyncio.gather(
            *(place(asked, event.id, headers=headers) for asked in (client, elsewhere) * 10)
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert await units_taken(service, event) == (1, 1, 1, 1)


async def test_the_order_of_the_items_is_no_other_request(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event, headers = await make_event(10, 10), as_buyer()
    first, second = items(2)["items"][0], items(1, "t2")["items"][0]
    order = await placed(client, event.id, {"items": [first, second]}, headers)
    assert await placed(client, event.id, {"items": [second, first]}, headers) == order


async def test_a_key_is_its_buyers_and_its_events(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    events = [await make_event(), await make_event()]
    ids = {
        (await placed(client, event.id, headers=as_buyer(buyer, key="the-same")))["id"]
        for event in events
        for buyer in ("buyer-1", "buyer-2")
    }
    assert len(ids) == 4


@pytest.mark.parametrize("after", ["sold out", "pause", "close", "another process"])
async def test_an_order_is_found_again_after(
    client: httpx.AsyncClient, settings: Settings, make_event: MakeEvent, after: str
) -> None:
    event, headers = await make_event(1), as_buyer()
    order = await placed(client, event.id, headers=headers)
    if after == "sold out":
        problem_of(await place(client, event.id), 409, "sold_out")
    elif after in ("pause", "close"):
        await client.post(event_path(event.id, after), headers=ADMIN)
    async with started(settings) as (_, elsewhere):
        asked = elsewhere if after == "another process" else client
        again = await place(asked, event.id, headers=headers)
    assert (again.status_code, again.headers[REPLAYED]) == (201, "true")
    assert again.json() == order


async def test_a_released_order_is_found_again_as_it_is_now(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event, headers = await make_event(10, payment=PaymentKind.CARD), as_buyer()
    order = await placed(client, event.id, headers=headers)
    await client.delete(order_path(order), headers=headers)
    again = await place(client, event.id, headers=headers)
    assert (again.status_code, again.headers[REPLAYED]) == (201, "true")
    assert again.json() == {**order, "status": "released", "expires_at": None}
    assert await units_taken(service, event) == (1, 0, 0, 0)


# -- what the losers are told


async def test_sold_out(client: httpx.AsyncClient, service: Service, make_event: MakeEvent) -> None:
    event = await make_event(10)
    answers = await asyncio.gather(
        *(place(client, event.id, headers=as_buyer(f"crowd-{number}")) for number in range(50))
    )
    losers = [answer for answer in answers if answer.status_code != 201]
    assert len(losers) == 40
    for answer in losers:
        problem_of(answer, 409, "sold_out")
    assert await units_taken(service, event) == (10, 10, 10, 10)


async def test_before_opening_says_when_with_jitter(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event = await make_event(opens_in=timedelta(seconds=1_000))
    waits_seconds = set()
    for _ in range(40):
        answer = await place(client, event.id)
        problem = problem_of(answer, 409, "sale_not_open")
        assert datetime.fromisoformat(problem["opens_at"]) == event.sale_opens_at
        waits_seconds.add(int(answer.headers["retry-after"]))
    # Nobody is sent back before it opens, nor all of them in one second; the test itself may
    # take some seconds of the thousand.
    assert 900 < min(waits_seconds) <= max(waits_seconds) <= 1_004
    assert len(waits_seconds) > 1


async def test_the_time_of_opening_is_waited_out(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    """The sale opens by itself: nobody has to press a switch."""
    event = await make_event(opens_in=timedelta(seconds=2))
    problem_of(await place(client, event.id), 409, "sale_not_open")

    async def open_now() -> bool:
        return (await place(client, event.id)).status_code == 201

    await wait_until(open_now)


# -- who may look


async def test_an_order_is_seen_by_its_buyer_and_by_admins(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    order = await placed(client, (await make_event()).id)
    for headers in (as_buyer(), ADMIN, with_scope("buy admin", "somebody")):
        answer = await client.get(order_path(order), headers=headers)
        assert (answer.status_code, answer.json()) == (200, order)


async def test_an_order_is_not_there_for_anybody_else(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    """404, as for one that does not exist: not even that it exists is told. Seen red with an
    `own_order` that does not ask whose it is.
    """
    event = await make_event(payment=PaymentKind.CARD)
    order = await placed(client, event.id)
    stranger = as_buyer("stranger-1")
    unknown = await client.get(event_path(event.id, "orders", UNKNOWN_ID), headers=stranger)
    looking = await client.get(order_path(order), headers=stranger)
    assert problem_of(looking, 404, "not_found") == problem_of(unknown, 404, "not_found") | {
        "request_id": looking.headers["x-request-id"]
    }
    paying = await client.post(
        order_path(order, "payment"), json={"method": "ok"}, headers=stranger
    )
    problem_of(paying, 404, "not_found")
    problem_of(await client.delete(order_path(order), headers=stranger), 404, "not_found")
    assert await live_orders(service, event.id) == 1
    assert (await client.get("/v1/orders", headers=stranger)).json()["data"] == []


async def test_an_order_is_not_found_under_another_event(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    order = await placed(client, (await make_event()).id)
    elsewhere = {**order, "event_id": (await make_event()).id}
    problem_of(await client.get(order_path(elsewhere), headers=as_buyer()), 404, "not_found")


async def test_admins_do_not_pay_or_release_for_buyers(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    order = await placed(client, (await make_event(payment=PaymentKind.CARD)).id)
    paying = await client.post(order_path(order, "payment"), json={"method": "ok"}, headers=ADMIN)
    problem_of(paying, 403, "forbidden")
    problem_of(await client.delete(order_path(order), headers=ADMIN), 403, "forbidden")
    both = with_scope("buy admin", "organiser")
    problem_of(await client.delete(order_path(order), headers=both), 404, "not_found")


# -- releasing


async def test_release(client: httpx.AsyncClient, service: Service, make_event: MakeEvent) -> None:
    event = await make_event(1, payment=PaymentKind.CARD)
    order = await placed(client, event.id)
    problem_of(await place(client, event.id, headers=as_buyer("buyer-2")), 409, "sold_out")
    for _ in range(2):
        answer = await client.delete(order_path(order), headers=as_buyer())
        assert (answer.status_code, answer.content) == (204, b"")
    assert await units_taken(service, event) == (1, 0, 0, 0)
    seen = (await client.get(order_path(order), headers=as_buyer())).json()
    assert seen == {**order, "status": "released", "expires_at": None}
    await placed(client, event.id, headers=as_buyer("buyer-2"))


async def test_a_confirmed_order_is_not_released(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    order = await placed(client, (await make_event()).id)
    answer = await client.delete(order_path(order), headers=as_buyer())
    problem_of(answer, 409, "order_not_releasable")


async def test_an_expired_order_is_not_released(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(payment=PaymentKind.CARD, hold_seconds=1)
    order = await placed(client, event.id)
    await expired(service, event)
    problem_of(await client.delete(order_path(order), headers=as_buyer()), 409, "order_expired")


# -- refunding


async def test_refund(client: httpx.AsyncClient, service: Service, make_event: MakeEvent) -> None:
    event = await make_event(1)
    order = await placed(client, event.id)
    for _ in range(2):
        answer = await client.post(order_path(order, "refund"), headers=ADMIN)
        assert answer.status_code == 200
        assert answer.json() == {**order, "status": "refunded"}
    assert await units_taken(service, event) == (1, 0, 0, 0)
    await placed(client, event.id, headers=as_buyer("buyer-2"))


async def test_a_held_order_is_not_refunded(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    order = await placed(client, (await make_event(payment=PaymentKind.CARD)).id)
    answer = await client.post(order_path(order, "refund"), headers=ADMIN)
    problem_of(answer, 409, "order_not_refundable")


async def test_buyers_do_not_refund_themselves(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    order = await placed(client, (await make_event()).id)
    answer = await client.post(order_path(order, "refund"), headers=as_buyer())
    problem_of(answer, 403, "forbidden")

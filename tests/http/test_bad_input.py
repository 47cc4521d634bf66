"""Bad input: each is refused with the right status and code, and takes no seat in either store."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from onsale.domain.event import PaymentKind
from onsale.sales.service import Service
from tests.http.calls import (
    EVENT,
    UNKNOWN_ID,
    assert_nothing_taken,
    created,
    event_path,
    order_path,
    orders_path,
    place,
    placed,
    problem_of,
    units_taken,
)
from tests.support import MakeEvent, as_buyer, count_rows, items, with_scope

JSON = {"Content-Type": "application/json"}
BODY_BYTES_MAX = 64 * 1024


async def test_the_counting_would_see_an_order(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    """Every test below trusts `assert_nothing_taken`: here it must fail."""
    event = await make_event(10)
    await placed(client, event.id, items(3))
    assert await units_taken(service, event) == (1, 3, 1, 3)
    with pytest.raises(AssertionError):
        await assert_nothing_taken(service, event)


# -- Idempotency-Key

BAD_KEYS = {
    "empty": ("", 400, "idempotency_key_missing"),
    "256 characters": ("k" * 256, 422, "invalid_request"),
    "a space inside": ("two words", 422, "invalid_request"),
    "not ASCII": ("clé", 422, "invalid_request"),
    "a control character": ("bell\x07", 422, "invalid_request"),
}


async def test_a_missing_key(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event()
    headers = as_buyer()
    del headers["Idempotency-Key"]
    problem_of(await place(client, event.id, headers=headers), 400, "idempotency_key_missing")
    await assert_nothing_taken(service, event)


@pytest.mark.parametrize(("key", "status", "code"), BAD_KEYS.values(), ids=BAD_KEYS)
async def test_a_bad_key(
    client: httpx.AsyncClient,
    service: Service,
    make_event: MakeEvent,
    key: str,
    status: int,
    code: str,
) -> None:
    event = await make_event()
    headers = {**as_buyer(), "Idempotency-Key": key}
    answer = await client.post(
        orders_path(event.id),
        json=items(),
        headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    )
    problem = problem_of(answer, status, code)
    if code == "invalid_request":
        assert [fault["field"] for fault in problem["errors"]] == ["Idempotency-Key"]
    await assert_nothing_taken(service, event)


@pytest.mark.parametrize("key", ["k", "k" * 255, "~!@#$%^&*()_+{}|:<>?"])
async def test_a_decent_key(client: httpx.AsyncClient, make_event: MakeEvent, key: str) -> None:
    """The bounds from inside: refusing everything would not pass for checking."""
    await placed(client, (await make_event()).id, headers=as_buyer(key=key))


OTHER_BODIES = {
    "other quantity": items(2),
    "other tier": items(1, "t2"),
    "another item": {"items": [*items()["items"], *items(1, "t2")["items"]]},
}


# Seen red with one fingerprint for every body.
@pytest.mark.parametrize("other", OTHER_BODIES.values(), ids=OTHER_BODIES)
async def test_a_key_with_another_body(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent, other: dict[str, Any]
) -> None:
    event = await make_event(10, 10)
    headers = as_buyer()
    await placed(client, event.id, items(), headers)
    problem_of(await place(client, event.id, other, headers), 422, "idempotency_key_reused")
    assert await units_taken(service, event) == (1, 1, 1, 1)


async def test_a_key_with_another_body_after_the_order_has_ended(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    """The gate has forgotten the order; the ledger has not, and what the gate took goes back."""
    event = await make_event(10, payment=PaymentKind.CARD)
    headers = as_buyer()
    order = await placed(client, event.id, items(), headers)
    assert (await client.delete(order_path(order), headers=headers)).status_code == 204
    problem_of(await place(client, event.id, items(2), headers), 422, "idempotency_key_reused")
    assert await units_taken(service, event) == (1, 0, 0, 0)


async def test_a_key_with_and_without_payment(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10, payment=PaymentKind.CARD)
    headers = as_buyer()
    await placed(client, event.id, items(), headers)
    paid = {**items(), "payment": {"method": "ok"}}
    problem_of(await place(client, event.id, paid, headers), 422, "idempotency_key_reused")


# -- what is ordered

BAD_ORDERS: dict[str, tuple[Any, str]] = {
    "quantity 0": (items(0), "items.0.quantity"),
    "quantity −1": (items(-1), "items.0.quantity"),
    "quantity 101": (items(101), "items.0.quantity"),
    "quantity 1.5": (items(1.5), "items.0.quantity"),
    "quantity 1.0": (items(1.0), "items.0.quantity"),
    "quantity as text": (items("2"), "items.0.quantity"),
    "quantity true": (items(True), "items.0.quantity"),
    "quantity null": (items(None), "items.0.quantity"),
    "quantity beyond 64 bits": (items(2**80), "items.0.quantity"),
    "no quantity": ({"items": [{"tier_id": "t1"}]}, "items.0.quantity"),
    "no items": ({}, "items"),
    "an empty list of items": ({"items": []}, "items"),
    "11 items": (
        {"items": [{"tier_id": f"t{tier}", "quantity": 1} for tier in range(11)]},
        "items",
    ),
    "the same tier twice": ({"items": items()["items"] * 2}, "items"),
    "items that are no list": ({"items": {"tier_id": "t1", "quantity": 1}}, "items"),
    "an item that is no object": ({"items": ["t1"]}, "items.0"),
    "an unknown field": ({**items(), "price": 0}, "price"),
    "an unknown field of an item": (
        {"items": [{"tier_id": "t1", "quantity": 1, "price": 0}]},
        "items.0.price",
    ),
    "tier id empty": (items(tier_id=""), "items.0.tier_id"),
    "tier id of 65 characters": (items(tier_id="t" * 65), "items.0.tier_id"),
    "tier id with a NUL": (items(tier_id="t1\0"), "items.0.tier_id"),
    "tier id with a line end": (items(tier_id="t1\n"), "items.0.tier_id"),
    "tier id as a number": (items(tier_id=1), "items.0.tier_id"),
    "an unknown tier": (items(tier_id="balcony"), "items.0.tier_id"),
    "payment where none is taken": ({**items(), "payment": {"method": "ok"}}, "payment"),
    "an unknown way to pay": ({**items(), "payment": {"method": "gold"}}, "payment.method"),
    "payment that is no object": ({**items(), "payment": "ok"}, "payment"),
    "a list": ([items()], "body"),
    "a text": ("one please", "body"),
    "a number": (1, "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD_ORDERS.values(), ids=BAD_ORDERS)
async def test_a_bad_order(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent, body: Any, field: str
) -> None:
    event = await make_event()
    answer = await client.post(orders_path(event.id), json=body, headers=as_buyer())
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == [field]
    await assert_nothing_taken(service, event)


async def test_the_largest_order_there_is(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    """10 items of 100: the bounds from inside."""
    event = await make_event(*[100] * 10)
    body = {"items": [{"tier_id": f"t{tier}", "quantity": 100} for tier in range(1, 11)]}
    await placed(client, event.id, body)
    assert await units_taken(service, event) == (1, 1_000, 1, 1_000)


async def test_a_tier_of_another_event(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event, other = await make_event(10), await make_event(10, 10)
    problem = problem_of(await place(client, event.id, items(tier_id="t2")), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "items.0.tier_id"
    await assert_nothing_taken(service, event)
    await assert_nothing_taken(service, other)


async def test_one_item_too_many_takes_none(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10, 1)
    body = {"items": [*items(2)["items"], *items(2, "t2")["items"]]}
    problem_of(await place(client, event.id, body), 409, "sold_out")
    await assert_nothing_taken(service, event)


BAD_EVENT_IDS = {
    "unknown": UNKNOWN_ID,
    "upper case": "0198F3A2B4C57D6E8F901A2B3C4D5E6F",
    "with hyphens": "0198f3a2-b4c5-7d6e-8f90-1a2b3c4d5e6f",
    "too short": "0198f3a2",
    "too long": "0" * 33,
    "SQL": "' OR 1=1 --",
    "a NUL": "%00" * 32,
    "a line end after it": f"{UNKNOWN_ID}%0a",
    "a hash tag": "%7b" + UNKNOWN_ID + "%7d",
    "not UTF-8": "%ff%fe",
}


@pytest.mark.parametrize("event_id", BAD_EVENT_IDS.values(), ids=BAD_EVENT_IDS)
@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("POST", "/orders"),
        ("GET", ""),
        ("GET", "/availability"),
        ("GET", "/availability/stream"),
        ("GET", "/audit"),
        ("POST", "/pause"),
        ("POST", "/close"),
        ("GET", f"/orders/{UNKNOWN_ID}"),
        ("DELETE", f"/orders/{UNKNOWN_ID}"),
        ("POST", f"/orders/{UNKNOWN_ID}/refund"),
    ],
)
async def test_an_event_that_is_not_there(
    client: httpx.AsyncClient, event_id: str, method: str, rest: str
) -> None:
    answer = await client.request(
        method,
        f"/v1/events/{event_id}{rest}",
        json=items() if rest == "/orders" else None,
        headers={**as_buyer(), **with_scope("buy admin ops")},
    )
    problem_of(answer, 404, "not_found")


@pytest.mark.parametrize("order_id", BAD_EVENT_IDS.values(), ids=BAD_EVENT_IDS)
async def test_an_order_that_is_not_there(
    client: httpx.AsyncClient, make_event: MakeEvent, order_id: str
) -> None:
    path = event_path((await make_event()).id, "orders", order_id)
    headers = with_scope("buy admin")
    problem_of(await client.get(path, headers=headers), 404, "not_found")
    problem_of(await client.delete(path, headers=headers), 404, "not_found")
    paying = await client.post(f"{path}/payment", json={"method": "ok"}, headers=headers)
    problem_of(paying, 404, "not_found")


# -- when


async def test_before_opening(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(opens_in=timedelta(hours=1))
    problem_of(await place(client, event.id), 409, "sale_not_open")
    await assert_nothing_taken(service, event)


async def test_while_paused(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event()
    await client.post(event_path(event.id, "pause"), headers=with_scope("admin"))
    problem_of(await place(client, event.id), 409, "sale_paused")
    await assert_nothing_taken(service, event)


async def test_after_closing(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event()
    await client.post(event_path(event.id, "close"), headers=with_scope("admin"))
    problem_of(await place(client, event.id), 409, "sale_closed")
    await assert_nothing_taken(service, event)


async def test_after_the_window(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(opens_in=timedelta(hours=-2), closes_in=timedelta(hours=-1))
    problem_of(await place(client, event.id), 409, "sale_closed")
    await assert_nothing_taken(service, event)


# -- how many


async def test_over_the_limit_in_one_order(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(50, 50, max_per_buyer_units=4)
    problem_of(await place(client, event.id, items(5)), 409, "buyer_limit_reached")
    both = {"items": [*items(3)["items"], *items(2, "t2")["items"]]}
    problem_of(await place(client, event.id, both), 409, "buyer_limit_reached")
    await assert_nothing_taken(service, event)


async def test_over_the_limit_across_orders(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(50, max_per_buyer_units=4)
    await placed(client, event.id, items(3))
    problem_of(await place(client, event.id, items(2)), 409, "buyer_limit_reached")
    await placed(client, event.id, items(1))
    problem_of(await place(client, event.id, items(1)), 409, "buyer_limit_reached")
    await placed(client, event.id, items(4), as_buyer("buyer-2"))
    assert await units_taken(service, event) == (3, 8, 3, 8)


async def test_over_the_limit_in_parallel(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(50, max_per_buyer_units=4)
    answers = await asyncio.gather(*(place(client, event.id) for _ in range(20)))
    refused = [answer for answer in answers if answer.status_code != 201]
    assert len(refused) == 16
    for answer in refused:
        problem_of(answer, 409, "buyer_limit_reached")
    assert await units_taken(service, event) == (4, 4, 4, 4)


# -- what carries it


def _json_of(size_bytes: int) -> bytes:
    """An order followed by so much white space that the body has the size."""
    return b'{"items":[{"tier_id":"t1","quantity":1}]}'.ljust(size_bytes)


async def test_a_body_of_the_largest_size(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    answer = await client.post(
        orders_path((await make_event()).id),
        content=_json_of(BODY_BYTES_MAX),
        headers={**as_buyer(), **JSON},
    )
    assert answer.status_code == 201


# Seen red with a limit of a gigabyte.
@pytest.mark.parametrize("size_bytes", [BODY_BYTES_MAX + 1, 1_000_000])
async def test_a_body_too_large(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent, size_bytes: int
) -> None:
    event = await make_event()
    answer = await client.post(
        orders_path(event.id), content=_json_of(size_bytes), headers={**as_buyer(), **JSON}
    )
    problem_of(answer, 413, "body_too_large")
    await assert_nothing_taken(service, event)


@pytest.mark.parametrize("size_bytes", [BODY_BYTES_MAX + 1, 1_000_000])
async def test_a_body_too_large_for_an_event(client: httpx.AsyncClient, size_bytes: int) -> None:
    """The same through FastAPI's own reading of bodies."""
    body = json.dumps(EVENT).encode()
    headers = {**with_scope("admin"), **JSON}
    largest = await client.post("/v1/events", content=body.ljust(BODY_BYTES_MAX), headers=headers)
    assert largest.status_code == 201
    answer = await client.post("/v1/events", content=body.ljust(size_bytes), headers=headers)
    problem_of(answer, 413, "body_too_large")


BAD_BODIES = {
    "empty": b"",
    "null": b"null",
    "cut off": b'{"items":[{"tier_id":"t1",',
    "two values": b'{"items":[{"tier_id":"t1","quantity":1}]} {}',
    "not UTF-8": b'{"items":[{"tier_id":"\xff","quantity":1}]}',
    "half a character": b'{"items":[{"tier_id":"\\ud800","quantity":1}]}',
    "NaN": b'{"items":[{"tier_id":"t1","quantity":NaN}]}',
    "a form": b"tier_id=t1&quantity=1",
    "deep lists": b"[" * 30_000 + b"]" * 30_000,
    "deep lists, open": b"[" * 60_000,
    "deep objects": b'{"items":' * 7_000,
    "a long number": b'{"items":[{"tier_id":"t1","quantity":' + b"9" * 60_000 + b"}]}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_body_that_is_no_order(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent, body: bytes
) -> None:
    event = await make_event()
    answer = await client.post(orders_path(event.id), content=body, headers={**as_buyer(), **JSON})
    problem_of(answer, 422, "invalid_request")
    await assert_nothing_taken(service, event)


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
async def test_a_body_that_is_no_event(client: httpx.AsyncClient, body: bytes) -> None:
    """The same through FastAPI's own reading of bodies."""
    answer = await client.post("/v1/events", content=body, headers={**with_scope("admin"), **JSON})
    problem_of(answer, 422, "invalid_request")


BAD_MEDIA_TYPES = [
    None,
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/jsonp",
]


@pytest.mark.parametrize("media_type", BAD_MEDIA_TYPES)
async def test_a_wrong_content_type(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent, media_type: str | None
) -> None:
    event = await make_event()
    headers = as_buyer() | ({} if media_type is None else {"Content-Type": media_type})
    answer = await client.post(orders_path(event.id), content=_json_of(0), headers=headers)
    problem_of(answer, 415, "unsupported_media_type")
    await assert_nothing_taken(service, event)


@pytest.mark.parametrize("media_type", BAD_MEDIA_TYPES)
async def test_a_wrong_content_type_of_a_payment(
    client: httpx.AsyncClient, make_event: MakeEvent, media_type: str | None
) -> None:
    """The same through FastAPI's own reading of bodies."""
    order = await placed(client, (await make_event(payment=PaymentKind.CARD)).id)
    headers = as_buyer() | ({} if media_type is None else {"Content-Type": media_type})
    answer = await client.post(
        order_path(order, "payment"), content=b'{"method":"ok"}', headers=headers
    )
    problem_of(answer, 415, "unsupported_media_type")
    seen = await client.get(order_path(order), headers=as_buyer())
    assert seen.json()["status"] == "held"


@pytest.mark.parametrize(
    "media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
async def test_a_right_content_type(
    client: httpx.AsyncClient, make_event: MakeEvent, media_type: str
) -> None:
    headers = {**as_buyer(), "Content-Type": media_type}
    answer = await client.post(
        orders_path((await make_event()).id), content=_json_of(0), headers=headers
    )
    assert answer.status_code == 201


# -- payments

BAD_PAYMENTS: dict[str, tuple[Any, str]] = {
    "no method": ({}, "method"),
    "an unknown method": ({"method": "gold"}, "method"),
    "a method that is no text": ({"method": 1}, "method"),
    "an unknown field": ({"method": "ok", "amount": 0}, "amount"),
    "a list": (["ok"], "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD_PAYMENTS.values(), ids=BAD_PAYMENTS)
async def test_a_bad_payment(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent, body: Any, field: str
) -> None:
    event = await make_event(payment=PaymentKind.CARD)
    order = await placed(client, event.id)
    answer = await client.post(order_path(order, "payment"), json=body, headers=as_buyer())
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == [field]
    attempts = "SELECT count(*) FROM payments WHERE event_id = :event"
    assert await count_rows(service, attempts, event=event.id) == 0


# -- events


def _event(**changed: Any) -> dict[str, Any]:
    return {**EVENT, **changed}


def _tier(**changed: Any) -> dict[str, Any]:
    return _event(tiers=[{**EVENT["tiers"][0], **changed}])


BAD_EVENTS: dict[str, tuple[Any, str]] = {
    "a window that ends before it starts": (
        _event(sale_opens_at="2030-05-02T00:00:00Z", sale_closes_at="2030-05-01T00:00:00Z"),
        "body",
    ),
    "a window without length": (_event(sale_closes_at=EVENT["sale_opens_at"]), "body"),
    "a time without zone": (_event(starts_at="2030-11-25T19:00:00"), "starts_at"),
    "a time as a number": (_event(starts_at=1_900_000_000), "starts_at"),
    "a time that is none": (_event(starts_at="tomorrow"), "starts_at"),
    "a year beyond reason": (_event(starts_at="9999-12-31T23:59:59-23:59"), "starts_at"),
    "capacity −1": (_tier(capacity=-1), "tiers.0.capacity"),
    "capacity over 10 million": (_tier(capacity=10_000_001), "tiers.0.capacity"),
    "capacity as text": (_tier(capacity="10"), "tiers.0.capacity"),
    "capacity 1.5": (_tier(capacity=1.5), "tiers.0.capacity"),
    "price −1": (_tier(price=-1), "tiers.0.price"),
    "price 49.00": (_tier(price=49.0), "tiers.0.price"),
    "a price beyond reason": (_tier(price=2**63), "tiers.0.price"),
    "a tier id with a space": (_tier(id="general admission"), "tiers.0.id"),
    "a tier without a name": (_tier(name=""), "tiers.0.name"),
    "an unknown field of a tier": (_tier(sold=3), "tiers.0.sold"),
    "no tiers": (_event(tiers=[]), "tiers"),
    "101 tiers": (
        _event(tiers=[{**EVENT["tiers"][0], "id": f"t{tier}"} for tier in range(101)]),
        "tiers",
    ),
    "a tier id twice": (_event(tiers=EVENT["tiers"] * 2), "tiers"),
    "no name": (_event(name=""), "name"),
    "a long name": (_event(name="n" * 201), "name"),
    "a NUL in the name": (_event(name="The\0Waltz"), "name"),
    "half a character in the name": (_event(name="\ud800"), "name"),
    "half a character in the venue": (_event(venue="a\udfff"), "venue"),
    "a currency in lower case": (_event(currency="eur"), "currency"),
    "a currency of four letters": (_event(currency="EURO"), "currency"),
    "an unknown kind of payment": (_event(payment="cheque"), "payment"),
    "hold_seconds 0": (_event(hold_seconds=0), "hold_seconds"),
    "hold_seconds of more than a day": (_event(hold_seconds=86_401), "hold_seconds"),
    "max_per_buyer −1": (_event(max_per_buyer=-1), "max_per_buyer"),
    "an unknown field": (_event(gate_epoch="mine"), "gate_epoch"),
}


@pytest.mark.parametrize(("body", "field"), BAD_EVENTS.values(), ids=BAD_EVENTS)
async def test_a_bad_event(
    client: httpx.AsyncClient, service: Service, body: Any, field: str
) -> None:
    events_before = await count_rows(service, "SELECT count(*) FROM events")
    answer = await client.post(
        "/v1/events",
        # Not `json=`, which cannot send half a character.
        content=json.dumps(body),
        headers={**with_scope("admin"), **JSON},
    )
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == [field]
    assert await count_rows(service, "SELECT count(*) FROM events") == events_before


async def test_a_tier_without_seats_is_sold_out(client: httpx.AsyncClient) -> None:
    event = await created(client, **_tier(capacity=0))
    answer = await client.post(f"/v1/events/{event['id']}/orders", json=items(), headers=as_buyer())
    problem_of(answer, 409, "sold_out")


async def test_a_tier_of_ten_million(client: httpx.AsyncClient) -> None:
    event = await created(client, **_tier(capacity=10_000_000))
    seen = await client.get(f"/v1/events/{event['id']}/availability")
    assert seen.json()["tiers"] == [{"id": "t1", "capacity": 10_000_000, "available": 10_000_000}]


async def test_a_free_ticket(client: httpx.AsyncClient) -> None:
    event = await created(client, **_tier(price=0))
    answer = await client.post(
        f"/v1/events/{event['id']}/orders", json=items(2), headers=as_buyer()
    )
    assert (answer.status_code, answer.json()["amount"]) == (201, 0)


# -- capacities

BAD_CAPACITIES: dict[str, tuple[Any, str]] = {
    "−1": ({"capacity": -1}, "capacity"),
    "over 10 million": ({"capacity": 10_000_001}, "capacity"),
    "text": ({"capacity": "5"}, "capacity"),
    "none": ({}, "capacity"),
    "another field": ({"capacity": 5, "price": 0}, "price"),
}


@pytest.mark.parametrize(("body", "field"), BAD_CAPACITIES.values(), ids=BAD_CAPACITIES)
async def test_a_bad_capacity(
    client: httpx.AsyncClient, make_event: MakeEvent, body: Any, field: str
) -> None:
    event = await make_event(10)
    answer = await client.patch(
        event_path(event.id, "tiers/t1"), json=body, headers=with_scope("admin")
    )
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == [field]


async def test_a_capacity_below_what_is_reserved(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10)
    await placed(client, event.id, items(4))
    path, admin = event_path(event.id, "tiers/t1"), with_scope("admin")
    answer = await client.patch(path, json={"capacity": 3}, headers=admin)
    problem_of(answer, 409, "capacity_below_reserved")
    seen = await client.get(event_path(event.id, "availability"))
    assert seen.json()["tiers"] == [{"id": "t1", "capacity": 10, "available": 6}]
    assert (await client.patch(path, json={"capacity": 4}, headers=admin)).status_code == 200
    problem_of(await place(client, event.id, items(1)), 409, "sold_out")
    assert await units_taken(service, event) == (1, 4, 1, 4)


# -- pages

BAD_CURSORS = {
    "empty": "",
    "not base64": "%%%%",
    "too short": "AAAA",
    "too long": "A" * 10_000,
    "of one letter": "A",
    "with a NUL": "A\0A",
    "not ASCII": "ü",
    "of another size": "A" * 24,
}


@pytest.mark.parametrize("cursor", BAD_CURSORS.values(), ids=BAD_CURSORS)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/orders"])
async def test_a_malformed_cursor(client: httpx.AsyncClient, path: str, cursor: str) -> None:
    answer = await client.get(path, params={"cursor": cursor}, headers=as_buyer())
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == ["cursor"]


async def test_a_cursor_of_the_other_list(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    await make_event()
    await make_event()
    page = (await client.get("/v1/events", params={"limit": 1})).json()
    answer = await client.get(
        "/v1/orders", params={"cursor": page["next_cursor"]}, headers=as_buyer()
    )
    problem_of(answer, 422, "invalid_request")


async def test_a_cursor_beyond_the_end_of_time(client: httpx.AsyncClient) -> None:
    """Well formed, and names a moment that neither Python nor Postgres has."""
    for first_bytes in ("_____", "A____"):
        cursor = first_bytes.ljust(54, "_")
        answer = await client.get("/v1/orders", params={"cursor": cursor}, headers=as_buyer())
        problem_of(answer, 422, "invalid_request")


@pytest.mark.parametrize("limit", ["0", "-1", "101", "many", "1.5", "", "9" * 5_000])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/orders"])
async def test_a_bad_page_size(client: httpx.AsyncClient, path: str, limit: str) -> None:
    answer = await client.get(path, params={"limit": limit}, headers=as_buyer())
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == ["limit"]


# -- methods and paths


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/events"),
        ("DELETE", f"/v1/events/{UNKNOWN_ID}"),
        ("PUT", f"/v1/events/{UNKNOWN_ID}/orders"),
        ("GET", f"/v1/events/{UNKNOWN_ID}/orders"),
        ("PATCH", "/v1/orders"),
        ("POST", "/healthz"),
        ("BREW", "/v1/orders"),
    ],
)
async def test_a_method_that_is_not_known(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    problem_of(answer, 405, "method_not_allowed")
    # RFC 9110, 15.5.6: a 405 must say what would be allowed.
    assert answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/events", "/v1/events/a/b/c/d", "/%00"])
async def test_a_path_that_leads_nowhere(client: httpx.AsyncClient, path: str) -> None:
    problem_of(await client.get(path), 404, "not_found")

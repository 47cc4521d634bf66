"""Events: put on sale, looked at, paused, resumed, closed; capacities, availability, books."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from onsale.domain.event import PaymentKind
from onsale.sales.service import Service
from tests.http.calls import (
    EVENT,
    UNKNOWN_ID,
    created,
    event_path,
    order_path,
    place,
    placed,
    problem_of,
)
from tests.support import MakeEvent, as_buyer, count_rows, items, wait_until, with_scope

ADMIN = with_scope("admin", "organiser")
OPS = with_scope("ops", "operator")


# -- put on sale


async def test_an_event_is_created(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json={**EVENT, "venue": "Winterland"}, headers=ADMIN)
    event = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/events/{event['id']}"
    assert event == {
        **EVENT,
        "venue": "Winterland",
        "id": event["id"],
        "created_at": event["created_at"],
        "state": "open",
        "hold_seconds": 600,
        "max_per_buyer": 0,
    }
    assert (await client.get(answer.headers["location"])).json() == event


async def test_times_are_answered_in_utc(client: httpx.AsyncClient) -> None:
    event = await created(client, starts_at="2040-11-25T21:30:00+02:30")
    assert event["starts_at"] == "2040-11-25T19:00:00Z"
    assert event["created_at"].endswith("Z")
    assert datetime.fromisoformat(event["created_at"]).tzinfo is not None


async def test_what_is_given_is_kept(client: httpx.AsyncClient) -> None:
    given = {"hold_seconds": 30, "max_per_buyer": 4, "payment": "card", "currency": "JPY"}
    event = await created(client, **given)
    assert {name: event[name] for name in given} == given
    assert event["venue"] is None


@pytest.mark.parametrize(
    ("opens_in", "closes_in", "state"),
    [
        (timedelta(hours=1), timedelta(hours=2), "scheduled"),
        (timedelta(hours=-1), timedelta(hours=1), "open"),
        (timedelta(hours=-2), timedelta(hours=-1), "closed"),
    ],
)
async def test_the_window_makes_the_state(
    client: httpx.AsyncClient,
    make_event: MakeEvent,
    opens_in: timedelta,
    closes_in: timedelta,
    state: str,
) -> None:
    event = await make_event(opens_in=opens_in, closes_in=closes_in)
    assert (await client.get(event_path(event.id))).json()["state"] == state
    seen = await client.get(event_path(event.id, "availability"))
    assert seen.json()["state"] == state


# -- pages


async def _pages(
    client: httpx.AsyncClient, path: str, size: int, headers: dict[str, str]
) -> AsyncIterator[list[dict[str, Any]]]:
    """Every page from the newest on."""
    cursor = None
    while True:
        params = {"limit": size} | ({"cursor": cursor} if cursor else {})
        answer = await client.get(path, params=params, headers=headers)
        assert answer.status_code == 200
        page = answer.json()
        assert set(page) == {"data", "next_cursor"}
        assert len(page["data"]) <= size
        yield page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return
        assert len(page["data"]) == size, "only the last page may be short"


async def test_pages_of_events_are_complete_and_in_order(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    for _ in range(7):
        await make_event()
    # Seen red with pages that begin with the last event of the page before.
    there = await count_rows(service, "SELECT count(*) FROM events")
    ids = [event["id"] async for page in _pages(client, "/v1/events", 3, {}) for event in page]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == len(set(ids)) == there


async def test_pages_of_events_stay_when_events_come(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    """A page counted by offset would show one event twice here."""
    made = [(await make_event()).id for _ in range(4)]
    seen: list[str] = []
    async for page in _pages(client, "/v1/events", 2, {}):
        seen += [event["id"] for event in page]
        if len(seen) >= 4:
            break
        await make_event()
    assert seen == made[::-1]


async def test_pages_of_own_orders(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    events = [await make_event(), await make_event(payment=PaymentKind.CARD)]
    buyer, other = "pages-1", "pages-2"
    orders = []
    for number in range(7):
        orders.append(await placed(client, events[number % 2].id, headers=as_buyer(buyer)))
        await placed(client, events[number % 2].id, headers=as_buyer(other))
    seen: list[dict[str, Any]] = []
    async for page in _pages(client, "/v1/orders", 3, as_buyer(buyer)):
        seen += page
        # One that comes while pages are turned is on a page before.
        await placed(client, events[0].id, headers=as_buyer(buyer))
    assert seen == orders[::-1]


async def test_an_empty_list_of_orders(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/orders", headers=as_buyer("nobody-yet"))
    assert answer.json() == {"data": [], "next_cursor": None}


async def test_the_last_page_is_exactly_full(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event = await make_event()
    for _ in range(4):
        await placed(client, event.id, headers=as_buyer("exact-1"))
    pages = [len(page) async for page in _pages(client, "/v1/orders", 2, as_buyer("exact-1"))]
    assert pages == [2, 2]


# -- the switch


async def test_pause_and_resume(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    event = await make_event()
    paused = await client.post(event_path(event.id, "pause"), headers=ADMIN)
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    again = await client.post(event_path(event.id, "pause"), headers=ADMIN)
    assert again.json() == paused.json()
    problem_of(await place(client, event.id), 409, "sale_paused")
    seen = await client.get(event_path(event.id, "availability"))
    assert seen.json()["state"] == "paused"

    resumed = await client.post(event_path(event.id, "resume"), headers=ADMIN)
    assert (resumed.status_code, resumed.json()["state"]) == (200, "open")
    await placed(client, event.id)


async def test_closed_is_for_good(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    event = await make_event()
    closed = await client.post(event_path(event.id, "close"), headers=ADMIN)
    assert (closed.status_code, closed.json()["state"]) == (200, "closed")
    assert (await client.post(event_path(event.id, "close"), headers=ADMIN)).status_code == 200
    for switch in ("pause", "resume"):
        answer = await client.post(event_path(event.id, switch), headers=ADMIN)
        problem_of(answer, 409, "sale_closed")
    problem_of(await place(client, event.id), 409, "sale_closed")


@pytest.mark.parametrize("switch", ["pause", "close"])
async def test_holds_are_paid_for_while_nothing_is_sold(
    client: httpx.AsyncClient, make_event: MakeEvent, switch: str
) -> None:
    event = await make_event(payment=PaymentKind.CARD)
    order = await placed(client, event.id)
    await client.post(event_path(event.id, switch), headers=ADMIN)
    answer = await client.post(
        order_path(order, "payment"), json={"method": "ok"}, headers=as_buyer()
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "confirmed")


# -- capacity


async def test_more_seats_are_sold_at_once(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event = await make_event(1)
    await placed(client, event.id)
    problem_of(await place(client, event.id), 409, "sold_out")
    answer = await client.patch(
        event_path(event.id, "tiers/t1"), json={"capacity": 2}, headers=ADMIN
    )
    assert (answer.status_code, answer.json()["tiers"][0]["capacity"]) == (200, 2)
    await placed(client, event.id)
    problem_of(await place(client, event.id), 409, "sold_out")


async def test_fewer_seats(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    event = await make_event(10)
    await client.patch(event_path(event.id, "tiers/t1"), json={"capacity": 1}, headers=ADMIN)
    await placed(client, event.id)
    problem_of(await place(client, event.id), 409, "sold_out")


@pytest.mark.parametrize("tier_id", ["t2", "T1", "%00", "t1%0a", "x" * 65])
async def test_the_capacity_of_a_tier_that_is_not_there(
    client: httpx.AsyncClient, make_event: MakeEvent, tier_id: str
) -> None:
    path = event_path((await make_event()).id, "tiers", tier_id)
    answer = await client.patch(path, json={"capacity": 2}, headers=ADMIN)
    problem_of(answer, 404, "not_found")


# -- availability


async def test_availability(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    event = await make_event(10, 5)
    await placed(client, event.id, items(3))

    async def three_are_gone() -> bool:
        answer = await client.get(event_path(event.id, "availability"))
        assert answer.status_code == 200
        seen = answer.json()
        assert set(seen) == {"state", "tiers", "as_of"}
        assert datetime.fromisoformat(seen["as_of"]).tzinfo is not None
        return bool(
            seen["tiers"]
            == [
                {"id": "t1", "capacity": 10, "available": 7},
                {"id": "t2", "capacity": 5, "available": 5},
            ]
        )

    await wait_until(three_are_gone)


async def test_an_unchanged_availability_is_not_sent_again(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event = await make_event(10)
    path = event_path(event.id, "availability")
    first = await client.get(path)
    etag = first.headers["etag"]
    for if_none_match in (etag, f'"another", {etag}', f"W/{etag}"):
        answer = await client.get(path, headers={"If-None-Match": if_none_match})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    answer = await client.get(path, headers={"If-None-Match": '"another"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, etag)

    await placed(client, event.id)

    async def changed() -> bool:
        answer = await client.get(path, headers={"If-None-Match": etag})
        return answer.status_code == 200 and answer.headers["etag"] != etag

    await wait_until(changed)


async def test_a_pause_changes_the_etag(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    event = await make_event()
    path = event_path(event.id, "availability")
    etag = (await client.get(path)).headers["etag"]
    await client.post(event_path(event.id, "pause"), headers=ADMIN)
    answer = await client.get(path, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.json()["state"]) == (200, "paused")


# -- the books


async def test_the_audit(client: httpx.AsyncClient, make_event: MakeEvent) -> None:
    event = await make_event(10, 5, payment=PaymentKind.CARD)
    await placed(client, event.id, items(3))
    paid = {**items(2), "payment": {"method": "ok"}}
    await placed(client, event.id, paid, as_buyer("buyer-2"))
    answer = await client.get(event_path(event.id, "audit"), headers=OPS)
    assert answer.status_code == 200
    assert answer.json() == {
        "balanced": True,
        "oversold": 0,
        "tiers": [
            {"id": "t1", "capacity": 10, "available": 5, "held": 3, "sold": 2},
            {"id": "t2", "capacity": 5, "available": 5, "held": 0, "sold": 0},
        ],
        "ledger": {
            "orders": {"t1": {"reserved": 5, "sold": 2}, "t2": {"reserved": 0, "sold": 0}},
            "tiers": [
                {"id": "t1", "capacity": 10, "available": 5, "held": 3, "sold": 2},
                {"id": "t2", "capacity": 5, "available": 5, "held": 0, "sold": 0},
            ],
        },
        "gate": {
            "loaded": True,
            "live_orders": 2,
            "tiers": [
                {"id": "t1", "capacity": 10, "available": 5, "taken": 5},
                {"id": "t2", "capacity": 5, "available": 5, "taken": 0},
            ],
        },
        "differences": [],
    }


async def test_the_audit_finds_an_order_that_the_gate_lost(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10)
    order = await placed(client, event.id, items(3))
    assert event.gate_epoch is not None
    await service.gate.give_back(event.id, event.gate_epoch, [bytes.fromhex(order["id"])])
    audit = (await client.get(event_path(event.id, "audit"), headers=OPS)).json()
    assert audit["balanced"] is False
    assert [(found["kind"], found["subject"]) for found in audit["differences"]] == [
        ("ledger_only", order["id"])
    ]


async def test_the_audit_finds_a_counter_that_is_wrong(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    event = await make_event(10)
    await placed(client, event.id, items(3))
    miscount = "UPDATE tiers SET reserved = reserved + :units WHERE event_id = :event RETURNING 1"
    await count_rows(service, miscount, event=event.id, units=1)
    try:
        audit = (await client.get(event_path(event.id, "audit"), headers=OPS)).json()
        assert audit["balanced"] is False
        assert [found["kind"] for found in audit["differences"]] == ["ledger_miscounted"]
    finally:
        await count_rows(service, miscount, event=event.id, units=-1)


@pytest.mark.parametrize(
    "path", ["", "/availability", "/audit", "/orders/" + UNKNOWN_ID, "/tiers/t1"]
)
async def test_answers_are_json_that_nobody_sniffs(
    client: httpx.AsyncClient, make_event: MakeEvent, path: str
) -> None:
    """Well or not: the type is said."""
    event = await make_event()
    answer = await client.get(event_path(event.id) + path, headers=with_scope("admin ops"))
    assert answer.headers["content-type"] in ("application/json", "application/problem+json")

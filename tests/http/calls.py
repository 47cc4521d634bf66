"""What the tests of the contract say over and over: paths, bodies, problems, and what was taken."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from onsale.domain.event import Event
from onsale.http.app import Application, create_app
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.support import as_buyer, count_rows, items, with_scope

UNKNOWN_ID = "0" * 32
PROBLEM = "application/problem+json"

# What only somebody inside should ever read.
INTERNALS = re.compile(
    r"Traceback|File \\?\"|\.py\b|asyncpg|sqlalchemy|pydantic|redis\.|SELECT |INSERT |UPDATE "
    r"|\b[A-Z]\w+(Error|Exception)\b|\bconstraint\b|postgresql[+:]|unix:"
)

EVENT: dict[str, Any] = {
    "name": "The Last Waltz",
    "starts_at": "2040-11-25T19:00:00Z",
    "sale_opens_at": "2020-05-01T10:00:00Z",
    "sale_closes_at": "2040-11-25T18:00:00Z",
    "payment": "none",
    "currency": "EUR",
    "tiers": [{"id": "t1", "name": "General admission", "price": 4900, "capacity": 100}],
}


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[tuple[Application, httpx.AsyncClient]]:
    """An API of one's own, started, and a client of it."""
    app = create_app(settings)
    async with app.api.router.lifespan_context(app.api):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://onsale") as client:
            yield app, client


# -- asking


def event_path(event_id: str, *rest: str) -> str:
    """The event's address, or that of something below it."""
    return "/".join((f"/v1/events/{event_id}", *rest))


def orders_path(event_id: str) -> str:
    """Where the event's orders are placed."""
    return event_path(event_id, "orders")


def order_path(order: dict[str, Any], *rest: str) -> str:
    """The address of an order as it was answered, or that of something below it."""
    return "/".join((f"/v1/events/{order['event_id']}/orders/{order['id']}", *rest))


async def created(client: httpx.AsyncClient, **changed: Any) -> dict[str, Any]:
    """An event of 100 tickets on sale, but for what is changed, put on sale over HTTP."""
    answer = await client.post(
        "/v1/events", json={**EVENT, **changed}, headers=with_scope("admin", "organiser")
    )
    assert answer.status_code == 201, answer.text
    event: dict[str, Any] = answer.json()
    return event


async def place(
    client: httpx.AsyncClient,
    event_id: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Order one ticket of the first tier as buyer-1, unless asked otherwise."""
    return await client.post(
        orders_path(event_id),
        json=items() if body is None else body,
        headers=as_buyer() if headers is None else headers,
    )


async def placed(
    client: httpx.AsyncClient,
    event_id: str,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """An order that was placed well."""
    answer = await place(client, event_id, body, headers)
    assert answer.status_code == 201, answer.text
    order: dict[str, Any] = answer.json()
    return order


# -- judging


def problem_of(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem that an answer is, after checking all that every problem has in common."""
    assert answer.headers["content-type"] == PROBLEM, answer.text
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert problem["status"] == status
    assert problem["type"] == "about:blank"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (
        status in (429, 503) or code in ("sale_not_open", "request_in_progress")
    )
    found = INTERNALS.search(answer.text)
    assert found is None, f"{found} is nobody's business: {answer.text}"
    return problem


async def units_taken(service: Service, event: Event) -> tuple[int, int, int, int]:
    """Orders and reserved units of an event in the ledger, then orders and units at the gate."""
    assert event.gate_epoch is not None
    gate = await service.gate.audit(event.id, event.gate_epoch)
    return (
        await count_rows(
            service, "SELECT count(*) FROM orders WHERE event_id = :event", event=event.id
        ),
        await count_rows(
            service, "SELECT sum(reserved) FROM tiers WHERE event_id = :event", event=event.id
        ),
        gate.live_orders,
        sum(tier.taken_units for tier in gate.tiers),
    )


async def assert_nothing_taken(service: Service, event: Event) -> None:
    """Neither store has an order of the event or a unit reserved."""
    assert await units_taken(service, event) == (0, 0, 0, 0)

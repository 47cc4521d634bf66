"""What the tests of the contract say over and over: paths, orders, problems, and what was taken."""

from typing import Any

import httpx

from onsale.domain.event import Event
from onsale.sales.service import Service
from tests.support import as_buyer, count_rows, items

UNKNOWN_ID = "0" * 32
PROBLEM = "application/problem+json"

ADMIN = "admin"
OPS = "ops"


def event_path(event: Event, *rest: str) -> str:
    """The event's address, or that of something below it."""
    return "/".join((f"/v1/events/{event.id}", *rest))


def orders_path(event: Event) -> str:
    """Where the event's orders are placed."""
    return event_path(event, "orders")


def order_path(order: dict[str, Any], *rest: str) -> str:
    """The address of an order as it was answered, or that of something below it."""
    return "/".join((f"/v1/events/{order['event_id']}/orders/{order['id']}", *rest))


async def place(
    client: httpx.AsyncClient,
    event: Event,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Order one ticket of the first tier as buyer-1, unless asked otherwise."""
    return await client.post(
        orders_path(event),
        json=items() if body is None else body,
        headers=as_buyer() if headers is None else headers,
    )


async def placed(
    client: httpx.AsyncClient,
    event: Event,
    body: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """An order that was placed well."""
    answer = await place(client, event, body, headers)
    assert answer.status_code == 201, answer.text
    order: dict[str, Any] = answer.json()
    return order


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

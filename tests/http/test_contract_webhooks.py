"""Webhooks over HTTP: receivers registered, listed, removed; messages looked at and sent again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from onsale.domain.webhook import WebhookKind
from onsale.http.app import Application
from onsale.http.schemas import WebhookMessage
from onsale.ledger.webhooks import ENDPOINTS_MAX
from onsale.sales.service import Service
from tests.http.calls import UNKNOWN_ID, created, order_path, placed, problem_of
from tests.support import MakeEvent, as_buyer, count_rows, items, wait_until, with_scope
from tests.webhooks.receiver import Receiver

ADMIN = with_scope("admin", "organiser")
ENDPOINTS, DELIVERIES = "/v1/webhook-endpoints", "/v1/webhook-deliveries"
# A number, so that no name server is asked.
URL = "https://93.184.215.14/onsale?of=orders"
EVERY_KIND = [kind.value for kind in WebhookKind]


@pytest.fixture(autouse=True)
async def no_endpoints(service: Service) -> AsyncIterator[None]:
    """None from before, and none for the tests that follow."""
    await _empty(service)
    yield
    await _empty(service)


async def _empty(service: Service) -> None:
    async with service.database.transaction("test") as connection:
        await connection.execute(text("TRUNCATE webhook_endpoints, webhook_deliveries"))


async def registered(client: httpx.AsyncClient, url: str = URL, *kinds: str) -> dict[str, Any]:
    """An endpoint as it was answered, told of everything unless asked otherwise."""
    body = {"url": url} | ({"kinds": list(kinds)} if kinds else {})
    answer = await client.post(ENDPOINTS, json=body, headers=ADMIN)
    assert answer.status_code == 201, answer.text
    endpoint: dict[str, Any] = answer.json()
    return endpoint


async def listed(client: httpx.AsyncClient, path: str, **params: Any) -> list[dict[str, Any]]:
    """What a list has on its first page."""
    answer = await client.get(path, params=params, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


# -- endpoints


async def test_an_endpoint_is_registered(client: httpx.AsyncClient) -> None:
    """Its secret is shown once, and never again."""
    endpoint = await registered(client, URL, "order.refunded", "order.held")
    secret = endpoint.pop("secret")
    assert secret.startswith("whsec_")
    assert endpoint == {
        "id": endpoint["id"],
        "url": URL,
        "kinds": ["order.refunded", "order.held"],
        "created_at": endpoint["created_at"],
        "disabled_at": None,
    }
    assert await listed(client, ENDPOINTS) == [endpoint]
    other = await registered(client)
    assert other["kinds"] == EVERY_KIND
    assert other["secret"] != secret
    everything = await client.get(ENDPOINTS, headers=ADMIN)
    assert [found["id"] for found in everything.json()["data"]] == [other["id"], endpoint["id"]]
    assert "whsec_" not in everything.text


async def test_an_endpoint_is_removed(client: httpx.AsyncClient) -> None:
    endpoint = await registered(client)
    path = f"{ENDPOINTS}/{endpoint['id']}"
    answer = await client.delete(path, headers=ADMIN)
    assert (answer.status_code, answer.content) == (204, b"")
    assert await listed(client, ENDPOINTS) == []
    problem_of(await client.delete(path, headers=ADMIN), 404, "not_found")


async def test_there_is_a_limit(client: httpx.AsyncClient) -> None:
    for _ in range(ENDPOINTS_MAX):
        await registered(client)
    answer = await client.post(ENDPOINTS, json={"url": URL}, headers=ADMIN)
    problem_of(answer, 409, "webhook_endpoint_limit_reached")


async def test_a_disabled_endpoint_is_enabled(client: httpx.AsyncClient, service: Service) -> None:
    endpoint = await registered(client)
    await service.webhooks.disable(endpoint["id"])
    (disabled,) = await listed(client, ENDPOINTS)
    assert disabled["disabled_at"] is not None
    for _ in range(2):
        answer = await client.post(f"{ENDPOINTS}/{endpoint['id']}/enable", headers=ADMIN)
        assert (answer.status_code, answer.json()["disabled_at"]) == (200, None)


BAD_ENDPOINTS: dict[str, tuple[Any, str]] = {
    "no URL": ({}, "url"),
    "an empty URL": ({"url": ""}, "url"),
    "a URL that is none": ({"url": "receiver"}, "url"),
    "a URL that is no text": ({"url": 1}, "url"),
    "another scheme": ({"url": "ftp://93.184.215.14/"}, "url"),
    "plain HTTP": ({"url": "http://93.184.215.14/"}, "url"),
    "credentials": ({"url": "https://me:secret@93.184.215.14/"}, "url"),
    "a space": ({"url": "https://93.184.215.14/a b"}, "url"),
    "a NUL": ({"url": "https://93.184.215.14/\0"}, "url"),
    "not ASCII": ({"url": "https://empfänger.example/"}, "url"),
    "too long": ({"url": URL + "x" * 2_000}, "url"),
    "loopback": ({"url": "https://127.0.0.1/"}, "url"),
    "loopback by name": ({"url": "https://localhost:8000/"}, "url"),
    "loopback as a number": ({"url": "https://2130706433/"}, "url"),
    "loopback in IPv6": ({"url": "https://[::ffff:127.0.0.1]/"}, "url"),
    "the cloud's metadata": ({"url": "https://169.254.169.254/latest/meta-data/"}, "url"),
    "a private address": ({"url": "https://10.0.0.1/"}, "url"),
    "no kinds": ({"url": URL, "kinds": []}, "kinds"),
    "an unknown kind": ({"url": URL, "kinds": ["order.abandoned"]}, "kinds.0"),
    "a kind twice": ({"url": URL, "kinds": ["order.held", "order.held"]}, "kinds"),
    "kinds as text": ({"url": URL, "kinds": "order.held"}, "kinds"),
    "null for all kinds": ({"url": URL, "kinds": None}, "kinds"),
    "a secret of one's own": ({"url": URL, "secret": "whsec_1"}, "secret"),
    "a list": ([URL], "body"),
}


@pytest.mark.parametrize(("body", "field"), BAD_ENDPOINTS.values(), ids=BAD_ENDPOINTS)
async def test_a_bad_endpoint(
    client: httpx.AsyncClient, service: Service, body: Any, field: str
) -> None:
    answer = await client.post(ENDPOINTS, json=body, headers=ADMIN)
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == [field]
    assert await count_rows(service, "SELECT count(*) FROM webhook_endpoints") == 0


@pytest.mark.parametrize("id_", [UNKNOWN_ID, "0", "%00", "x" * 32, "g" * 32, UNKNOWN_ID.upper()])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", ENDPOINTS + "/{}"),
        ("POST", ENDPOINTS + "/{}/enable"),
        ("POST", DELIVERIES + "/{}/resend"),
    ],
)
async def test_what_is_not_there(
    client: httpx.AsyncClient, method: str, path: str, id_: str
) -> None:
    answer = await client.request(method, path.format(id_), headers=ADMIN)
    problem_of(answer, 404, "not_found")


# -- deliveries


async def test_deliveries_are_listed_by_state(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    endpoint = await registered(client)
    order = await placed(client, (await make_event()).id)
    (pending,) = await listed(client, DELIVERIES)
    assert pending == {
        "id": pending["id"],
        "endpoint_id": endpoint["id"],
        "kind": "order.confirmed",
        "event_id": order["event_id"],
        "order_id": order["id"],
        "state": "pending",
        "attempts": 0,
        "created_at": order["created_at"],
        "next_attempt_at": order["created_at"],
        "ended_at": None,
        "last_error": None,
    }
    (message,) = await service.webhooks.claim(endpoint["id"], 1, 60)
    await service.webhooks.mark_failed(message.id, 1, "answered 500", None)
    (dead,) = await listed(client, DELIVERIES, state="dead")
    assert (dead["attempts"], dead["last_error"]) == (1, "answered 500")
    assert dead["ended_at"] is not None
    assert dead["next_attempt_at"] is None
    for state in ("pending", "delivered"):
        assert await listed(client, DELIVERIES, state=state) == []


async def test_a_dead_letter_is_sent_again(
    client: httpx.AsyncClient, service: Service, make_event: MakeEvent
) -> None:
    endpoint = await registered(client)
    await placed(client, (await make_event()).id)
    (message,) = await service.webhooks.claim(endpoint["id"], 1, 60)
    await service.webhooks.mark_failed(message.id, 1, "answered 500", None)
    path = f"{DELIVERIES}/{message.id}/resend"
    answer = await client.post(path, headers=ADMIN)
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["attempts"]) == ("pending", 0)
    assert await listed(client, DELIVERIES, state="dead") == []

    await service.webhooks.disable(endpoint["id"])
    problem_of(await client.post(path, headers=ADMIN), 409, "webhook_endpoint_disabled")


@pytest.mark.parametrize("state", [None, "pending"])
async def test_pages_of_deliveries(
    client: httpx.AsyncClient, make_event: MakeEvent, state: str | None
) -> None:
    """Complete and newest first, while others come."""
    await registered(client)
    event = await make_event()
    made = [(await placed(client, event.id))["id"] for _ in range(7)]
    params: dict[str, Any] = {"limit": 3} | ({"state": state} if state else {})
    seen: list[str] = []
    while True:
        page = (await client.get(DELIVERIES, params=params, headers=ADMIN)).json()
        seen += [delivery["order_id"] for delivery in page["data"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
        await placed(client, event.id)
    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"state": "lost"}, "state"),
        ({"state": ""}, "state"),
        ({"limit": "0"}, "limit"),
        ({"cursor": "%%%%"}, "cursor"),
        ({"cursor": "A" * 54}, "cursor"),
    ],
)
async def test_a_bad_question(
    client: httpx.AsyncClient, params: dict[str, str], field: str
) -> None:
    answer = await client.get(DELIVERIES, params=params, headers=ADMIN)
    problem = problem_of(answer, 422, "invalid_request")
    assert [fault["field"] for fault in problem["errors"]] == [field]


# -- the whole way


def test_what_is_sent_is_documented(app: Application) -> None:
    document = app.api.openapi()
    operation = document["webhooks"]["order"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/WebhookMessage"}
    message = document["components"]["schemas"]["WebhookMessage"]
    assert message["properties"]["data"] == {"$ref": "#/components/schemas/OrderOut"}
    assert set(document["components"]["schemas"]["WebhookKind"]["enum"]) == set(EVERY_KIND)


async def test_from_the_purchase_to_the_receiver(wire: httpx.AsyncClient) -> None:
    """Real processes: what the buyer does, the receiver is told, and can verify."""
    with Receiver() as receiver:
        endpoint = await registered(wire, receiver.url)
        event = await created(wire, payment="card")
        order = await placed(wire, event["id"], {**items(2), "payment": {"method": "ok"}})
        shown = (await wire.get(order_path(order), headers=as_buyer())).json()

        async def told() -> bool:
            return receiver.kinds() == ["order.confirmed", "order.held"]

        await wait_until(told)
        await asyncio.gather(
            *(
                wire.delete(f"{ENDPOINTS}/{found['id']}", headers=ADMIN)
                for found in await listed(wire, ENDPOINTS)
            )
        )
    messages = {
        received.message["type"]: received.verified(endpoint["secret"])
        for received in receiver.received
    }
    assert messages["order.confirmed"]["data"] == shown
    assert messages["order.held"]["data"] == shown | {
        "status": "held",
        "expires_at": messages["order.held"]["data"]["expires_at"],
    }
    for message in messages.values():
        WebhookMessage.model_validate(message)

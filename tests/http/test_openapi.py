"""The document: valid, with examples and every problem declared, and true of what is served."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpx
import jsonschema_rs
import pytest
from schemathesis.specs.openapi import definitions

from onsale.http.app import Application
from onsale.http.middleware import RequestContext
from tests.http.calls import orders_path
from tests.support import MakeEvent, as_buyer, items

PROBLEM = "application/problem+json"
# Stated once for all guarded routes; the others say so themselves.
ANYBODY = {
    ("/v1/events", "get"),
    ("/v1/events/{event_id}", "get"),
    ("/v1/events/{event_id}/availability", "get"),
    ("/v1/events/{event_id}/availability/stream", "get"),
    ("/healthz", "get"),
    ("/readyz", "get"),
}
HEALTH = {"/healthz", "/readyz"}


@dataclass(frozen=True)
class Operation:
    """One operation of the document."""

    path: str
    method: str
    content: dict[str, Any]

    @property
    def responses(self) -> dict[str, Any]:
        found: dict[str, Any] = self.content["responses"]
        return found

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


@pytest.fixture
def document(app: Application) -> dict[str, Any]:
    """The document as it is served."""
    return app.api.openapi()


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """Every operation."""
    for path, methods in document["paths"].items():
        for method, content in methods.items():
            yield Operation(path, method, content)


# -- the document by itself


async def test_the_document_is_served(client: httpx.AsyncClient, document: dict[str, Any]) -> None:
    assert (await client.get("/openapi.json")).json() == document


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    """By OpenAPI's own schema of documents."""
    assert document["openapi"].startswith("3.1")
    validator = jsonschema_rs.validator_for(definitions.OPENAPI_31)
    assert [error.message for error in validator.iter_errors(document)] == []
    broken = {**document, "paths": {"no-slash": {}}}
    assert not validator.is_valid(broken), "this validator refuses nothing"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(re.findall(r'"\$ref": ?"([^"]+)"', json.dumps(document))):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def test_every_operation_has_a_summary_and_a_name_of_its_own(document: dict[str, Any]) -> None:
    every = list(operations(document))
    names = [operation.content["operationId"] for operation in every]
    assert len(names) == len(set(names))
    for operation in every:
        assert operation.content["summary"], operation
        assert operation.content["description"], operation
        assert operation.content["tags"], operation


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for operation in operations(document):
        body = operation.content.get("requestBody")
        if body is None:
            continue
        media = body["content"]["application/json"]
        schema = schemas[media["schema"]["$ref"].rpartition("/")[2]]
        assert _has_example(schema), f"{operation}: {schema['title']}"


def _has_example(schema: dict[str, Any]) -> bool:
    properties = schema.get("properties", {}).values()
    return (
        "example" in schema
        or "examples" in schema
        or (bool(properties) and all("examples" in found for found in properties))
    )


def test_the_examples_are_valid(document: dict[str, Any]) -> None:
    """Each by its own schema: what is copied from the page works."""
    checked = 0
    for name, schema in document["components"]["schemas"].items():
        if "example" in schema:
            whole = {**schema, "components": document["components"]}
            validator = jsonschema_rs.validator_for(whole)
            errors = [error.message for error in validator.iter_errors(schema["example"])]
            assert errors == [], name
            checked += 1
    assert checked >= 4


def test_every_problem_is_declared_with_an_example(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for status, answer in operation.responses.items():
            if int(status) < 400 or operation.path in HEALTH:
                continue
            media = answer["content"][PROBLEM]
            assert media["schema"]["$ref"].endswith("/Problem"), operation
            for code, example in media["examples"].items():
                assert example["value"]["code"] == code
                assert example["value"]["status"] == int(status)
            assert set(answer["content"]) == {PROBLEM}, f"{operation} {status}: no other type"


def test_what_every_route_may_answer_is_declared(document: dict[str, Any]) -> None:
    for operation in operations(document):
        if operation.path in HEALTH:
            continue
        expected = {"503"}
        if (operation.path, operation.method) not in ANYBODY:
            expected |= {"401", "403"}
            assert operation.content["security"], operation
        if "{" in operation.path:
            expected |= {"404"}
        if "requestBody" in operation.content:
            expected |= {"413", "415", "422"}
        assert expected <= set(operation.responses), operation


def test_the_key_is_declared_as_required(document: dict[str, Any]) -> None:
    ordering = document["paths"]["/v1/events/{event_id}/orders"]["post"]
    key = next(found for found in ordering["parameters"] if found["name"] == "idempotency-key")
    assert key["required"] is True
    assert key["schema"]["examples"]


# -- the crowd's endpoint is the one that is documented

ORDERS: dict[str, tuple[dict[str, str | None], bytes | str]] = {
    "good": ({}, json.dumps(items())),
    "good, of two": ({}, json.dumps({"items": [*items()["items"], *items(2, "t2")["items"]]})),
    "sold out": ({}, json.dumps(items(100))),
    "no key": ({"Idempotency-Key": None}, json.dumps(items())),
    "a bad key": ({"Idempotency-Key": "k" * 256}, json.dumps(items())),
    "no token": ({"Authorization": None}, json.dumps(items())),
    "a bad token": ({"Authorization": "Bearer no"}, json.dumps(items())),
    "no body": ({}, b""),
    "not JSON": ({}, b"{"),
    "a bad quantity": ({}, json.dumps(items(0))),
    "an unknown field": ({}, json.dumps({**items(), "price": 0})),
    "an unknown tier": ({}, json.dumps(items(tier_id="balcony"))),
    "another type": ({"Content-Type": "text/plain"}, json.dumps(items())),
    "no type": ({"Content-Type": None}, json.dumps(items())),
    "too large": ({}, b" " * 70_000),
    "deep": ({}, b"[" * 60_000),
    "no token and no body": ({"Authorization": None}, b""),
}


@pytest.fixture
async def behind(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    """A client of FastAPI and what gives requests their ids, without what answers in front."""
    transport = httpx.ASGITransport(RequestContext(app.api))
    async with httpx.AsyncClient(transport=transport, base_url="http://onsale") as made:
        yield made


@pytest.mark.parametrize(("changed", "body"), ORDERS.values(), ids=ORDERS)
async def test_the_two_ways_to_order_answer_alike(
    client: httpx.AsyncClient,
    behind: httpx.AsyncClient,
    make_event: MakeEvent,
    changed: dict[str, str | None],
    body: bytes | str,
) -> None:
    """In front of FastAPI, where the crowd is served, and through it, as documented."""
    event = await make_event(10, 10)
    answers = []
    for asked in (client, behind):
        headers = as_buyer() | {"Content-Type": "application/json", "X-Request-ID": "twin"}
        for name, value in changed.items():
            headers.pop(name, None)
            if value is not None:
                headers[name] = value
        answers.append(await asked.post(orders_path(event.id), content=body, headers=headers))
    front, back = (_comparable(answer) for answer in answers)
    assert front == back


async def test_the_two_ways_find_each_others_orders(
    client: httpx.AsyncClient, behind: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event, headers = await make_event(), as_buyer()
    first = await behind.post(orders_path(event.id), json=items(), headers=headers)
    again = await client.post(orders_path(event.id), json=items(), headers=headers)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert again.json() == first.json()


def _comparable(answer: httpx.Response) -> dict[str, Any]:
    """An answer without what differs between two orders of the same, and two readers of a body."""
    headers, content = {**answer.headers}, answer.json()
    del headers["content-length"]
    if answer.status_code == 201:
        headers["location"] = headers["location"].rpartition("/")[0]
        content |= {name: type(content[name]) for name in ("id", "created_at", "expires_at")}
    elif "errors" in content:
        content["errors"] = [set(fault) for fault in content["errors"]][:1]
    return {"status": answer.status_code, "headers": headers, "content": content}


# -- the page


async def test_the_page_needs_no_other_host(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(wanted) >= 3, "a script, a stylesheet and an icon"
    assert re.search(r"https?://|//cdn", page.text) is None
    for address in wanted:
        asset = await client.get(urljoin("/docs", address))
        assert asset.status_code == 200, address
        assert len(asset.content) > 100, address
    assert "/openapi.json" in page.text

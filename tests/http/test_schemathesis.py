"""Schemathesis over the OpenAPI document: whatever is asked, what is answered was declared.

Real requests to the real process, in two halves: with ids that it invents, and with those of an
event and a hold that exist. The cases are the same in every run.
"""

import copy
from collections.abc import AsyncIterator
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from onsale.demo.stack import Stack
from onsale.http.app import create_app
from onsale.settings import Settings
from tests.http.calls import created, placed
from tests.support import SECRET, token

CASES_PER_OPERATION = 25

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

# An answer that does not end; `test_contract_wire.py` reads it.
LEFT_OUT = {"GET /v1/events/{event_id}/availability/stream"}

# Made, not started: the document needs no store.
DOCUMENT = create_app(Settings(auth_secret=SecretStr(SECRET))).api.openapi()


def _operations(document: dict[str, Any]) -> dict[str, Any]:
    """The document's operations by their labels, such as `GET /v1/events`."""
    found: Any = schemathesis.openapi.from_dict(document).get_all_operations()
    return {operation.ok().label: operation.ok() for operation in found}


OPERATIONS = {
    label: operation for label, operation in _operations(DOCUMENT).items() if label not in LEFT_OUT
}


def test_every_operation_is_asked() -> None:
    declared = {
        f"{method.upper()} {path}"
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    assert OPERATIONS.keys() == declared - LEFT_OUT


@pytest.fixture
async def existing(wire: httpx.AsyncClient) -> dict[str, str]:
    """The ids of an event on sale and of a hold of buyer-1."""
    event = await created(wire, payment="card")
    order = await placed(wire, event["id"])
    return {"event_id": event["id"], "order_id": order["id"], "tier_id": "t1"}


@pytest.fixture(autouse=True)
async def no_endpoints(wire: httpx.AsyncClient) -> AsyncIterator[None]:
    """Nobody sends to hosts that were invented."""
    yield
    headers = {"Authorization": f"Bearer {token('buyer-1', 'admin')}"}
    listed = await wire.get("/v1/webhook-endpoints", headers=headers)
    for endpoint in listed.json()["data"]:
        await wire.delete(f"/v1/webhook-endpoints/{endpoint['id']}", headers=headers)


@pytest.mark.parametrize("label", OPERATIONS)
def test_with_invented_ids(stack: Stack, label: str) -> None:
    _ask(stack, OPERATIONS[label], {})


@pytest.mark.parametrize("label", [label for label in OPERATIONS if "{" in label])
def test_with_ids_that_exist(stack: Stack, existing: dict[str, str], label: str) -> None:
    wanted = {name: value for name, value in existing.items() if f"{{{name}}}" in label}
    _ask(stack, OPERATIONS[label], {"path_parameters": wanted})


def test_an_answer_that_was_not_declared_is_found(stack: Stack) -> None:
    """The same with a document that has forgotten one status, or one field's type."""
    label, path = "GET /v1/events/{event_id}", "/v1/events/{event_id}"
    forgotten = copy.deepcopy(DOCUMENT)
    del forgotten["paths"][path]["get"]["responses"]["404"]
    with pytest.raises(FailureGroup, match="Undocumented status code"):
        _ask(stack, _operations(forgotten)[label], {})
    mistaken = copy.deepcopy(DOCUMENT)
    mistaken["components"]["schemas"]["Health"]["properties"]["status"] = {"type": "integer"}
    with pytest.raises(FailureGroup, match="Response violates schema"):
        _ask(stack, _operations(mistaken)["GET /healthz"], {})


def _ask(stack: Stack, operation: Any, fixed: dict[str, Any]) -> None:
    """Send good and bad cases of an operation as buyer-1, who may do everything."""
    authorization = {"Authorization": f"Bearer {token('buyer-1', 'buy admin ops')}"}
    cases = st.one_of(
        [operation.as_strategy(generation_mode=mode, **fixed) for mode in GenerationMode]
    )

    @hypothesis.settings(
        max_examples=CASES_PER_OPERATION,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def answers_as_declared(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(
            base_url=stack.base_url, headers=authorization, checks=CHECKS, timeout=10
        )

    answers_as_declared()

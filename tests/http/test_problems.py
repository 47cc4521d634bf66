"""Problems: every error has one, every code is of the contract, and none tells of the inside."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest
from redis.exceptions import ResponseError
from sqlalchemy.exc import ProgrammingError

from onsale.domain.errors import (
    FieldError,
    InvalidRequest,
    OnsaleError,
    PaymentDeclined,
    Refused,
    SaleNotOpen,
    Unavailable,
)
from onsale.http.app import Application
from onsale.http.problems import KINDS, InternalError, Problem, RateLimited, problem, refusal
from onsale.sales.service import Service
from tests.http.calls import INTERNALS, event_path, order_path, place, placed, problem_of
from tests.support import MakeEvent, as_buyer, with_scope

# The contract, written down a second time on purpose: a code that moves must be moved here too.
STATUSES = {
    400: {"idempotency_key_missing"},
    401: {"unauthenticated"},
    402: {"payment_declined"},
    403: {"forbidden"},
    404: {"not_found"},
    405: {"method_not_allowed"},
    409: {
        "sold_out",
        "buyer_limit_reached",
        "sale_not_open",
        "sale_paused",
        "sale_closed",
        "order_expired",
        "order_not_payable",
        "order_not_releasable",
        "order_not_refundable",
        "capacity_below_reserved",
        "request_in_progress",
        "webhook_endpoint_limit_reached",
        "webhook_endpoint_disabled",
    },
    413: {"body_too_large"},
    415: {"unsupported_media_type"},
    422: {"invalid_request", "idempotency_key_reused"},
    429: {"rate_limited"},
    500: {"internal_error"},
    503: {"overloaded", "ledger_unavailable"},
}
# Named by no route: any of them may answer so.
OF_EVERY_ROUTE = {"internal_error", "method_not_allowed"}

# Roots of the tree, which are never raised themselves.
ROOTS = {OnsaleError, Refused, Unavailable}


def _below(root: type[OnsaleError]) -> Iterator[type[OnsaleError]]:
    for child in root.__subclasses__():
        yield child
        yield from _below(child)


ERRORS = sorted({*_below(OnsaleError)} - ROOTS, key=lambda error: error.__name__)


def _example(error: type[OnsaleError]) -> OnsaleError:
    """One of its kind."""
    if error is SaleNotOpen:
        return SaleNotOpen(datetime.now(UTC), 60.0)
    if error is PaymentDeclined:
        return PaymentDeclined(bytes(16))
    if error is InvalidRequest:
        return InvalidRequest(FieldError("items.0.quantity", "too many"))
    return error()


# -- one place for all


def test_the_codes_are_those_of_the_contract() -> None:
    kinds = {code: kind.status for code, kind in KINDS.items()}
    assert kinds == {code: status for status, codes in STATUSES.items() for code in codes}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_a_problem(error: type[OnsaleError]) -> None:
    answer = problem(_example(error), "request-1")
    content = Problem.model_validate_json(answer.body)
    assert (content.code, content.status) == (error.code, answer.status)
    assert content.title == KINDS[error.code].title
    assert content.request_id == "request-1"
    # A sentence for people, from the class itself: no name of a class, no inside.
    assert content.detail == (error.__doc__ or "").strip()
    assert content.detail.endswith((".", ";")), content.detail
    assert INTERNALS.search(content.detail) is None


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_a_crowd_is_told_the_same(
    error: type[OnsaleError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen red with a body of another length than is said."""
    monkeypatch.setattr("random.random", lambda: 0.5)
    example = _example(error)
    for request_id in ("request-1", "5f0c1d7e9a3b4c2d8e6f7a8b9c0d1e2f"):
        told = problem(example, request_id).completed(request_id)
        assert refusal(example, request_id) == told


def test_every_code_has_an_error() -> None:
    """A code that no error carries is a promise nobody can keep."""
    assert {error.code for error in ERRORS} == set(KINDS)


def test_every_code_is_documented_at_a_route(app: Application) -> None:
    named = {
        code
        for operations in app.api.openapi()["paths"].values()
        for operation in operations.values()
        for answer in operation["responses"].values()
        for code in answer.get("content", {})
        .get("application/problem+json", {})
        .get("examples", {})
    }
    assert named == set(KINDS) - OF_EVERY_ROUTE


@pytest.mark.parametrize(
    "code", [code for code, kind in KINDS.items() if kind.status in (429, 503)]
)
def test_those_who_should_come_back_are_told_when_with_jitter(code: str) -> None:
    error = next(error for error in ERRORS if error.code == code)
    waits_seconds = {
        int(dict(problem(_example(error), "r").headers)[b"retry-after"]) for _ in range(100)
    }
    assert len(waits_seconds) > 1
    assert 1 <= min(waits_seconds) <= max(waits_seconds) <= 10


def test_being_rate_limited_is_a_429() -> None:
    """No request is limited yet, but the answer is of the contract."""
    assert problem(RateLimited(), "r").status == 429


# -- nothing of the inside

SECRET_OF_THE_HOUSE = "SELECT secret FROM orders"


def _sql_error() -> Exception:
    return ProgrammingError(SECRET_OF_THE_HOUSE, {}, asyncpg.UndefinedTableError("no such table"))


MISHAPS: dict[str, Callable[[], BaseException]] = {
    "a mistake of ours": lambda: RuntimeError(SECRET_OF_THE_HOUSE),
    "an assertion": lambda: AssertionError(SECRET_OF_THE_HOUSE),
    "an error of Postgres": lambda: asyncpg.PostgresSyntaxError(SECRET_OF_THE_HOUSE),
    "an error of SQLAlchemy": _sql_error,
    "an error of Redis": lambda: ResponseError(SECRET_OF_THE_HOUSE),
}


@pytest.fixture
def breaks(app: Application, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a method of one of the API's collaborators fail."""
    service: Service = app.api.state.service

    def break_(collaborator: str, method: str, error: BaseException) -> None:
        async def fail(*args: Any, **kwargs: Any) -> None:
            raise error

        monkeypatch.setattr(type(getattr(service, collaborator)), method, fail)

    return break_


# Seen red with the error's own words as the detail.
@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
async def test_a_mishap_is_an_internal_error_and_no_more(
    client: httpx.AsyncClient,
    make_event: MakeEvent,
    breaks: Callable[..., None],
    mishap: Callable[[], BaseException],
) -> None:
    event = await make_event()
    order = await placed(client, event.id)
    for collaborator, method in (("placing", "place"), ("ledger", "get"), ("events", "page")):
        breaks(collaborator, method, mishap())
    answers = [
        await place(client, event.id),
        await client.get(order_path(order), headers=as_buyer()),
        await client.get("/v1/events"),
    ]
    for answer in answers:
        content = problem_of(answer, 500, "internal_error")
        assert "secret" not in answer.text
        assert set(content) == {"type", "title", "status", "detail", "code", "request_id"}


async def test_a_mishap_has_the_id_that_the_client_gave(
    client: httpx.AsyncClient, make_event: MakeEvent, breaks: Callable[..., None]
) -> None:
    event = await make_event()
    breaks("placing", "place", RuntimeError(SECRET_OF_THE_HOUSE))
    breaks("events", "get", RuntimeError(SECRET_OF_THE_HOUSE))
    given = {"X-Request-ID": "mishap-1"}
    for answer in (
        await place(client, event.id, headers=as_buyer() | given),
        await client.get(event_path(event.id), headers=given),
    ):
        assert problem_of(answer, 500, "internal_error")["request_id"] == "mishap-1"


async def test_a_mishap_after_the_order_is_durable_is_mended_by_asking_again(
    client: httpx.AsyncClient,
    make_event: MakeEvent,
    breaks: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the 500 advises works: the same key finds the order."""
    event, headers = await make_event(), as_buyer()
    with monkeypatch.context() as broken:
        broken.setattr("onsale.http.intake.OrderOut.json_of", _raise_runtime_error)
        problem_of(await place(client, event.id, headers=headers), 500, "internal_error")
    again = await place(client, event.id, headers=headers)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")


def _raise_runtime_error(*_: object) -> None:
    raise RuntimeError(SECRET_OF_THE_HOUSE)


async def test_the_words_that_are_looked_for_would_be_found() -> None:
    """`problem_of` looks for these in every problem of this room."""
    for leak in (
        'Traceback (most recent call last): File "/app/onsale/http/app.py", line 1',
        "sqlalchemy.exc.ProgrammingError",
        "asyncpg.exceptions.UndefinedTableError",
        'new row for relation "tiers" violates check constraint "tiers_stock"',
        "postgresql+asyncpg://onsale@127.0.0.1/onsale",
        SECRET_OF_THE_HOUSE,
        "RuntimeError: boom",
    ):
        assert INTERNALS.search(leak), leak


async def test_a_scope_that_is_missing_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json={}, headers=with_scope("buy"))
    assert "'admin'" in problem_of(answer, 403, "forbidden")["detail"]


def test_an_internal_error_is_no_refusal() -> None:
    """It counts against the error budget; a refusal does not."""
    assert not issubclass(InternalError, Refused)

"""What an answer means: a word that stands, or something that may have happened."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from onsale.chaos.client import Client
from onsale.chaos.history import History, Operation, OrderName, Outcome
from onsale.embedded import free_port
from tests.support import SECRET

NAME = OrderName("e" * 32, "ann", "press-1")
TIMEOUT_SECONDS = 0.2


@asynccontextmanager
async def api(status: int | None, body: dict[str, Any]) -> AsyncIterator[str]:
    """An API that answers everything alike; with no status, it takes requests and goes away."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if status is not None:
            content = json.dumps(body).encode()
            writer.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n" % (status, len(content)))
            writer.write(content)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def place(address: str, hangs_up_after_seconds: float | None = None) -> Operation:
    history = History()
    async with Client({"api-1": address}, SECRET, history, TIMEOUT_SECONDS) as client:
        placed = await client.place(
            "api-1", NAME, (("ga", 1),), hangs_up_after_seconds=hangs_up_after_seconds
        )
    assert history.operations == [placed]
    assert placed.answered_at_seconds is not None
    return placed


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (409, "sold_out", Outcome.FAILED),
        (422, "idempotency_key_reused", Outcome.FAILED),
        (503, "overloaded", Outcome.FAILED),
        (503, "ledger_unavailable", Outcome.UNKNOWN),
        (500, "internal_error", Outcome.UNKNOWN),
    ],
)
async def test_a_refusal_stands_and_other_errors_promise_nothing(
    status: int, code: str, outcome: Outcome
) -> None:
    async with api(status, {"code": code}) as address:
        placed = await place(address)
    assert (placed.outcome, placed.code) == (outcome, code)
    assert not placed.acknowledged


async def test_an_order_is_acknowledged() -> None:
    async with api(201, {"id": "f" * 32, "status": "held"}) as address:
        placed = await place(address)
    assert placed.outcome is Outcome.OK
    assert (placed.order_id, placed.order_status) == ("f" * 32, "held")


async def test_a_declined_payment_acknowledges_the_hold() -> None:
    async with api(402, {"code": "payment_declined", "order_id": "f" * 32}) as address:
        placed = await place(address)
    assert placed.outcome is Outcome.FAILED
    assert placed.acknowledged


async def test_a_request_that_never_left_has_failed() -> None:
    placed = await place(f"http://127.0.0.1:{free_port()}")
    assert (placed.outcome, placed.code) == (Outcome.FAILED, "ConnectError")


async def test_a_connection_that_breaks_may_have_done_it() -> None:
    async with api(None, {}) as address:
        placed = await place(address)
    assert placed.outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(("hangs_up", "code"), [(None, "ReadTimeout"), (0.05, "hung_up")])
async def test_time_that_runs_out_is_never_a_failure(hangs_up: float | None, code: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        placed = await place(address, hangs_up)
    assert (placed.outcome, placed.code) == (Outcome.UNKNOWN, code)

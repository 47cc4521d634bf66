"""What only the wire shows: bodies in chunks, clients that go away, streams, ids, the end."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from os import environ
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from onsale.demo.stack import Stack
from onsale.embedded import free_port, spawn_child, stop_child
from onsale.settings import Settings
from tests.http.calls import (
    created,
    event_path,
    orders_path,
    place,
    placed,
    problem_of,
    started,
)
from tests.support import SECRET, MakeEvent, as_buyer, items, wait_until, with_scope

JSON = {"Content-Type": "application/json"}
ORDER = json.dumps(items()).encode()


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """A body whose length is not said before it ends."""
    for part in parts:
        yield part


# -- bodies


async def test_a_body_in_chunks(wire: httpx.AsyncClient) -> None:
    event = await created(wire)
    answer = await wire.post(
        orders_path(event["id"]),
        content=chunks(ORDER[:10], ORDER[10:]),
        headers=as_buyer() | JSON,
    )
    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/{event}/orders"])
async def test_a_body_in_chunks_is_limited_too(wire: httpx.AsyncClient, path: str) -> None:
    event = await created(wire)
    answer = await wire.post(
        path.format(event=event["id"]),
        content=chunks(ORDER, *[b" " * 10_000] * 7),
        headers=as_buyer() | with_scope("buy admin") | JSON,
    )
    problem_of(answer, 413, "body_too_large")
    seen = await wire.get(event_path(event["id"], "availability"))
    assert seen.json()["tiers"][0]["available"] == 100


@pytest.mark.parametrize("length", [b"many", b"-5", b"1e3", b"5, 6", b"\xff"])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/events/{event}/orders"])
async def test_a_length_that_is_none(
    stack: Stack, wire: httpx.AsyncClient, path: str, length: bytes
) -> None:
    event = await created(wire)
    request = _request(path.format(event=event["id"]), ORDER, length)
    async with _connected(stack) as (reader, writer):
        writer.write(request)
        await writer.drain()
        assert (await reader.readline()).split()[1].startswith(b"4")


# -- clients that go away


async def test_a_client_that_goes_away_before_it_has_said_all(
    stack: Stack, wire: httpx.AsyncClient
) -> None:
    event = await created(wire)
    async with _connected(stack) as (_, writer):
        writer.write(_request(orders_path(event["id"]), ORDER, b"%d" % (len(ORDER) + 1)))
        await writer.drain()
        await _in_flight(stack, 1)
    await _in_flight(stack, 0)
    seen = await wire.get(event_path(event["id"], "availability"))
    assert seen.json()["tiers"][0]["available"] == 100


async def test_a_client_that_goes_away_before_the_answer_has_its_order(
    stack: Stack, wire: httpx.AsyncClient
) -> None:
    """The commit is the batch's, not the client's: whoever hung up finds the order by its key."""
    event = await created(wire)
    for number in range(10):
        async with _connected(stack) as (_, writer):
            writer.write(_request(orders_path(event["id"]), ORDER, key=f"gone-{number}"))
            await writer.drain()

    async def all_are_there() -> bool:
        seen = await wire.get(event_path(event["id"], "audit"), headers=with_scope("ops"))
        return bool(seen.json()["tiers"][0]["sold"] == 10)

    await wait_until(all_are_there)
    again = await place(wire, event["id"], headers=as_buyer(key="gone-3"))
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")


def _request(path: str, body: bytes, length: bytes | None = None, key: str = "by-hand") -> bytes:
    """A POST written by hand."""
    headers = as_buyer(key=key) | with_scope("buy admin", "buyer-1") | JSON | {"Host": "onsale"}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join(lines).encode()
    said = b"%d" % len(body) if length is None else length
    return head + b"\r\nContent-Length: " + said + b"\r\n\r\n" + body


@asynccontextmanager
async def _connected(
    stack: Stack,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _in_flight(stack: Stack, requests: int) -> None:
    """Wait until the process says that it is answering so many requests."""

    async def so_many() -> bool:
        async with httpx.AsyncClient(timeout=60) as scraper:
            scrape = await scraper.get(f"http://127.0.0.1:{stack.metrics_port}/metrics")
        return any(
            sample.value == requests
            for family in text_string_to_metric_families(scrape.text)
            for sample in family.samples
            if sample.name == "onsale_http_requests_in_flight"
        )

    await wait_until(so_many)


# -- streams


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """What a stream of server-sent events tells, read as a browser reads it."""
    kind, data = "", ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            data += line.removeprefix("data: ")
        elif line == "" and data:
            assert kind == "availability"
            yield json.loads(data)
            kind, data = "", ""


async def test_a_stream_tells_what_changes(wire: httpx.AsyncClient) -> None:
    event = await created(wire)
    path = event_path(event["id"], "availability")
    async with wire.stream("GET", f"{path}/stream") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-request-id"]
        told = _events(answer)
        first = await anext(told)
        assert first["state"] == "open"
        assert first["tiers"] == [{"id": "t1", "capacity": 100, "available": 100}]
        await placed(wire, event["id"], items(3))
        second = await anext(told)
        assert second["tiers"] == [{"id": "t1", "capacity": 100, "available": 97}]
        await wire.post(event_path(event["id"], "pause"), headers=with_scope("admin"))
        assert (await anext(told))["state"] == "paused"
        assert set(second) == set((await wire.get(path)).json())


async def test_streams_are_limited_and_make_way(stack: Stack, wire: httpx.AsyncClient) -> None:
    """Two are allowed here (see the fixture `stack`), even to six who come at once."""
    event = await created(wire)
    path = event_path(event["id"], "availability/stream")

    async def opened() -> httpx.Response:
        return await wire.send(wire.build_request("GET", path), stream=True)

    await _in_flight(stack, 0)
    answers = await asyncio.gather(*(opened() for _ in range(6)))
    refused = [answer for answer in answers if answer.status_code != 200]
    for answer in refused:
        await answer.aread()
        problem_of(answer, 503, "overloaded")
    for answer in answers:
        await answer.aclose()
    assert len(refused) == 4
    # A stream that its reader closed makes way.
    await _in_flight(stack, 0)
    answer = await opened()
    assert answer.status_code == 200
    await answer.aclose()


async def test_streams_that_open_in_one_moment_share_the_limit(
    settings: Settings, make_event: MakeEvent
) -> None:
    """In this process, where no network spaces them out: seen red with a limit that was checked
    when a stream was asked for and counted when it began.
    """
    path = event_path((await make_event()).id, "availability/stream")
    limited = settings.model_copy(update={"availability_streams_max": 2})
    async with started(limited) as (_, client):
        asked = [asyncio.create_task(client.get(path)) for _ in range(6)]

        async def four_are_refused() -> bool:
            return sum(task.done() for task in asked) == 4

        await wait_until(four_are_refused)
    # The application has stopped, and with it the streams.
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [200] * 2 + [503] * 4


# -- the ids of requests


@pytest.mark.parametrize("given", ["a", "press-1", "A.b_c:9-" * 16])
async def test_an_id_that_is_given_is_kept(wire: httpx.AsyncClient, given: str) -> None:
    event = await created(wire)
    for answer in (
        await wire.get("/healthz", headers={"X-Request-ID": given}),
        await place(wire, event["id"], headers=as_buyer() | {"X-Request-ID": given}),
    ):
        assert answer.headers.get_list("x-request-id") == [given]
    for answer in (
        await wire.get("/v1/orders", headers={"X-Request-ID": given}),
        await place(wire, event["id"], headers={"X-Request-ID": given}),
    ):
        assert problem_of(answer, 401, "unauthenticated")["request_id"] == given


@pytest.mark.parametrize(
    "given", [None, b"", b"a b", b"x" * 129, b"\xff", b'"quoted"', b"a,b", b"<script>"]
)
async def test_an_id_that_is_not_decent_is_replaced(
    wire: httpx.AsyncClient, given: bytes | None
) -> None:
    event = await created(wire)
    headers = [] if given is None else [(b"x-request-id", given)]
    answers = [
        await wire.get("/v1/orders", headers=headers),
        await wire.post(orders_path(event["id"]), headers=headers),
    ]
    ids = {problem_of(answer, 401, "unauthenticated")["request_id"] for answer in answers}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)


# -- the end


@pytest.fixture
def lone_api(settings: Settings, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A process of the API alone, to be stopped, and its address."""
    port = free_port()
    env = {
        **environ,
        "ONSALE_DATABASE_URL": settings.database_url,
        "ONSALE_REDIS_URL": settings.redis_url,
        "ONSALE_AUTH_SECRET": SECRET,
        "ONSALE_PORT": str(port),
        "ONSALE_METRICS_PORT": "0",
        "ONSALE_SHUTDOWN_SECONDS": "300",
        "ONSALE_AVAILABILITY_STREAM_INTERVAL_SECONDS": "0.05",
    }
    log_path = tmp_path / "api.log"
    child = spawn_child([sys.executable, "-m", "onsale", "serve"], env=env, log_path=log_path)
    yield child, f"http://127.0.0.1:{port}"
    stop_child(child, timeout_seconds=0.1)


async def test_the_process_ends_well_with_a_stream_open(
    lone_api: tuple["subprocess.Popen[bytes]", str],
) -> None:
    """Told to stop, it ends the streams itself. It would wait for a stream that does not end for
    the 300 seconds given to it here, which nobody who deploys it has.
    """
    child, base_url = lone_api
    async with httpx.AsyncClient(base_url=base_url, timeout=60) as client:

        async def ready() -> bool:
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        async def ended() -> bool:
            return child.poll() is not None

        await wait_until(ready)
        event = await created(client)
        path = event_path(event["id"], "availability/stream")
        async with client.stream("GET", path) as answer:
            told = _events(answer)
            await anext(told)
            child.terminate()
            async with asyncio.timeout(20):
                # Ended, not cut: a stream that is cut raises here.
                assert [event async for event in told] == []
        await wait_until(ended)
    assert child.returncode == 0

"""Traces as a receiver gets them, from real processes under real requests; and that there are none
where they are off.
"""

import asyncio
import gc
import json
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import redis.asyncio
from opentelemetry.trace import SpanKind
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pydantic import SecretStr

from onsale.demo.stack import Stack
from onsale.http.answers import Answer
from onsale.http.app import create_app
from onsale.http.protocol import WHOLE_ANSWER
from onsale.http.traced import Heard
from onsale.observability import tracing
from onsale.observability.tracing import ROOT, Tracing
from onsale.sales.group_commit import Pending
from onsale.sales.traced import LINKS_MAX, Stages
from onsale.settings import Settings
from tests.http.calls import created, order_path, orders_path, place, placed
from tests.observability.collector import Collector, Told
from tests.support import SECRET, as_buyer, items, wait_until, with_scope
from tests.webhooks.receiver import Receiver

ORDERS = "POST /v1/events/{event_id}/orders"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    """Real processes that trace every request, on stores of their own."""
    env = {
        "ONSALE_TRACING_ENDPOINT": collector.url,
        "ONSALE_TRACING_SAMPLE_SHARE": "1",
        "ONSALE_TRACING_REQUESTS_PER_SECOND_MAX": "1000000",
    }
    with Stack(tmp_path_factory.mktemp("traced"), SECRET, env=env) as made:
        yield made


@pytest.fixture
async def wire(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=60) as made:
        yield made


async def request_of(collector: Collector, event: dict[str, Any], name: str = ORDERS) -> Told:
    """The span of the first request of that name for an event."""
    return await collector.heard(
        lambda span: span.name == name and span.attributes.get("onsale.event_id") == event["id"]
    )


def named(name: str) -> Callable[[Told], bool]:
    return lambda span: span.name == name


async def below(collector: Collector, parent: Told, name: str) -> Told:
    return await collector.heard(
        lambda span: span.name == name and span.parent_id == parent.span_id
    )


async def linked(collector: Collector, span: Told) -> Told:
    """The one that a span has a link to."""
    (link,) = span.links
    return await collector.heard(lambda other: other.span_id == link)


# -- what a receiver gets


async def test_a_request_leads_to_its_batches_and_back(
    wire: httpx.AsyncClient, collector: Collector
) -> None:
    event = await created(wire)
    await placed(wire, event["id"])
    request = await request_of(collector, event)
    assert (request.process, request.kind, request.parent_id) == ("onsale-api", "SERVER", "")
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/events/{event_id}/orders",
        "http.response.status_code": 201,
        "onsale.event_id": event["id"],
    }
    for stage, call in (("gate", "gate.admit_all"), ("ledger", "ledger.place")):
        waited = await below(collector, request, f"in {stage} batch")
        batch = await linked(collector, waited)
        assert waited.trace_id == request.trace_id != batch.trace_id
        assert (batch.name, batch.parent_id) == (f"{stage} batch", "")
        assert request.span_id in batch.links
        assert batch.attributes["onsale.batch.size"] == batch.attributes["onsale.batch.traced"] == 1
        asked = await below(collector, batch, call)
        assert asked.attributes["onsale.orders"] == 1
        assert request.began_ns <= waited.began_ns <= batch.began_ns <= asked.began_ns
        assert waited.attributes["onsale.queued_seconds"] >= 0


async def test_the_gate_s_span_says_which_loading_was_asked(
    wire: httpx.AsyncClient, collector: Collector
) -> None:
    event = await created(wire)
    await placed(wire, event["id"])
    asked = await collector.heard(
        lambda span: span.attributes.get("onsale.event_ids") == [event["id"]]
    )
    (epoch,) = asked.attributes["onsale.epochs"]
    assert epoch
    assert (asked.kind, asked.attributes["onsale.events"]) == ("CLIENT", 1)


async def test_a_caller_s_trace_goes_on(wire: httpx.AsyncClient, collector: Collector) -> None:
    event = await created(wire)
    headers = {**as_buyer("traced"), "traceparent": f"00-{TRACE}-{CALLER}-01"}
    await placed(wire, event["id"], headers=headers)
    request = await request_of(collector, event)
    assert (request.trace_id, request.parent_id) == (TRACE, CALLER)
    assert (await below(collector, request, "in ledger batch")).trace_id == TRACE


async def test_who_is_in_line_behind_a_traced_request_is_not_traced_with_it(
    wire: httpx.AsyncClient, stack: Stack, collector: Collector
) -> None:
    """On one connection. Seen red: its batches stood below the request before it, and nothing
    bounded how many such there were.
    """
    event = await created(wire)
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    for flags in ("01", "00"):
        request = wire.build_request(
            "POST",
            orders_path(event["id"]),
            json=items(),
            headers=as_buyer() | {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"},
        )
        head = f"POST {request.url.path} HTTP/1.1\r\n".encode()
        fields = b"".join(b"%b: %b\r\n" % field for field in request.headers.raw)
        writer.write(head + fields + b"\r\n" + request.content)
    for _ in range(2):
        assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
        fields = await reader.readuntil(b"\r\n\r\n")
        (length,) = re.findall(rb"content-length: (\d+)", fields)
        await reader.readexactly(int(length))
    writer.close()
    first = await request_of(collector, event)
    # Spans are sent in their order.
    last = await created(wire)
    await placed(wire, last["id"])
    await request_of(collector, last)
    batches = [span for span in collector.spans if span.parent_id == first.span_id]
    assert sorted(span.name for span in batches) == ["in gate batch", "in ledger batch"]


async def test_who_is_refused_at_once_has_a_span_too(
    wire: httpx.AsyncClient, collector: Collector
) -> None:
    event = await created(wire, tiers=[{"id": "t1", "name": "One", "price": 1, "capacity": 1}])
    await placed(wire, event["id"])
    for _ in range(3):
        # By the gate, then from memory.
        answer = await place(wire, event["id"], headers=as_buyer("late"))
        assert answer.status_code == 409
    refused = await collector.heard(
        lambda span: (
            span.attributes.get("onsale.event_id") == event["id"]
            and span.attributes.get("onsale.code") == "sold_out"
        )
    )
    assert (refused.name, refused.kind, refused.failed) == (ORDERS, "SERVER", False)


async def test_a_payment_its_capture_and_its_webhook(
    wire: httpx.AsyncClient, collector: Collector
) -> None:
    event = await created(wire, payment="card")
    with Receiver() as receiver:
        admin = with_scope("admin", "organiser")
        made = await wire.post("/v1/webhook-endpoints", json={"url": receiver.url}, headers=admin)
        assert made.status_code == 201
        order = await placed(wire, event["id"], {**items(), "payment": {"method": "ok"}})
        assert order["status"] == "confirmed"
        request = await request_of(collector, event)
        await below(collector, request, "provider.authorize")
        for stage in ("payment_begin", "payment_confirm"):
            await below(collector, request, f"in {stage} batch")
        for name in ("provider.capture", "sender.send"):
            span = await collector.heard(named(name))
            assert (span.process, span.parent_id) == ("onsale-worker", "")
        assert span.attributes == {"onsale.outcome": "delivered"}
        await wire.delete(f"/v1/webhook-endpoints/{made.json()['id']}", headers=admin)


async def test_routes_of_the_framework_are_named_by_their_templates(
    wire: httpx.AsyncClient, collector: Collector
) -> None:
    event = await created(wire)
    order = await placed(wire, event["id"])
    await wire.get(order_path(order), headers=as_buyer())
    await wire.get("/v1/nowhere")
    name = "GET /v1/events/{event_id}/orders/{order_id}"
    assert (await request_of(collector, event, name)).attributes["http.route"] == name[4:]
    nowhere = await collector.heard(named("GET"))
    assert nowhere.attributes["http.response.status_code"] == 404
    assert "http.route" not in nowhere.attributes
    # Which were asked until the stack was ready.
    assert not any(span.name.endswith("z") for span in collector.spans)


async def test_nothing_of_the_buyer_is_told(wire: httpx.AsyncClient, collector: Collector) -> None:
    event = await created(wire, payment="card")
    headers = as_buyer("somebody-private", key="a-key-of-theirs")
    order = await placed(wire, event["id"], {**items(), "payment": {"method": "ok"}}, headers)
    await wire.get(order_path(order), headers=headers)
    await request_of(collector, event, "GET /v1/events/{event_id}/orders/{order_id}")
    told = "\n".join(map(str, collector.spans))
    assert event["id"] in told
    for private in ("somebody-private", "a-key-of-theirs", headers["Authorization"], order["id"]):
        assert private not in told


async def test_exemplars_lead_from_the_histogram_to_traces(
    wire: httpx.AsyncClient, stack: Stack, collector: Collector
) -> None:
    event = await created(wire)
    await placed(wire, event["id"])
    request = await request_of(collector, event)
    answer = await wire.get(
        f"http://127.0.0.1:{stack.metrics_port}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    shown = {
        (sample.labels["route"], sample.exemplar.labels["trace_id"])
        for family in text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
        if family.name == "onsale_http_request_duration_seconds"
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert ("/v1/events/{event_id}/orders", request.trace_id) in shown
    assert {route for route, _ in shown} >= {"/v1/events"}


# -- logs, while things are broken; the last of these leaves the stores in pieces


def lines(stack: Stack, process: str, said: str) -> list[dict[str, Any]]:
    """What a process logged under these words."""
    text = (stack.logs_dir / f"{process}.log").read_text()
    parsed = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    return [line for line in parsed if line["event"] == said]


async def test_a_line_of_a_batch_has_its_trace(
    wire: httpx.AsyncClient, stack: Stack, collector: Collector
) -> None:
    event = await created(wire)
    async with redis.asyncio.Redis.from_url(stack.redis_url) as gate:
        await gate.flushall()
    await placed(wire, event["id"])
    request = await request_of(collector, event)
    batch = await linked(collector, await below(collector, request, "in gate batch"))
    (line,) = [each for each in lines(stack, "api", "gate lost") if each["event_id"] == event["id"]]
    assert (line["trace_id"], line["span_id"]) == (batch.trace_id, batch.span_id)


async def test_a_broken_receiver_is_nobody_s_business(
    wire: httpx.AsyncClient, collector: Collector
) -> None:
    event = await created(wire)
    collector.hangs = True
    answers = await asyncio.gather(
        *(place(wire, event["id"], headers=as_buyer(f"buyer-{n}")) for n in range(50))
    )
    assert {answer.status_code for answer in answers} == {201}


async def test_a_line_of_a_request_has_its_trace(wire: httpx.AsyncClient, stack: Stack) -> None:
    event = await created(wire)
    os.kill(stack.pids["postgres"], signal.SIGKILL)
    headers = {**as_buyer(), "traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "lost-1"}

    async def refused() -> bool:
        # The server's sessions outlive it by a moment.
        path = orders_path(event["id"])
        answer = await wire.post(path, json=items(), headers=headers, timeout=30)
        return answer.status_code == 503

    await wait_until(refused)
    (line,) = [e for e in lines(stack, "api", "order not placed") if e["request_id"] == "lost-1"]
    assert line["trace_id"] == TRACE


# -- one process's part


async def test_a_batch_has_a_bounded_number_of_links() -> None:
    size = LINKS_MAX + 8

    async def answer_all(batch: list[Pending[int, int]]) -> None:
        for pending in batch:
            pending.answer(pending.job)

    with Collector() as collector:
        traced = Tracing(collector.url, 1, 1_000_000)
        traced.start("test")
        stage = Stages(traced)(
            answer_all, stage="test", batch_size_max=size, in_flight_max=1, queue_size_max=size
        )

        async def request(number: int) -> int:
            with traced.span("request", ROOT, kind=SpanKind.SERVER):
                return await stage.submit(number)

        assert await asyncio.gather(*map(request, range(size))) == list(range(size))
        await traced.close()
    (batch,) = [span for span in collector.spans if span.name == "test batch"]
    waits = [span for span in collector.spans if span.name == "in test batch"]
    assert len(batch.links) == LINKS_MAX
    assert len(waits) == batch.attributes["onsale.batch.size"] == size
    assert {span.links for span in waits} == {(batch.span_id,)}


async def test_a_batch_of_others_is_not_the_work_of_who_came_first() -> None:
    """Its task begins in the context of whoever let it depart, or of the batch before."""
    seen: list[object] = []

    async def look(batch: list[Pending[int, int]]) -> None:
        seen.append(tracing.current())
        for pending in batch:
            pending.answer(pending.job)

    traced = Tracing("http://127.0.0.1:9", 1, 1_000_000)
    stage = Stages(traced)(look, stage="test", batch_size_max=1, in_flight_max=1, queue_size_max=2)
    with traced.span("request", ROOT):
        first = asyncio.create_task(stage.submit(1))
        await asyncio.sleep(0)
    second = asyncio.create_task(stage.submit(2))
    await asyncio.gather(first, second)
    assert seen[0] is not None
    assert seen[1] is None


async def test_a_receiver_that_hangs_does_not_keep_a_process_from_ending() -> None:
    with Collector(hangs=True) as collector:
        traced = Tracing(collector.url, 1, 1_000_000)
        traced.start("test")
        for _ in range(1_000):
            with traced.span("request", ROOT):
                pass
        async with asyncio.timeout(15):
            await traced.close()
        assert collector.spans == []


@pytest.mark.parametrize(
    ("share", "flags", "is_traced"),
    [(0, "01", True), (0, "00", False), (1, "00", False), (1, "01", True)],
)
def test_a_caller_decides(share: float, flags: str, is_traced: bool) -> None:
    headers = [(b"traceparent", f"00-{TRACE}-{CALLER}-{flags}".encode())]
    assert (Tracing("http://none", share, 10).parent_of(headers) is not None) is is_traced


@pytest.mark.parametrize("header", [b"", b"\xff", b"00-0-0-01", b"00-" + b"0" * 32 + b"-x-01"])
def test_a_header_that_says_nothing_decides_nothing(header: bytes) -> None:
    headers = [(b"traceparent", header)]
    assert Tracing("http://none", 0, 10).parent_of(headers) is None
    assert Tracing("http://none", 1, 10).parent_of(headers) is ROOT


@pytest.mark.parametrize("asked", [True, False])
def test_a_crowd_is_not_traced_whole(asked: bool) -> None:
    """Neither of those who ask for it nor of those who are chosen: the pace holds both."""
    headers = [(b"traceparent", f"00-{TRACE}-{CALLER}-01".encode())] if asked else []
    slow = Tracing("http://none", 1, 0.001)
    assert sum(slow.parent_of(headers) is not None for _ in range(1_000)) == 1


def test_who_asks_takes_no_place_of_those_who_are_chosen() -> None:
    headers = [(b"traceparent", f"00-{TRACE}-{CALLER}-01".encode())]
    slow = Tracing("http://none", 1, 0.001)
    for _ in range(10):
        slow.parent_of(headers)
    assert slow.parent_of([]) is ROOT


async def test_a_traced_request_leaves_nothing_for_the_garbage_collector() -> None:
    """It would keep its connection with it. Seen red with the scope kept beside the answer."""

    async def nobody(message: object) -> None:
        raise AssertionError

    gc.disable()
    try:
        heard = Heard(nobody)
        scope = heard.listening({"extensions": {WHOLE_ANSWER: lambda answer: True}})
        assert scope["extensions"][WHOLE_ANSWER](Answer(200, b"", b"told"))
        assert heard.answer.body == b"told"
        alive = weakref.ref(heard)
        del heard, scope
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("path", "is_traced"),
    [("/v1/events", True), ("/readyz", False), ("/v1/events/e/availability/stream", False)],
)
async def test_what_has_no_span_has_none_when_it_is_refused(path: str, is_traced: bool) -> None:
    """Seen red, where a process that ends was asked whether it is ready."""
    with Collector() as collector:
        settings = Settings(
            auth_secret=SecretStr(SECRET),
            tracing_endpoint=collector.url,
            tracing_sample_share=1,
            tracing_requests_per_second_max=1_000_000,
        )
        app = create_app(settings)
        app.api.state.doors.close()
        traced = app.api.state.service.tracing
        assert traced is not None
        traced.start("test")
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        refused = app.refusal(scope)
        assert refused is not None
        assert refused.status == 503
        await traced.close()
        assert len(collector.spans) == is_traced


# -- off

LOADED = """
import sys
from onsale.http.app import create_app
from onsale.settings import Settings

for endpoint in ("", "http://127.0.0.1:9"):
    app = create_app(Settings(tracing_endpoint=endpoint))
    ours = ("onsale.observability.tracing", "opentelemetry.sdk.trace", "google.protobuf")
    print(type(app).__name__, *(name for name in ours if name in sys.modules))
"""


def test_nothing_is_loaded_unless_it_is_on() -> None:
    """FastAPI loads OpenTelemetry's API, whatever we do; what records and sends is the SDK's."""
    env = os.environ | {"ONSALE_AUTH_SECRET": SECRET}
    ended = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, env=env, check=False
    )
    assert ended.stdout.splitlines() == [
        "Application",
        "TracedApplication onsale.observability.tracing opentelemetry.sdk.trace google.protobuf",
    ], ended.stderr

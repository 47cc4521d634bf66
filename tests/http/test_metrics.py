"""What real processes tell of themselves: every metric moved by real traffic, labels bounded,
logs that a machine reads.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import pytest
import redis.asyncio
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from onsale.demo.stack import Stack
from onsale.http.metering import TurnCounter
from onsale.observability import metrics
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.http.calls import created, event_path, order_path, place, placed, problem_of
from tests.support import SECRET, as_buyer, items, wait_until, with_scope
from tests.webhooks.receiver import Receiver

ADMIN = with_scope("admin", "organiser")

DEFINED = {
    next(iter(metric.describe())).name: metric
    for metric in vars(metrics).values()
    if isinstance(metric, Counter | Gauge | Histogram)
}


# Still unless a rate limit is set or a disk is late; each says where it is seen to move.
ELSEWHERE = {
    "onsale_rate_limits_skipped": "tests/http/test_rate_limits.py",
    "onsale_gate_aof_delayed_fsyncs": "tests/gate/test_keeping.py",
}


@dataclass(frozen=True)
class Scrape:
    """What the metrics port of one process said."""

    samples: list[Sample]

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of the series of that name with these labels."""
        return [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        """Their sum."""
        return sum(self.values(name, **labels))

    def moved(self, metric: str) -> bool:
        """Whether any series of the metric, by its base name, is other than 0."""
        parts = (metric, f"{metric}_total", f"{metric}_count")
        return any(sample.value != 0 for sample in self.samples if sample.name in parts)


@dataclass
class Seen:
    """Both processes, the traffic they had, and every metric that was seen to move."""

    stack: Stack
    wire: httpx.AsyncClient
    event: dict[str, Any] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)

    async def scrape(self, process: str) -> Scrape:
        """Scrape `api` or `worker`, and remember what has moved."""
        ports = {"api": self.stack.metrics_port, "worker": self.stack.worker_metrics_port}
        answer = await self.wire.get(f"http://127.0.0.1:{ports[process]}/metrics")
        assert answer.status_code == 200
        found = Scrape(
            [
                sample
                for family in text_string_to_metric_families(answer.text)
                for sample in family.samples
            ]
        )
        self.moved |= {name for name in DEFINED if found.moved(name)}
        return found

    async def wait_for(self, process: str, reached: Callable[[Scrape], bool]) -> Scrape:
        """Scrape until it says so."""
        last = await self.scrape(process)

        async def told() -> bool:
            nonlocal last
            last = await self.scrape(process)
            return reached(last)

        await wait_until(told)
        return last

    async def order(self, key: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """An order of the event, its ids remembered."""
        order = await placed(self.wire, self.event["id"], body, self.buyer(key))
        self.ids.add(order["id"])
        return order

    def buyer(self, key: str) -> dict[str, str]:
        """Headers of the one buyer there is here."""
        return as_buyer("meter-reader", key=key)


@pytest.fixture(scope="module")
async def seen(stack: Stack) -> Any:
    """A sale with one of everything."""
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=60) as wire:
        made = Seen(stack, wire, ids={"meter-reader"})
        made.event = await created(wire, payment="card", max_per_buyer=40, hold_seconds=2)
        await _one_of_everything(made)
        yield made


async def _one_of_everything(seen: Seen) -> None:
    wire, event_id = seen.wire, seen.event["id"]
    for number, method in enumerate(("ok", "slow", "lost")):
        await seen.order(f"paid-{number}", {**items(2), "payment": {"method": method}})
    for method in ("declined", "timeout"):
        body = {**items(), "payment": {"method": method}}
        answer = await place(wire, event_id, body, seen.buyer(method))
        seen.ids.add(problem_of(answer, 402, "payment_declined")["order_id"])
    again = await place(
        wire, event_id, {**items(2), "payment": {"method": "ok"}}, seen.buyer("paid-0")
    )
    assert again.headers["idempotent-replayed"] == "true"
    released = await seen.order("released")
    assert (await wire.delete(order_path(released), headers=seen.buyer("any"))).status_code == 204
    refunded = order_path(again.json(), "refund")
    assert (await wire.post(refunded, headers=ADMIN)).status_code == 200
    problem_of(
        await place(wire, event_id, items(41), seen.buyer("many")), 409, "buyer_limit_reached"
    )
    problem_of(
        await place(wire, event_id, items(41), as_buyer("another")), 409, "buyer_limit_reached"
    )
    await seen.order("left-to-expire")
    await seen.wait_for(
        "worker", lambda scrape: scrape.total("onsale_orders_ended_total", reason="expired") > 0
    )


def _label(seen: Seen) -> dict[str, str]:
    return {"event": seen.event["id"]}


# -- each metric, moved


async def test_http(seen: Seen) -> None:
    """Both meters feed one set of names: the crowd's endpoint and FastAPI's routes."""
    before = await seen.scrape("api")
    await place(seen.wire, seen.event["id"], items(0), seen.buyer("bad"))
    await seen.wire.get(event_path(seen.event["id"]))
    await seen.wire.get("/nothing/here")
    # Of those that uvicorn's parser lets through, one that nobody serves.
    await seen.wire.request("PROPFIND", "/v1/orders")
    after = await seen.scrape("api")
    crowd, route = "/v1/events/{event_id}/orders", "/v1/events/{event_id}"
    for labels in (
        {"method": "POST", "route": crowd, "status": "422"},
        {"method": "GET", "route": route, "status": "200"},
        {"method": "GET", "route": "none", "status": "404"},
        {"method": "other", "status": "405"},
    ):
        total = "onsale_http_requests_total"
        assert after.total(total, **labels) == before.total(total, **labels) + 1, labels
    for labels in (
        {"method": "POST", "route": crowd, "status_class": "4xx"},
        {"method": "GET", "route": route, "status_class": "2xx"},
    ):
        count = "onsale_http_request_duration_seconds_count"
        assert after.total(count, **labels) == before.total(count, **labels) + 1, labels
    for path in (crowd, route):
        assert after.total("onsale_http_response_bytes_total", route=path) > before.total(
            "onsale_http_response_bytes_total", route=path
        )
    bounds = {
        sample.labels["le"]
        for sample in after.samples
        if sample.name == "onsale_http_request_duration_seconds_bucket"
    }
    # The objectives' bounds, as the recording rules spell them.
    assert {"0.5", "0.8", "1.0", "+Inf"} <= bounds


async def test_http_in_flight(seen: Seen) -> None:
    path = event_path(seen.event["id"], "availability/stream")
    in_flight = "onsale_http_requests_in_flight"
    await seen.wait_for("api", lambda scrape: scrape.values(in_flight) == [0])
    async with seen.wire.stream("GET", path) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await seen.wait_for("api", lambda scrape: scrape.values(in_flight) == [1])
    await seen.wait_for("api", lambda scrape: scrape.values(in_flight) == [0])


async def test_sale(seen: Seen) -> None:
    api, worker = await seen.scrape("api"), await seen.scrape("worker")
    event = _label(seen)
    orders = "onsale_orders_total"
    assert api.total(orders, outcome="held", **event) == 7
    assert api.total(orders, outcome="replayed", **event) == 1
    assert api.total(orders, outcome="limit", **event) == 2
    assert api.total("onsale_tickets_sold_total", tier="t1", **event) == 6
    assert api.total("onsale_revenue_minor_units_total", currency="EUR", **event) == 6 * 4_900
    assert api.total("onsale_orders_ended_total", reason="released", **event) == 1
    assert api.total("onsale_orders_ended_total", reason="refunded", **event) == 1
    # The two that were not paid for, and the one that nobody tried to pay for.
    expired = {"reason": "expired", **event}
    await seen.wait_for(
        "worker", lambda scrape: scrape.total("onsale_orders_ended_total", **expired) == 3
    )
    assert api.total("onsale_payments_total", outcome="ok") >= 3
    assert api.total("onsale_payments_total", outcome="declined") >= 1
    assert api.total("onsale_payments_total", outcome="timeout") >= 1
    assert api.total("onsale_payment_duration_seconds_count") >= 5
    assert api.total("onsale_checkout_duration_seconds_count") >= 3
    assert api.total("onsale_admissions_total", decision="accepted") >= 7
    assert worker.total("onsale_sales_open") >= 1


async def test_sold_out_and_not_open(seen: Seen) -> None:
    """Outcomes of events of their own; `confirmed` is that of an event without payment."""
    few = await created(seen.wire, tiers=[{"id": "t1", "name": "Few", "price": 100, "capacity": 1}])
    await placed(seen.wire, few["id"])
    problem_of(await place(seen.wire, few["id"]), 409, "sold_out")
    later = await created(seen.wire, sale_opens_at="2039-01-01T00:00:00Z")
    problem_of(await place(seen.wire, later["id"]), 409, "sale_not_open")
    api = await seen.scrape("api")
    orders = "onsale_orders_total"
    assert api.total(orders, outcome="confirmed", event=few["id"]) == 1
    assert api.total(orders, outcome="sold_out", event=few["id"]) == 1
    assert api.total(orders, outcome="not_open", event=later["id"]) == 1


async def test_stock_and_books(seen: Seen) -> None:
    """The worker tells what both stores say: four tickets of the paid orders are left sold."""

    def agrees(scrape: Scrape) -> bool:
        tier = {"tier": "t1", **_label(seen)}
        found = [
            scrape.values(f"onsale_stock_{what}", **tier)
            for what in ("available", "held", "sold", "capacity")
        ]
        return found == [[96], [0], [4], [100]]

    worker = await seen.wait_for("worker", agrees)
    assert worker.values("onsale_oversold_tickets", **_label(seen)) == [0]
    assert worker.values("onsale_gate_drift_orders", **_label(seen)) == [0]


async def test_a_hold_that_counts_as_held(seen: Seen) -> None:
    event = await created(seen.wire, payment="card")
    await placed(seen.wire, event["id"], items(3))
    held = {"event": event["id"], "tier": "t1"}
    await seen.wait_for("worker", lambda scrape: scrape.values("onsale_stock_held", **held) == [3])


async def test_the_workers_backlogs(seen: Seen) -> None:
    """Seen in the moment between what is due and its being done, again and again until caught."""
    many = [{"id": "t1", "name": "General admission", "price": 4_900, "capacity": 1_000_000}]
    event = await created(seen.wire, payment="card", hold_seconds=1, tiers=many)
    for name in ("onsale_sweeper_lag_seconds", "onsale_outbox_backlog"):

        async def busy(name: str = name) -> bool:
            await placed(seen.wire, event["id"], {**items(), "payment": {"method": "ok"}})
            await placed(seen.wire, event["id"])
            return (await seen.scrape("worker")).total(name) > 0

        await wait_until(busy)


async def test_webhooks(seen: Seen) -> None:
    """Told to a receiver that first hangs, so that messages queue up, and then refuses them."""
    with Receiver([500], hangs=True) as receiver:
        body = {"url": receiver.url, "kinds": ["order.confirmed"]}
        answer = await seen.wire.post("/v1/webhook-endpoints", json=body, headers=ADMIN)
        try:
            event = await created(seen.wire)
            for _ in range(2 * Settings().webhooks_in_flight_max):
                await placed(seen.wire, event["id"])
            await seen.wait_for(
                "worker", lambda scrape: scrape.total("onsale_webhook_lag_seconds") > 0
            )
            await seen.wait_for("worker", lambda scrape: scrape.total("onsale_webhook_backlog") > 0)
            receiver.go_on()
            worker = await seen.wait_for(
                "worker", lambda scrape: scrape.total("onsale_webhook_dead_letters") > 0
            )
        finally:
            endpoint = f"/v1/webhook-endpoints/{answer.json()['id']}"
            await seen.wire.delete(endpoint, headers=ADMIN)
    assert worker.total("onsale_webhook_attempts_total", outcome="refused") > 0
    assert worker.total("onsale_webhook_attempt_duration_seconds_count") > 0


async def test_the_reconciler(seen: Seen) -> None:
    """It finds an order that the gate has lost, and takes it in again."""
    worker = await seen.scrape("worker")
    last_success = "onsale_reconciler_last_success_timestamp_seconds"
    before = worker.total(last_success)
    assert before > 1_700_000_000
    order = await placed(seen.wire, (await created(seen.wire))["id"])
    service = Service.of(
        Settings(database_url=seen.stack.database_url, redis_url=seen.stack.redis_url)
    )
    try:
        event = (await service.catalog.reload(order["event_id"])).event
        assert event.gate_epoch is not None
        lost = [bytes.fromhex(order["id"])]
        assert (await service.gate.give_back(event.id, event.gate_epoch, lost))[0] == 1
    finally:
        await service.close()
    drift = {"event": order["event_id"]}
    await seen.wait_for(
        "worker", lambda scrape: scrape.total("onsale_gate_drift_orders", **drift) == 1
    )
    repairs = "onsale_reconciler_repairs_total"
    await seen.wait_for("worker", lambda scrape: scrape.total(repairs, kind="adopted") > 0)
    await seen.wait_for("worker", lambda scrape: scrape.total(last_success) > before)


async def test_group_commit(seen: Seen) -> None:
    before = await seen.scrape("api")
    event = await created(seen.wire)
    await asyncio.gather(*(placed(seen.wire, event["id"]) for _ in range(20)))
    after = await seen.scrape("api")
    for stage in ("gate", "ledger"):
        assert after.total("onsale_batch_size_sum", stage=stage) == (
            before.total("onsale_batch_size_sum", stage=stage) + 20
        )
        assert after.total("onsale_batch_duration_seconds_count", stage=stage) > before.total(
            "onsale_batch_duration_seconds_count", stage=stage
        )
        assert after.values("onsale_batch_queue_depth", stage=stage) == [0]


@pytest.mark.parametrize("process", ["api", "worker"])
async def test_stores_and_runtime(seen: Seen, process: str) -> None:
    scrape = await seen.scrape(process)
    assert scrape.total("onsale_db_pool_size_max") == 10
    assert {"idle", "in_use"} == {
        sample.labels["state"]
        for sample in scrape.samples
        if sample.name == "onsale_db_pool_connections"
    }
    assert scrape.total("onsale_db_pool_connections") >= 1
    assert scrape.values("onsale_db_pool_waiters") == [0]
    assert scrape.total("onsale_db_pool_acquire_seconds_count") > 0
    operations = {"api": ("place", "admit"), "worker": ("expire", "availability")}[process]
    for name, operation in zip(("db_query", "redis_operation"), operations, strict=True):
        count = f"onsale_{name}_duration_seconds_count"
        assert scrape.total(count, operation=operation) > 0, operation
    for dependency in ("postgres", "redis"):
        assert scrape.values("onsale_dependency_up", dependency=dependency) == [1]
    assert scrape.total("onsale_event_loop_lag_seconds_count") > 0
    assert scrape.total("onsale_cpu_wait_seconds_total") > 0
    assert scrape.total("onsale_log_write_seconds_total") > 0
    assert scrape.values("onsale_build_info") == [1]
    assert scrape.total("process_cpu_seconds_total") > 0
    assert scrape.total("process_resident_memory_bytes") > 0
    assert scrape.total("process_open_fds") > 0
    assert scrape.values("python_gc_collections_total")


async def test_the_gate_is_lost(seen: Seen, stack: Stack) -> None:
    """What is asked of it meanwhile the ledger decides, until the reconciler has loaded it anew."""
    rebuilt, alone = {"kind": "rebuilt"}, {"stage": "ledger_only"}
    before = await seen.scrape("worker")
    server = redis.asyncio.from_url(stack.redis_url)
    numbers = count()

    async def ledger_decides() -> bool:
        await server.flushall()
        await seen.order(f"while-lost-{next(numbers)}")
        return (await seen.scrape("api")).total("onsale_batch_size_count", **alone) > 0

    await wait_until(ledger_decides)
    await server.aclose()
    api = await seen.scrape("api")
    assert api.values("onsale_gate_mode", mode="ledger_only") == [1]
    assert api.values("onsale_gate_mode", mode="redis") == [0]
    repairs = "onsale_reconciler_repairs_total"
    await seen.wait_for(
        "worker", lambda scrape: scrape.total(repairs, **rebuilt) > before.total(repairs, **rebuilt)
    )

    async def gate_decides() -> bool:
        await seen.order(f"when-back-{next(numbers)}")
        return (await seen.scrape("api")).values("onsale_gate_mode", mode="redis") == [1]

    await wait_until(gate_decides)


async def test_the_ledger_is_full(seen: Seen, stack: Stack) -> None:
    """What it cannot write down is shed, and told in the log with the request's id."""
    engine = create_async_engine(stack.database_url)
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'no space' USING ERRCODE = 'disk_full'; END $$"
            )
        )
        await connection.execute(
            text("CREATE TRIGGER is_full BEFORE INSERT ON orders EXECUTE FUNCTION is_full()")
        )
    headers = seen.buyer("while-full") | {"X-Request-ID": "while-full-1"}
    answer = await place(seen.wire, seen.event["id"], headers=headers)
    async with engine.begin() as connection:
        await connection.execute(text("DROP FUNCTION is_full CASCADE"))
    await engine.dispose()
    problem_of(answer, 503, "ledger_unavailable")
    api = await seen.scrape("api")
    assert api.total("onsale_admissions_total", decision="shed") > 0
    assert api.total("onsale_orders_total", outcome="error", **_label(seen)) > 0
    lines = [json.loads(line) for line in _log(stack, "api")]
    assert any(
        line.get("request_id") == "while-full-1" and line["code"] == "ledger_unavailable"
        for line in lines
    )


async def test_errors_of_the_ledger(seen: Seen) -> None:
    """A capacity that its CHECK refuses."""
    event = await created(seen.wire)
    await placed(seen.wire, event["id"], items(2))
    path = event_path(event["id"], "tiers/t1")
    answer = await seen.wire.patch(path, json={"capacity": 1}, headers=ADMIN)
    problem_of(answer, 409, "capacity_below_reserved")
    api = await seen.scrape("api")
    assert api.total("onsale_db_errors_total", operation="set_capacity") > 0


async def test_errors_of_the_gate(seen: Seen) -> None:
    """A server that refuses to write, as one that is full does: the ledger admits."""
    event = await created(seen.wire)
    server = redis.asyncio.from_url(seen.stack.redis_url)
    await server.config_set("min-replicas-to-write", 1)
    try:
        await placed(seen.wire, event["id"])
    finally:
        await server.config_set("min-replicas-to-write", 0)
        await server.aclose()
    api = await seen.scrape("api")
    assert api.total("onsale_redis_errors_total", operation="admit") > 0


@asynccontextmanager
async def ledger_of(stack: Stack) -> AsyncIterator[AsyncEngine]:
    """Somebody else with a way into the ledger."""
    engine = create_async_engine(stack.database_url)
    try:
        yield engine
    finally:
        await engine.dispose()


async def test_what_waits_for_the_ledger(seen: Seen, stack: Stack) -> None:
    """Somebody holds the tiers: orders queue up for a batch, releases for a connection."""
    event = await created(seen.wire, payment="card")
    held = [await placed(seen.wire, event["id"], headers=as_buyer("holder")) for _ in range(14)]
    async with ledger_of(stack) as engine, engine.connect() as holder:
        await holder.execute(text("LOCK TABLE tiers IN EXCLUSIVE MODE"))
        waiting = [
            asyncio.create_task(seen.wire.delete(order_path(order), headers=as_buyer("holder")))
            for order in held
        ]
        await seen.wait_for("api", lambda scrape: scrape.total("onsale_db_pool_waiters") > 0)

        async def queued() -> bool:
            waiting.append(asyncio.create_task(place(seen.wire, event["id"])))
            return (await seen.scrape("api")).total("onsale_batch_queue_depth", stage="ledger") > 0

        await wait_until(queued)
        await holder.rollback()
        await asyncio.gather(*waiting)
    await seen.wait_for("api", lambda scrape: scrape.total("onsale_db_pool_waiters") == 0)
    await seen.wait_for("api", lambda scrape: scrape.total("onsale_batch_queue_depth") == 0)


@asynccontextmanager
async def an_order_at_fault(engine: AsyncEngine) -> AsyncIterator[dict[str, str]]:
    """Headers of a buyer whose orders the ledger cannot take, and everybody else's it can."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION at_fault() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'at fault' USING ERRCODE = 'data_exception'; END $$"
            )
        )
        await connection.execute(
            text(
                "CREATE TRIGGER at_fault BEFORE INSERT ON orders FOR EACH ROW"
                " WHEN (NEW.buyer_id = 'at-fault') EXECUTE FUNCTION at_fault()"
            )
        )
    try:
        yield as_buyer("at-fault")
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP FUNCTION at_fault CASCADE"))


async def test_a_batch_that_is_split(seen: Seen, stack: Stack) -> None:
    """One order of a batch is at fault: the others are placed all the same."""
    many = [{"id": "t1", "name": "General admission", "price": 4_900, "capacity": 1_000_000}]
    event = await created(seen.wire, tiers=many)
    presses: list[asyncio.Task[httpx.Response]] = []

    def press(headers: dict[str, str] | None = None) -> None:
        presses.append(asyncio.create_task(place(seen.wire, event["id"], headers=headers)))

    async def waiting() -> float:
        return (await seen.scrape("api")).total("onsale_batch_queue_depth", stage="ledger")

    async def queued() -> bool:
        press()
        return await waiting() > 0

    async def queued_together() -> bool:
        return await waiting() >= 3

    async with ledger_of(stack) as engine, an_order_at_fault(engine) as at_fault:
        async with engine.connect() as holder:
            await holder.execute(text("LOCK TABLE tiers IN EXCLUSIVE MODE"))
            await wait_until(queued)
            press(at_fault)
            press()
            await wait_until(queued_together)
        answers = await asyncio.gather(*presses)
    assert [answer.status_code for answer in answers] == [201] * (len(answers) - 2) + [500, 201]
    assert (await seen.scrape("api")).total("onsale_batch_splits_total") > 0


async def test_oversold(seen: Seen, stack: Stack) -> None:
    """Somebody takes the CHECK away, and then seats: it is told at once."""
    event = await created(seen.wire)
    await placed(seen.wire, event["id"], items(4))
    capacity = "UPDATE tiers SET capacity = {0} WHERE event_id = :event"
    found = {"event": event["id"]}
    async with ledger_of(stack) as engine:
        async with engine.begin() as connection:
            check = (
                await connection.execute(
                    text(
                        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
                        " WHERE conrelid = 'tiers'::regclass AND conname LIKE '%stock%'"
                    )
                )
            ).one()
            await connection.execute(text(f"ALTER TABLE tiers DROP CONSTRAINT {check[0]}"))
            await connection.execute(text(capacity.format(1)), found)
        await seen.wait_for(
            "worker", lambda scrape: scrape.values("onsale_oversold_tickets", **found) == [3]
        )
        async with engine.begin() as connection:
            await connection.execute(text(capacity.format(100)), found)
            await connection.execute(
                text(f"ALTER TABLE tiers ADD CONSTRAINT {check[0]} {check[1]}")
            )
    await seen.wait_for(
        "worker", lambda scrape: scrape.values("onsale_oversold_tickets", **found) == [0]
    )


async def test_a_gate_that_would_evict(seen: Seen) -> None:
    server = redis.asyncio.from_url(seen.stack.redis_url)
    await server.config_set("maxmemory-policy", "allkeys-lru")
    try:
        await seen.wait_for("worker", lambda scrape: scrape.total("onsale_gate_evicts") == 1)
    finally:
        await server.config_set("maxmemory-policy", "noeviction")
        await server.aclose()
    await seen.wait_for("worker", lambda scrape: scrape.total("onsale_gate_evicts") == 0)


# -- all of them


def still(moved: set[str]) -> set[str]:
    """Metrics that nothing has moved, here or elsewhere."""
    return DEFINED.keys() - moved - ELSEWHERE.keys()


# What it takes to move those that the sale's own traffic does not.
MOVERS: dict[str, Callable[[Seen], Awaitable[None]]] = {
    "onsale_http_requests_in_flight": test_http_in_flight,
    "onsale_stock_held": test_a_hold_that_counts_as_held,
    "onsale_sweeper_lag_seconds": test_the_workers_backlogs,
    "onsale_outbox_backlog": test_the_workers_backlogs,
    "onsale_webhook_attempts": test_webhooks,
    "onsale_webhook_attempt_duration_seconds": test_webhooks,
    "onsale_webhook_lag_seconds": test_webhooks,
    "onsale_webhook_backlog": test_webhooks,
    "onsale_webhook_dead_letters": test_webhooks,
    "onsale_gate_drift_orders": test_the_reconciler,
    "onsale_reconciler_repairs": test_the_reconciler,
    "onsale_db_errors": test_errors_of_the_ledger,
    "onsale_redis_errors": test_errors_of_the_gate,
    "onsale_gate_evicts": test_a_gate_that_would_evict,
}


# The same, by tests that reach into the ledger.
BREAKERS: dict[str, Callable[[Seen, Stack], Awaitable[None]]] = {
    "onsale_batch_queue_depth": test_what_waits_for_the_ledger,
    "onsale_db_pool_waiters": test_what_waits_for_the_ledger,
    "onsale_batch_splits": test_a_batch_that_is_split,
    "onsale_oversold_tickets": test_oversold,
}


async def test_every_metric_has_moved(seen: Seen, stack: Stack) -> None:
    """By the tests above, or here where they did not run."""
    for name, move in MOVERS.items():
        if name not in seen.moved:
            await move(seen)
    for name, break_it in BREAKERS.items():
        if name not in seen.moved:
            await break_it(seen, stack)
    both = [await seen.scrape("api"), await seen.scrape("worker")]
    assert still(seen.moved) == set()
    for name in DEFINED:
        parts = (name, f"{name}_total", f"{name}_count")
        assert any(sample.name in parts for scrape in both for sample in scrape.samples), (
            f"{name} has no series at any process"
        )


def test_a_metric_that_nothing_sets_is_found() -> None:
    everything = set(DEFINED) - {"onsale_revenue_minor_units"}
    assert still(everything) == {"onsale_revenue_minor_units"}


# -- labels


async def test_no_label_names_a_buyer_or_an_order(seen: Seen) -> None:
    for process in ("api", "worker"):
        for sample in (await seen.scrape(process)).samples:
            assert not seen.ids & set(sample.labels.values()), sample
            for name, value in sample.labels.items():
                assert name == "event" or len(value) < 60, sample


async def test_labels_of_routes_are_the_documents(seen: Seen) -> None:
    document = (await seen.wire.get("/openapi.json")).json()
    served = set(document["paths"]) | {"none", "/openapi.json", "/docs"}
    api = await seen.scrape("api")
    routes = {sample.labels["route"] for sample in api.samples if "route" in sample.labels}
    assert routes <= served
    methods = {sample.labels["method"] for sample in api.samples if "method" in sample.labels}
    assert methods <= {"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "other"}


async def test_many_events_fold_into_other(seen: Seen) -> None:
    """The newest keep their ids; the rest share one label, at both processes."""
    events = [await created(seen.wire) for _ in range(metrics.EVENTS_LABELLED_MAX + 5)]
    for event in events:
        await placed(seen.wire, event["id"])
    for event in events[:5]:
        await placed(seen.wire, event["id"])
    newest = {event["id"] for event in events[-metrics.EVENTS_LABELLED_MAX :]}

    def folded(scrape: Scrape) -> bool:
        by_name: defaultdict[str, set[str]] = defaultdict(set)
        for sample in scrape.samples:
            if "event" in sample.labels:
                by_name[sample.name].add(sample.labels["event"])
        # Each by itself: between one and the next of a scrape a new event may push out an old one.
        assert max(map(len, by_name.values())) <= metrics.EVENTS_LABELLED_MAX + 1
        return set().union(*by_name.values()) == newest | {metrics.OTHER_EVENTS}

    api = await seen.wait_for("api", folded)
    assert api.total("onsale_orders_total", event=metrics.OTHER_EVENTS) >= 5
    await seen.wait_for("worker", folded)


# -- logs


def _log(stack: Stack, process: str) -> list[str]:
    return (stack.logs_dir / f"{process}.log").read_text().splitlines()


@pytest.mark.parametrize("process", ["api", "worker"])
def test_every_line_of_the_log_is_an_object(stack: Stack, seen: Seen, process: str) -> None:
    lines = [json.loads(line) for line in _log(stack, process)]
    assert lines
    for line in lines:
        assert {"event", "level", "timestamp", "logger"} <= line.keys(), line


async def test_no_request_writes_a_line_when_all_is_well(stack: Stack, seen: Seen) -> None:
    """Not one line for each of thousands a second: they are counted."""
    given = {"X-Request-ID": "access-log-1"}
    event = await created(seen.wire)
    for answer in (
        await seen.wire.get(event_path(event["id"]), headers=given),
        await place(seen.wire, event["id"], headers=as_buyer() | given),
        await place(seen.wire, event["id"], items(0), headers=as_buyer() | given),
        await seen.wire.get("/v1/orders", headers=given),
    ):
        assert answer.headers["x-request-id"] == "access-log-1"
    written = "\n".join(_log(stack, "api"))
    assert "access-log-1" not in written
    assert "HTTP/1.1" not in written


def test_no_secret_is_in_a_log(stack: Stack, seen: Seen) -> None:
    for process in ("api", "worker"):
        written = "\n".join(_log(stack, process))
        assert SECRET not in written
        assert "Bearer " not in written


async def test_what_a_turn_counts_is_told_once() -> None:
    """Seen red with a turn's count kept for the next one."""
    counter = Counter("turns", "", registry=None)
    counted = TurnCounter(counter)
    for _ in range(2):
        for _ in range(3):
            counted.inc()
        await asyncio.sleep(0)
    assert next(sample.value for metric in counter.collect() for sample in metric.samples) == 6

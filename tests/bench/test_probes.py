"""The probes against real processes and real metrics pages."""

import asyncio
import os
import subprocess
import sys
import time
from functools import partial

import httpx
import pytest
from prometheus_client import generate_latest

from onsale.bench.errors import BenchError
from onsale.bench.probes import ApiCounters, Stores, cpu_seconds, resident_bytes
from onsale.domain.order import OrderStatus
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.http.intake import ROUTE
from tests.support import MakeEvent, as_buyer, items

CHILD_BURNS = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.3: pass"
subprocess.run([sys.executable, "-c", burn])  # has ended
running = subprocess.Popen([sys.executable, "-c", burn + "\\nprint(flush=True)\\ninput()"],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
running.stdout.readline()                     # still there
print("ready", flush=True)
sys.stdin.read()
"""


def test_cpu_counts_this_process() -> None:
    (before,) = cpu_seconds(os.getpid())
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert cpu_seconds(os.getpid())[0] - before >= 0.2


def test_cpu_counts_children_running_and_ended() -> None:
    """0.3 s of each child; the parent alone, or without the one that ended, is below that."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD_BURNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        assert cpu_seconds(parent.pid)[0] >= 0.58
        parent.communicate()


def test_cpu_and_memory_of_nobody_are_errors() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
        with pytest.raises(BenchError, match="cannot be read"):
            cpu_seconds(ended.pid)
        with pytest.raises(BenchError, match="cannot be read"):
            resident_bytes(ended.pid)


def test_memory_is_what_a_process_occupies() -> None:
    before = resident_bytes(os.getpid())
    occupied = b"x" * 50_000_000
    assert resident_bytes(os.getpid()) - before >= len(occupied) * 0.9


async def test_the_counters_are_those_of_the_crowds_endpoint(
    client: httpx.AsyncClient, make_event: MakeEvent
) -> None:
    event = await make_event(2)
    orders = f"/v1/events/{event.id}/orders"
    before = ApiCounters.parse([generate_latest().decode()], ROUTE)
    for _ in range(3):
        await client.post(orders, headers=as_buyer(), json=items())
    # Another route, another status of the same one, and the counters must know them apart.
    await client.get("/healthz")
    await client.post(orders, json=items())
    await asyncio.sleep(0)  # answers are counted at the end of a turn of the loop
    page = generate_latest().decode()
    counted = ApiCounters.parse([page], ROUTE).since(before)
    assert {status: count for status, count in counted.answers.items() if count} == {
        201: 2,
        401: 1,
        409: 1,
    }
    assert counted.in_flight == 0
    assert counted.batched["ledger"] == 2
    assert counted.batch_size_mean("ledger") == 1.0
    assert counted.since(counted).batch_size_mean("gate") is None
    by_two_processes = ApiCounters.parse([page, page], ROUTE).since(before).since(before)
    assert by_two_processes.batched["ledger"] == 2 * counted.batched["ledger"]
    assert by_two_processes.batch_size_mean("ledger") == 1.0


async def test_the_holdings_are_what_the_stores_hold(
    client: httpx.AsyncClient,
    make_event: MakeEvent,
    postgres: EmbeddedPostgres,
    valkey: EmbeddedValkey,
) -> None:
    event = await make_event(100)
    stores = Stores(postgres.url, valkey.url)
    confirmed = partial(stores.holdings_of_events, [event.id], OrderStatus.CONFIRMED)
    before = await asyncio.to_thread(confirmed)
    assert before.orders == 0
    for _ in range(5):
        answer = await client.post(
            f"/v1/events/{event.id}/orders", headers=as_buyer(), json=items()
        )
        assert answer.status_code == 201
    grown = (await asyncio.to_thread(confirmed)).since(before)
    assert grown.orders == 5
    assert grown.redis_bytes > 0
    assert grown.postgres_bytes >= 0
    held = await asyncio.to_thread(stores.holdings_of_events, [event.id], OrderStatus.HELD)
    assert held.orders == 0
    everything = await asyncio.to_thread(stores.holdings_of_schema, "public")
    assert everything.orders >= 5
    assert everything.postgres_bytes >= before.postgres_bytes > 0

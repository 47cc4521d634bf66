"""How long a lost gate takes to be loaded anew, and what buyers of another event notice of it.

    uv run python loadtest/bench/rebuild.py [--orders 1000000]

An event with so many live orders is at the same server as one on sale, to which a batch of orders
goes every few milliseconds, in an open loop: first in calm, then while a reconciler in a process of
its own rebuilds the large event's gate, then while it compares both stores. Everything runs on this
machine, on which generator, reconciler and both stores share the cores.
"""

import argparse
import asyncio
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop
from redis.asyncio import Redis

from onsale.bench.databases import tidy
from onsale.bench.filling import Press, copy_orders
from onsale.domain.event import Event, PaymentKind
from onsale.domain.ids import order_id
from onsale.domain.order import OrderStatus
from onsale.domain.tier import CAPACITY_UNITS_MAX
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.gate.gate import Gate
from onsale.gate.keys import event_keys
from onsale.ledger.events import NewEvent, NewTier
from onsale.ledger.migrations import migrate
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.reconciler import Reconciler

# 3,200 orders a second in batches as they come at that rate.
BATCH_ORDERS = 32
BATCH_EVERY_SECONDS = 0.01
CALM_SECONDS = 10.0
# The server keeps so many, of those that took longer.
SLOW_COMMANDS_MAX = 128
SLOW_COMMAND_US = 2_000


class Phase(NamedTuple):
    """What went on, for how long, how long the other event's batches took meanwhile, and for how
    long at most a command kept the server from everything else.
    """

    name: str
    seconds: float
    batch_ms: list[float]
    longest_command_ms: float

    def quantile_ms(self, share: float) -> float:
        """Within which time this share of the batches was decided."""
        return sorted(self.batch_ms)[math.ceil(share * len(self.batch_ms)) - 1]


async def measure(settings: Settings, orders: int) -> list[Phase]:
    """Fill a large event, and send orders to a small one while the large one's gate is rebuilt."""
    service = Service.of(settings)
    try:
        on_sale = await service.organising.create(an_event())
        large = await service.organising.create(an_event())
        presses = [Press(f"buyer-{n}", "key") for n in range(orders)]
        named = [(order_id(large.id, *press), press) for press in presses]
        await copy_orders(settings.database_url, large, named, OrderStatus.CONFIRMED)
        await tidy(settings.database_url)
        async with Redis.from_url(settings.redis_url) as redis:
            await redis.config_set("slowlog-log-slower-than", SLOW_COMMAND_US)
            await redis.unlink(*event_keys(large.id))
            probed = partial(probe, redis, service.gate, on_sale)
            phases = [
                await probed("calm", lambda: asyncio.sleep(CALM_SECONDS)),
                await probed("rebuild", lambda: reconcile(settings, full=False)),
                await probed("compare", lambda: reconcile(settings, full=True)),
            ]
        epoch = (await service.catalog.reload(large.id)).event.gate_epoch
        assert epoch is not None, "the gate was rebuilt"
        seen = await service.gate.availability(large.id, epoch)
        assert seen.available_units == {1: CAPACITY_UNITS_MAX - orders}
    finally:
        await service.close()
    return phases


def an_event() -> NewEvent:
    """An event of one tier."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    return NewEvent(
        name="The rebuild",
        venue=None,
        starts_at=now + 24 * hour,
        sale_opens_at=now - hour,
        sale_closes_at=now + hour,
        hold_seconds=600,
        max_per_buyer_units=0,
        payment=PaymentKind.NONE,
        currency="EUR",
        tiers=(NewTier("ga", "General admission", 1_000, CAPACITY_UNITS_MAX),),
    )


async def probe(
    redis: Redis, gate: Gate, event: Event, name: str, work: Callable[[], Awaitable[None]]
) -> Phase:
    """How long some work takes, with orders for an event meanwhile."""
    batch_ms: list[float] = []
    await redis.slowlog_reset()
    probing = asyncio.create_task(send(gate, event, batch_ms))
    started = time.perf_counter()
    await work()
    seconds = time.perf_counter() - started
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    slow = await redis.slowlog_get(SLOW_COMMANDS_MAX)
    longest_us = max((entry["duration"] for entry in slow), default=0)
    return Phase(name, seconds, batch_ms, longest_us / 1_000)


async def send(gate: Gate, event: Event, batch_ms: list[float]) -> None:
    """Send batches at their times, those that are late included, until cancelled."""
    due = time.perf_counter()
    async with asyncio.TaskGroup() as sent:
        while True:
            sent.create_task(admit(gate, event, due, batch_ms))
            due += BATCH_EVERY_SECONDS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def admit(gate: Gate, event: Event, due: float, batch_ms: list[float]) -> None:
    """One batch; its time begins when it was due."""
    assert event.gate_epoch is not None
    random = os.urandom(16 * BATCH_ORDERS)
    ids = (random[at : at + 16] for at in range(0, len(random), 16))
    await gate.admit(event.id, event.gate_epoch, [(id_, id_ + bytes((1, 1))) for id_ in ids])
    batch_ms.append((time.perf_counter() - due) * 1_000)


async def reconcile(settings: Settings, *, full: bool) -> None:
    """One pass of a reconciler in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(
        target=reconcile_here, args=(settings, full)
    )
    process.start()
    await asyncio.to_thread(process.join)
    if process.exitcode:
        raise SystemExit("the reconciler failed")


def reconcile_here(settings: Settings, full: bool) -> None:
    """What that process does."""

    async def run() -> None:
        service = Service.of(settings)
        try:
            repairs = await Reconciler(service).run_once(full=full)
            assert repairs.rebuilt == (not full), repairs
        finally:
            await service.close()

    uvloop.run(run())


def show(phases: list[Phase], orders: int) -> None:
    """The figures as a table."""
    print(f"{orders:,} live orders; batches of {BATCH_ORDERS} for another event")
    print("| phase | seconds | batch p50, ms | p99, ms | max, ms | longest command, ms |")
    print("|---|---|---|---|---|---|")
    for phase in phases:
        p50, p99, most = (phase.quantile_ms(share) for share in (0.5, 0.99, 1.0))
        print(
            f"| {phase.name} | {phase.seconds:.1f} | {p50:.1f} | {p99:.1f} | {most:.1f}"
            f" | {phase.longest_command_ms:.1f} |"
        )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--orders", type=int, default=1_000_000, help="live ones of the large event"
    )
    orders = parser.parse_args().orders
    with (
        tempfile.TemporaryDirectory(prefix="onsale-rebuild-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as postgres,
        EmbeddedValkey(Path(folder) / "valkey") as valkey,
    ):
        migrate(postgres.url)
        # A deadline is for buyers: here the slowest batch is to be seen.
        settings = Settings(
            database_url=postgres.url, redis_url=valkey.url, gate_deadline_seconds=10.0
        )
        show(uvloop.run(measure(settings, orders)), orders)


if __name__ == "__main__":
    main()

"""How many orders a second one core of the gate decides, which is the ceiling of one event.

    uv run python loadtest/bench/gate_ceiling.py [--seconds 2] [--rounds 3] [--drivers 1]

All keys of an event are in one slot, so one thread of one server decides all of its orders.
Drivers, processes of their own, send it batches by `Gate.admit` as the API's processes do, and have
the next one on its way while one is decided. The thread has a core to itself where there are two;
its CPU time is read from /proc (Linux). Orders a second are what these drivers could send; the
ceiling is what the thread would decide in a second of CPU.
"""

import argparse
import asyncio
import multiprocessing
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count, cycle, islice
from pathlib import Path
from statistics import median
from threading import Barrier
from typing import NamedTuple

import uvloop

from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.order import QUANTITY_PER_ITEM_MAX
from onsale.domain.tier import CAPACITY_UNITS_MAX, Tier
from onsale.embedded import EmbeddedValkey
from onsale.gate.epoch import make_epoch
from onsale.gate.gate import Gate
from onsale.settings import Settings

BATCH_SIZES = (1, 32, 256, 512)
# One is decided while the answer to the other is read and the next is made.
IN_FLIGHT = 2
# Enough that a repeated batch is not still in the processor's nearest cache.
REPEATED_BATCHES = 64

Batch = list[tuple[bytes, bytes]]


class Kind(StrEnum):
    """What becomes of the orders."""

    ADMITTED = "admitted"
    LIMITED = "admitted, limit per buyer"
    SOLD_OUT = "refused: sold out"
    REPEATED = "the same presses again"


class Turn(NamedTuple):
    """One measurement."""

    orders_per_second: float
    busy_share: float
    cpu_us_per_order: float


@dataclass(frozen=True)
class Work:
    """What a driver does, from the moment at which all of them are ready."""

    redis_url: str
    event_id: str
    epoch: str
    kind: Kind
    batch_size: int
    seconds: float


# -- in a driver's process

ready: Barrier


def enter(barrier: Barrier, cpus: Sequence[int]) -> None:
    """Begin a driver's process."""
    global ready
    ready = barrier
    os.sched_setaffinity(0, cpus)


def drive(work: Work) -> int:
    """Send batches until the time is up; how many orders were decided."""
    return uvloop.run(_drive(work))


async def _drive(work: Work) -> int:
    gate = Gate.connect(Settings(redis_url=work.redis_url))
    batches = make_batches(work)

    async def send(until: float) -> int:
        decided = 0
        for batch in batches:
            await gate.admit(work.event_id, work.epoch, batch)
            decided += len(batch)
            if time.monotonic() > until:
                break
        return decided

    async def send_all(seconds: float) -> int:
        until = time.monotonic() + seconds
        return sum(await asyncio.gather(*(send(until) for _ in range(IN_FLIGHT))))

    # Connections are made, and the script is sent, before anything is measured.
    await send_all(seconds=0.1)
    ready.wait()
    decided = await send_all(work.seconds)
    await gate.close()
    return decided


def make_batches(work: Work) -> Iterator[Batch]:
    """Batches without end, each order by a buyer of its own for one unit of the first tier."""
    new = (_batch(work.batch_size) for _ in count())
    return cycle(list(islice(new, REPEATED_BATCHES))) if work.kind is Kind.REPEATED else new


def _batch(size: int) -> Batch:
    random = os.urandom(16 * size)
    ids = (random[at : at + 16] for at in range(0, len(random), 16))
    # What the id is derived from is not the gate's business: its halves do for the other two.
    return [(id_, id_ + b"\1\1") for id_ in ids]


# -- in this one


def main() -> None:
    """Measure each kind of order in batches of each size, in turns, and print the medians."""
    arguments = _parser().parse_args()
    server_cpu, *driver_cpus = sorted(os.sched_getaffinity(0))
    spawning = multiprocessing.get_context("spawn")
    barrier = spawning.Barrier(arguments.drivers + 1)
    with (
        tempfile.TemporaryDirectory(prefix="onsale-ceiling-") as folder,
        EmbeddedValkey(Path(folder) / "valkey") as server,
        ProcessPoolExecutor(
            arguments.drivers, spawning, enter, (barrier, driver_cpus or [server_cpu])
        ) as drivers,
    ):
        os.sched_setaffinity(server.pid, [server_cpu])
        variants = [(kind, size) for kind in Kind for size in BATCH_SIZES]
        turns: dict[tuple[Kind, int], list[Turn]] = {variant: [] for variant in variants}
        for _ in range(arguments.rounds):
            for kind, size in variants:
                work = asyncio.run(put_on_sale(server.url, kind, size, arguments.seconds))
                turns[kind, size].append(measure(server.pid, work, drivers, barrier))
                asyncio.run(take_away(work))
    show(turns)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each variant")
    parser.add_argument("--drivers", type=int, default=1, help="processes that send")
    return parser


def measure(pid: int, work: Work, drivers: ProcessPoolExecutor, barrier: Barrier) -> Turn:
    """Let the drivers work, and see what the server's main thread spent on it."""
    working = [drivers.submit(drive, work) for _ in range(barrier.parties - 1)]
    barrier.wait()
    began, cpu_before = time.monotonic(), main_thread_seconds(pid)
    decided = sum(driver.result() for driver in working)
    seconds, cpu_seconds = time.monotonic() - began, main_thread_seconds(pid) - cpu_before
    return Turn(decided / seconds, cpu_seconds / seconds, cpu_seconds / decided * 1e6)


def main_thread_seconds(pid: int) -> float:
    """CPU time, user and system, of the thread that runs the commands."""
    fields = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def put_on_sale(redis_url: str, kind: Kind, batch_size: int, seconds: float) -> Work:
    """An event whose orders come to what the kind says."""
    gate = Gate.connect(Settings(redis_url=redis_url))
    event = _event(kind)
    epoch = make_epoch(1, await gate.run_id(event.id))
    await gate.load(event, epoch)
    await gate.open(event.id, epoch)
    await gate.close()
    return Work(redis_url, event.id, epoch, kind, batch_size, seconds)


async def take_away(work: Work) -> None:
    """Forget the event, so that each turn finds as much room as the first."""
    gate = Gate.connect(Settings(redis_url=work.redis_url))
    await gate.retire(work.event_id, keep_seconds=0)
    await gate.close()


def _event(kind: Kind) -> Event:
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    units = 1 if kind is Kind.SOLD_OUT else CAPACITY_UNITS_MAX
    return Event(
        id=secrets.token_hex(16),
        name="The ceiling",
        venue=None,
        starts_at=now + 24 * hour,
        sale_opens_at=now - hour,
        sale_closes_at=now + hour,
        hold_seconds=600,
        max_per_buyer_units=QUANTITY_PER_ITEM_MAX if kind is Kind.LIMITED else 0,
        payment=PaymentKind.NONE,
        currency="EUR",
        switch=SaleSwitch.OPEN,
        tiers=(Tier("ga", 1, "General admission", 1_000, units),),
        created_at=now,
    )


def show(turns: dict[tuple[Kind, int], list[Turn]]) -> None:
    """The medians as a table."""
    print("| orders | in a batch | orders/s | thread busy | CPU µs an order | ceiling, orders/s |")
    print("|---|---|---|---|---|---|")
    for (kind, size), each in turns.items():
        speed, busy, cpu_us = (median(column) for column in zip(*each, strict=True))
        print(
            f"| {kind} | {size} | {speed:,.0f} | {busy:.0%} | {cpu_us:.2f} | {1e6 / cpu_us:,.0f} |"
        )


if __name__ == "__main__":
    main()

"""How many orders a second one core of the gate decides, which is the ceiling of one event.

    uv run python loadtest/bench/gate_ceiling.py [--orders 200000] [--rounds 3]

All keys of an event are in one slot, so one thread of one server decides all of its orders. This
sends it the very commands of `Gate.admit`, packed beforehand so that the sender is not what is
measured, over as many connections as there may be API processes, each with one batch in flight.
Where there are two cores, the thread has one to itself. How long it ran, and how long it waited
for a core that others had, is read from /proc (Linux). Orders a second are the ceiling when it ran
all of the time; what the CPU an order leaves room for is the ceiling in any case.
"""

import argparse
import asyncio
import os
import secrets
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self

import uvloop
from redis.asyncio.connection import AbstractConnection

from onsale.domain.event import Event, PaymentKind, SaleSwitch
from onsale.domain.order import QUANTITY_PER_ITEM_MAX
from onsale.domain.tier import CAPACITY_UNITS_MAX, Tier
from onsale.embedded import EmbeddedValkey
from onsale.gate.connecting import connect
from onsale.gate.epoch import make_epoch
from onsale.gate.gate import Gate
from onsale.gate.keys import event_keys
from onsale.gate.scripts import ScriptName
from onsale.settings import Settings

BATCH_SIZES = (1, 32, 256, 512)
CONNECTIONS = 8
# Orders one by one take ten times as long.
ORDERS_ONE_BY_ONE_SHARE = 0.1

Batch = list[tuple[bytes, bytes]]


class Kind(StrEnum):
    """What becomes of the orders."""

    ADMITTED = "admitted"
    LIMITED = "admitted, limit per buyer"
    SOLD_OUT = "refused: sold out"
    REPEATED = "pressed again"


class Turn(NamedTuple):
    """One measurement."""

    orders_per_second: float
    ran_share: float
    waited_share: float
    cpu_us_per_order: float


@dataclass(frozen=True)
class Sale:
    """An event that is on sale at the gate of `settings`."""

    settings: Settings
    event_id: str
    epoch: str

    @classmethod
    async def begin(cls, settings: Settings, kind: Kind) -> "Sale":
        """A sale whose orders come to what the kind says."""
        gate, event = Gate.connect(settings), an_event(kind)
        sale = cls(settings, event.id, make_epoch(1, await gate.run_id(event.id)))
        await gate.load(event, sale.epoch)
        await gate.open(event.id, sale.epoch)
        # The only seat of those that are sold out; and the server has the script from here on.
        await gate.admit(event.id, sale.epoch, a_batch(1))
        await gate.close()
        return sale

    async def end(self) -> None:
        """Let its keys go, so that each turn finds as much room as the first."""
        gate = Gate.connect(self.settings)
        await gate.retire(self.event_id, keep_seconds=0)
        await gate.close()


def an_event(kind: Kind) -> Event:
    """An event of one tier."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
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
        tiers=(
            Tier(
                id="ga",
                number=1,
                name="General admission",
                price_minor_units=1_000,
                capacity_units=1 if kind is Kind.SOLD_OUT else CAPACITY_UNITS_MAX,
            ),
        ),
        created_at=now,
    )


def a_batch(size: int) -> Batch:
    """Orders of one unit of the first tier, each by a buyer of its own."""
    random = os.urandom(16 * size)
    ids = (random[at : at + 16] for at in range(0, len(random), 16))
    # What an id is derived from is not the business of the gate: its halves do for the body.
    return [(id_, id_ + bytes((1, 1))) for id_ in ids]


async def measure(pid: int, sale: Sale, kind: Kind, batches: Sequence[Batch]) -> Turn:
    """Have all of the batches decided, and see what the server's main thread spent on them."""
    servers, keys = connect(sale.settings), event_keys(sale.event_id)
    server = await servers.of(keys.sale)
    pool = server.redis.connection_pool
    connections: list[AbstractConnection] = [
        await pool.get_connection()  # type: ignore[no-untyped-call]
        for _ in range(CONNECTIONS)
    ]
    sha = server.scripts.names[ScriptName.ADMIT]
    asked = (keys.sale, keys.avail, keys.orders, keys.buyers, keys.seen)
    head = ("EVALSHA", sha, len(asked), *asked)
    packed = [
        connections[0].pack_command(
            *head, 1 + 2 * len(batch), sale.epoch, *(part for order in batch for part in order)
        )
        for batch in batches
    ]
    if kind is Kind.REPEATED:
        await send(connections, packed)
    before = Clocks.read(pid)
    await send(connections, packed)
    after = Clocks.read(pid)
    for connection in connections:
        await pool.release(connection)
    await servers.close()
    orders = sum(map(len, batches))
    seconds, ran, waited = (late - early for early, late in zip(before, after, strict=True))
    return Turn(orders / seconds, ran / seconds, waited / seconds, ran / orders * 1e6)


async def send(connections: Sequence[AbstractConnection], packed: Sequence[list[bytes]]) -> None:
    """Send every command by whichever connection has its answer."""
    waiting = deque(packed)

    async def take_turns(connection: AbstractConnection) -> None:
        while waiting:
            await connection.send_packed_command(waiting.popleft())
            await connection.read_response()

    await asyncio.gather(*map(take_turns, connections))


class Clocks(NamedTuple):
    """Time that has passed, and what of it a process's main thread ran and waited for a core."""

    passed_seconds: float
    ran_seconds: float
    waited_seconds: float

    @classmethod
    def read(cls, pid: int) -> Self:
        """The clocks now."""
        ran_ns, waited_ns, _ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
        return cls(time.monotonic(), int(ran_ns) / 1e9, int(waited_ns) / 1e9)


def main() -> None:
    """Measure each kind of order in batches of each size, in turns, and print the medians."""
    arguments = parser().parse_args()
    server_cpu, *other_cpus = sorted(os.sched_getaffinity(0))
    turns: dict[tuple[Kind, int], list[Turn]] = {(k, s): [] for k in Kind for s in BATCH_SIZES}
    with (
        tempfile.TemporaryDirectory(prefix="onsale-ceiling-") as folder,
        EmbeddedValkey(Path(folder) / "valkey") as server,
    ):
        os.sched_setaffinity(server.pid, [server_cpu])
        os.sched_setaffinity(0, other_cpus or [server_cpu])
        settings = Settings(redis_url=server.url)
        for _ in range(arguments.rounds):
            for (kind, size), found in turns.items():
                orders = arguments.orders * (ORDERS_ONE_BY_ONE_SHARE if size == 1 else 1)
                found.append(uvloop.run(take_turn(server.pid, settings, kind, size, int(orders))))
    show(turns)


async def take_turn(pid: int, settings: Settings, kind: Kind, size: int, orders: int) -> Turn:
    """One measurement, at a sale of its own."""
    sale = await Sale.begin(settings, kind)
    turn = await measure(pid, sale, kind, [a_batch(size) for _ in range(orders // size)])
    await sale.end()
    return turn


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--orders", type=int, default=200_000, help="of each turn")
    made.add_argument("--rounds", type=int, default=3, help="turns of each variant")
    return made


def show(turns: dict[tuple[Kind, int], list[Turn]]) -> None:
    """The medians as a table."""
    print("| orders | in a batch | orders/s | ran | waited | CPU µs an order | ceiling, orders/s |")
    print("|---|---|---|---|---|---|---|")
    for (kind, size), found in turns.items():
        speed, ran, waited, cpu_us = (median(column) for column in zip(*found, strict=True))
        print(
            f"| {kind} | {size} | {speed:,.0f} | {ran:.0%} | {waited:.0%} | {cpu_us:.2f}"
            f" | {1e6 / cpu_us:,.0f} |"
        )


if __name__ == "__main__":
    main()

"""Loading an event's gate from the ledger, for the first time or after it was lost.

The ledger counts a generation up, which ends every earlier loading; the gate is emptied and takes
the stock of every live order; the epoch is opened there and authorised here. A crash anywhere
leaves a gate that admits nobody, and the next loading begins anew. Orders that reach the ledger
while it is read were admitted by an earlier epoch: the reconciler adopts them afterwards, and
until then the ledger's own CHECK stands in for them.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from onsale.domain.errors import GateLost
from onsale.domain.event import Event
from onsale.domain.order import Order
from onsale.gate.codec import encode_body
from onsale.gate.epoch import make_epoch
from onsale.gate.gate import Gate
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger, LiveOrder
from onsale.observability.runtime import stop

Chunk = TypeVar("Chunk")


async def load_gate(
    event: Event, gate: Gate, ledger: Ledger, events: Events, *, wait: bool = False
) -> None:
    """Load the gate of an event, unless it has been loaded since `event` was read.

    One loads at a time; who comes second waits for the first, or raises `GateLost` when not to
    `wait`. Raises `GateUnavailable`, `LedgerUnavailable`.
    """
    async with events.gate_loader(event.id, wait=wait) as mine:
        if not mine:
            raise GateLost
        newest = await events.get(event.id)
        if newest is not None and newest.gate_epoch in (None, event.gate_epoch):
            await _load(newest, gate, ledger, events)


async def _load(event: Event, gate: Gate, ledger: Ledger, events: Events) -> None:
    run_id = await gate.run_id(event.id)
    generation = await events.next_gate_generation(event.id)
    epoch = make_epoch(generation, run_id)
    await gate.load(event, epoch)
    async for chunk in ahead(ledger.live_orders(event.id)):
        await gate.adopt(event.id, epoch, [gate_order(order) for order in chunk])
    async for ended in ledger.ended_ids(event.id):
        await gate.mark_seen(event.id, epoch, ended)
    await gate.open(event.id, epoch)
    if not await events.authorise_gate(event.id, generation, epoch):
        raise GateLost
    # Paused or enlarged while it was loading, perhaps: who did that knew of no gate to tell.
    newest = await events.get(event.id)
    if newest is not None:
        await gate.configure(newest, epoch)


async def ahead(chunks: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """The same chunks, each read from one store while the other is asked about the one before."""
    reading = asyncio.ensure_future(anext(chunks, None))
    try:
        while (chunk := await reading) is not None:
            reading = asyncio.ensure_future(anext(chunks, None))
            yield chunk
    finally:
        await stop(reading)


def gate_order(order: Order | LiveOrder) -> tuple[bytes, bytes]:
    """An order of the ledger as the gate takes it: its id and its body."""
    return order.id, encode_body(order.buyer_id, order.fingerprint, order.items)

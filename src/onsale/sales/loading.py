"""Loading an event's gate from the ledger, for the first time or after it was lost.

The ledger counts a generation up, which ends every earlier loading; the gate is emptied and takes
the stock of every live order; the epoch is opened there and authorised here. A crash anywhere
leaves a gate that admits nobody, and the next loading begins anew. Orders that reach the ledger
while it is read were admitted by an earlier epoch: the reconciler adopts them afterwards, and
until then the ledger's own CHECK stands in for them.
"""

from onsale.domain.errors import GateLost
from onsale.domain.event import Event
from onsale.domain.order import Order
from onsale.gate.codec import encode_body
from onsale.gate.epoch import make_epoch
from onsale.gate.gate import Gate
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger


async def load_gate(event: Event, gate: Gate, ledger: Ledger, events: Events) -> None:
    """Load the gate of one event.

    Raises `GateLost` when somebody else began a later loading, `GateUnavailable`,
    `LedgerUnavailable`.
    """
    run_id = await gate.run_id()
    generation = await events.next_gate_generation(event.id)
    epoch = make_epoch(generation, run_id)
    await gate.load(event, epoch)
    async for chunk in ledger.live_orders(event.id):
        await gate.adopt(event.id, epoch, [gate_order(order) for order in chunk])
    await gate.open(event.id, epoch)
    if not await events.authorise_gate(event.id, generation, epoch):
        raise GateLost
    # Paused or enlarged while it was loading, perhaps: who did that knew of no gate to tell.
    newest = await events.get(event.id)
    if newest is not None:
        await gate.configure(newest, epoch)


def gate_order(order: Order) -> tuple[bytes, bytes]:
    """An order of the ledger as the gate takes it: its id and its body."""
    return order.id, encode_body(order.buyer_id, order.fingerprint, order.items)

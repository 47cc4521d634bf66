"""The reconciler: makes the gate agree with the ledger.

It needs no message and no memory. Each pass looks at what is there and repairs what differs, by
order ids and never by adjusting counters, so that a repair made twice, or by two reconcilers at
once, or stopped half-way, is a repair made once:

    fence      an id only the gate has, past the grace period: the ledger writes it down as
               abandoned, and only if that wrote it is its stock given back
    give back  an id whose order the ledger has ended: the gate lets it go
    adopt      a live order that the gate lacks, for it lost it or was never asked: the gate takes
               its stock
    rebuild    a gate that is empty, half loaded, restored or elsewhere: loaded anew
    configure  a switch or a capacity that the gate was not told of

Every pass looks at orders that ended lately and at those that the ledger admitted alone; the whole
comparison takes a share of the time that does not grow with the sale. When the sale is over and its
books have balanced, the gate retires.
"""

from dataclasses import dataclass, field
from time import monotonic, time

from onsale.domain.errors import GateLost, GateUnavailable, OnsaleError
from onsale.domain.event import Event, SaleState
from onsale.domain.order import OrderStatus
from onsale.gate.gate import CHUNK_ORDERS
from onsale.ledger.ledger import OrderKey
from onsale.observability import metrics
from onsale.observability.logging import get_logger
from onsale.sales import meters
from onsale.sales.books import Comparison, audit, compare
from onsale.sales.loading import gate_order, load_gate
from onsale.sales.service import Service

# The whole comparison may keep this share of the time busy, however large the sale has grown.
FULL_COMPARISON_SHARE = 0.05
# Nobody asks a retired gate; for an hour an operator may want to look at it.
RETIRED_KEEP_SECONDS = 3_600

log = get_logger(__name__)


@dataclass(slots=True)
class Repairs:
    """How many repairs of each kind a pass made."""

    fenced: int = 0
    given_back: int = 0
    adopted: int = 0
    rebuilt: int = 0

    def add(self, kind: str, orders: int) -> None:
        """Count repairs of a kind."""
        setattr(self, kind, getattr(self, kind) + orders)
        if orders:
            metrics.reconciler_repairs_total.labels(kind).inc(orders)


@dataclass(slots=True)
class Reconciler:
    """The reconciler of one process; it remembers only when its next whole comparison is due, and
    which events failed last, with which code, so as to tell it once.
    """

    service: Service
    _full_due_seconds: dict[str, float] = field(default_factory=dict)
    _failing: dict[str, str] = field(default_factory=dict)

    async def run_once(self, *, full: bool | None = None) -> Repairs:
        """Reconcile every event that has a gate or should have one.

        `full` asks for the whole comparison, or forbids it; by default it is made when due. An
        event that cannot be reconciled now does not keep the others from it; the first such error
        is raised in the end.
        """
        repairs, failed = Repairs(), None
        open_sales = 0
        await self._report_keeping()
        for event in await self.service.events.with_gate():
            try:
                open_sales += await self._reconcile(event, repairs, full)
                self._failing.pop(event.id, None)
            except OnsaleError as error:
                self._tell_failure(event.id, error)
                failed = failed or error
        metrics.sales_open.set(open_sales)
        if failed is not None:
            raise failed
        metrics.reconciler_last_success_timestamp_seconds.set(time())
        return repairs

    def _tell_failure(self, event_id: str, error: OnsaleError) -> None:
        # Once, and not in every pass until it is over.
        if self._failing.get(event_id) != error.code:
            self._failing[event_id] = error.code
            log.warning("event not reconciled", event_id=event_id, code=error.code)

    async def _reconcile(self, event: Event, repairs: Repairs, full: bool | None) -> bool:
        """Reconcile one event; whether its sale is open."""
        service = self.service
        event = await self._with_gate(event, repairs)
        epoch = event.gate_epoch
        assert epoch is not None, "an event has an epoch once its gate is loaded"
        await service.gate.configure(event, epoch)
        await self._tell_unheard(event, epoch, repairs)
        await self._give_back_ended(event, epoch, repairs)
        if full if full is not None else self._full_is_due(event.id):
            started = monotonic()
            comparison = await compare(
                event.id, service.gate, service.ledger, service.settings.reconciler_grace_seconds
            )
            await self._repair(event, epoch, comparison, repairs)
            books = await service.ledger.books(event.id)
            metrics.oversold_tickets.labels(metrics.event_label(event.id)).set(
                sum(tier.oversold_units for tier in books)
            )
            spent_seconds = monotonic() - started
            self._full_due_seconds[event.id] = monotonic() + spent_seconds / FULL_COMPARISON_SHARE
        return await self._report(event) is SaleState.OPEN

    def _full_is_due(self, event_id: str) -> bool:
        return monotonic() >= self._full_due_seconds.get(event_id, 0.0)

    async def _with_gate(self, event: Event, repairs: Repairs) -> Event:
        """The event, its gate loaded anew unless it is the one that the ledger authorised."""
        service = self.service
        if event.gate_epoch is not None:
            try:
                await service.gate.availability(event.id, event.gate_epoch)
                return event
            except GateLost:
                log.warning("gate lost; loading it anew", event_id=event.id, epoch=event.gate_epoch)
        await load_gate(event, service.gate, service.ledger, service.events)
        repairs.add("rebuilt", 1)
        # Orders may have been on their way past the loading: they are looked for at once.
        self._full_due_seconds.pop(event.id, None)
        return (await service.catalog.reload(event.id)).event

    async def _tell_unheard(self, event: Event, epoch: str, repairs: Repairs) -> None:
        """What the ledger admitted while it had no gate to ask."""
        ledger = self.service.ledger
        while unheard := await ledger.unheard(event.id, CHUNK_ORDERS):
            live = await ledger.live([OrderKey(event.id, order_id) for order_id in unheard])
            adopted = await self.service.gate.adopt(
                event.id, epoch, [gate_order(order) for order in live]
            )
            repairs.add("adopted", adopted)
            ended = set(unheard) - {order.id for order in live}
            # Their buyers may press again, and are no strangers.
            await self.service.gate.mark_seen(event.id, epoch, list(ended))
            await ledger.heard(event.id, unheard)

    async def _give_back_ended(self, event: Event, epoch: str, repairs: Repairs) -> None:
        """What the ledger ended lately and the gate may not have heard of."""
        within_seconds = 2 * self.service.settings.reconciler_grace_seconds
        ended = await self.service.ledger.ended_within(event.id, within_seconds)
        await self._give_back(event.id, epoch, ended, repairs)

    async def _repair(
        self, event: Event, epoch: str, comparison: Comparison, repairs: Repairs
    ) -> None:
        label = metrics.event_label(event.id)
        metrics.gate_drift_orders.labels(label).set(comparison.drift_orders)
        never_arrived = [id_ for id_, status in comparison.gate_only.items() if status is None]
        ended = [id_ for id_, status in comparison.gate_only.items() if status is not None]
        fenced = await self._fence(event.id, never_arrived)
        repairs.add("fenced", len(fenced))
        await self._give_back(event.id, epoch, [*fenced, *ended], repairs)
        await self._adopt(event.id, epoch, comparison.ledger_only, repairs)

    async def _fence(self, event_id: str, order_ids: list[bytes]) -> list[bytes]:
        """Those that are abandoned now, and not by somebody else's arriving in time."""
        fenced = [
            key
            for chunk in _chunks(order_ids)
            for key in await self.service.ledger.fence([OrderKey(event_id, id_) for id_ in chunk])
        ]
        if fenced:
            meters.ended(fenced[0], OrderStatus.ABANDONED, len(fenced))
        return [key.order_id for key in fenced]

    async def _give_back(
        self, event_id: str, epoch: str, order_ids: list[bytes], repairs: Repairs
    ) -> None:
        for chunk in _chunks(order_ids):
            given_back, _ = await self.service.gate.give_back(event_id, epoch, chunk)
            repairs.add("given_back", given_back)

    async def _adopt(
        self, event_id: str, epoch: str, order_ids: list[bytes], repairs: Repairs
    ) -> None:
        for order_id in order_ids:
            # Read once more: it may have ended since the comparison.
            order = await self.service.ledger.get(OrderKey(event_id, order_id))
            if order is not None and order.status.live:
                adopted = await self.service.gate.adopt(event_id, epoch, [gate_order(order)])
                repairs.add("adopted", adopted)

    async def _report_keeping(self) -> None:
        """Tell how well the gate's servers keep what they are told."""
        try:
            kept = await self.service.gate.keeping()
        except GateUnavailable:
            return  # which is told of elsewhere
        metrics.gate_evicts.set(any(server.evicts for server in kept))
        metrics.gate_aof_enabled.set(all(server.aof_enabled for server in kept))
        metrics.gate_aof_ok.set(all(server.aof_ok for server in kept))
        metrics.gate_aof_delayed_fsyncs.set(sum(server.aof_delayed_fsyncs for server in kept))

    async def _report(self, event: Event) -> SaleState:
        """Tell the books of the event; retire its gate once there is nothing left to decide."""
        service = self.service
        label = metrics.event_label(event.id)
        assert event.gate_epoch is not None
        seen = await service.gate.availability(event.id, event.gate_epoch)
        counters = await service.ledger.counters(event.id)
        for tier, counted in ((event.tier_by_id[found.tier_id], found) for found in counters):
            metrics.stock_available.labels(label, tier.id).set(
                seen.available_units.get(tier.number, 0)
            )
            metrics.stock_held.labels(label, tier.id).set(counted.held_units)
            metrics.stock_sold.labels(label, tier.id).set(counted.sold_units)
            metrics.stock_capacity.labels(label, tier.id).set(counted.capacity_units)
        state = event.state_at(await service.events.now())
        if state is SaleState.CLOSED and not any(counted.held_units for counted in counters):
            await self._retire(event)
        return state

    async def _retire(self, event: Event) -> None:
        service = self.service
        # No grace: a sale that is over has nothing on its way that may still arrive.
        if (await audit(event, service.gate, service.ledger, grace_seconds=0)).balanced:
            # The gate first: one that goes before the ledger knows is loaded and retired again.
            await service.gate.retire(event.id, RETIRED_KEEP_SECONDS)
            await service.events.retire_gate(event.id)
            self._full_due_seconds.pop(event.id, None)
            log.info("gate retired", event_id=event.id)


def _chunks(order_ids: list[bytes]) -> list[list[bytes]]:
    return [order_ids[at : at + CHUNK_ORDERS] for at in range(0, len(order_ids), CHUNK_ORDERS)]

"""The sale as one process sees it: enough to refuse from memory, and never to admit.

As `sales.sale` and `sales.catalog`: the event as the ledger had it, how it stood at the gate a
moment ago, and the filter of the orders that were ever admitted there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from onsale.domain.errors import GateLost
from onsale.domain.inventory import Outcome
from onsale.domain.order import Item
from tests.simulation.gate import Admission, Availability
from tests.simulation.ledger import EventRow
from tests.simulation.planted import Bug
from tests.simulation.process import Process
from tests.simulation.scheduler import Promise, Steps
from tests.simulation.timing import PICTURE_AGE_MS


@dataclass(slots=True)
class View:
    """What the gate said when it was asked at `asked_at_ms`."""

    available_units: dict[int, int]
    asked_at_ms: int
    orders_ever_admitted: int


class Sale:
    """See the module."""

    def __init__(self, process: Process, event: EventRow) -> None:
        self._process = process
        self.event = event
        self.view: View | None = None
        self._filter: frozenset[bytes] | None = None
        self._filter_admitted = -1

    def see_event(self, event: EventRow) -> None:
        """The event as the ledger has it; one that was read before the last change is no news."""
        if event.version < self.event.version:
            event = self.event._replace(gate_epoch=event.gate_epoch)
        if event.gate_epoch != self.event.gate_epoch:
            self.view = None
            self._filter = None
            self._filter_admitted = -1
        self.event = event

    def see(self, availability: Availability, asked_at_ms: int) -> None:
        """How the sale stands, as the gate said; a batch may have told of more admitted orders."""
        admitted = availability.orders_ever_admitted
        if self.view is not None:
            admitted = max(admitted, self.view.orders_ever_admitted)
        self.view = View(dict(availability.available_units), asked_at_ms, admitted)

    def see_filter(self, seen: frozenset[bytes], admitted: int) -> None:
        """The filter, read after at least `admitted` orders had been admitted in all."""
        self._filter = seen
        self._filter_admitted = admitted

    def see_batch(self, admission: Admission) -> None:
        """What a batch of this process came to."""
        if self.view is not None:
            self.view.orders_ever_admitted = max(
                self.view.orders_ever_admitted, admission.orders_ever_admitted
            )
        self.see_units(admission.available_units)

    def see_units(self, available_units: dict[int, int]) -> None:
        """What is left of some tiers."""
        if self.view is not None:
            self.view.available_units.update(available_units)

    @property
    def filter_is_behind(self) -> bool:
        """Whether orders were admitted that the filter does not know."""
        return self.view is None or self.view.orders_ever_admitted != self._filter_admitted

    @property
    def refuses(self) -> bool:
        """Whether there is anybody to be refused for want of seats."""
        return self.view is not None and min(self.view.available_units.values()) <= 0

    def refusal(self, items: Sequence[Item]) -> Outcome | None:
        """Why nobody could have these items now, or `None` when the gate must be asked."""
        view = self.view
        if view is None or self._process.now_ms() - view.asked_at_ms > PICTURE_AGE_MS:
            return None
        for tier_number, quantity in items:
            if view.available_units.get(tier_number, quantity) < quantity:
                return Outcome.SOLD_OUT
        return None

    def may_have_admitted(self, order_id: bytes) -> bool:
        """Whether this order may have been admitted before; "no" is certain."""
        return self.filter_is_behind or self._filter is None or order_id in self._filter


class Catalog:
    """The one sale that this process knows."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._sale: Sale | None = None
        self._loading: Promise[Sale] | None = None

    def require(self) -> Steps[Sale]:
        """The sale. Raises `LedgerUnavailable`."""
        if self._sale is not None:
            return self._sale
        return (yield from self.reload())

    def reload(self) -> Steps[Sale]:
        """The sale with its event read anew; many who ask at once share one reading.

        Raises `LedgerUnavailable`.
        """
        if self._loading is None:
            self._loading = self._process.spawn(self._load())
        return (yield from self._loading.kept())

    def _load(self) -> Steps[Sale]:
        try:
            event = yield from self._process.statement(self._process.around.ledger.event)
        finally:
            self._loading = None
        if self._sale is None:
            self._sale = Sale(self._process, event)
        self._sale.see_event(event)
        return self._sale

    def look_after(self) -> Steps[None]:
        """Keep the picture young. Raises `GateUnavailable`, `LedgerUnavailable`."""
        sale = yield from self.require()
        yield from self._look(sale)
        view, epoch = sale.view, sale.event.gate_epoch
        if view is not None and epoch is not None and sale.refuses and sale.filter_is_behind:
            admitted = view.orders_ever_admitted
            seen = yield from self._filter(epoch)
            if sale.event.gate_epoch == epoch or self._process.has(Bug.FILTER_WITHOUT_EPOCH):
                sale.see_filter(seen, admitted)

    def _filter(self, epoch: str) -> Steps[frozenset[bytes]]:
        process, gate = self._process, self._process.around.gate
        if process.has(Bug.FILTER_WITHOUT_EPOCH):
            return (yield from process.command(gate.seen_filter_of_whatever_is_here))
        return (yield from process.run_script(epoch, gate.seen_filter))

    def _look(self, sale: Sale) -> Steps[None]:
        if sale.event.gate_epoch is None:
            yield from self.reload()
        epoch = sale.event.gate_epoch
        if epoch is None:
            raise GateLost
        asked_at_ms = self._process.now_ms()
        try:
            gate = self._process.around.gate
            availability = yield from self._process.run_script(epoch, gate.availability)
        except GateLost:
            sale.view = None
            yield from self.reload()
            raise
        if sale.event.gate_epoch != epoch:
            raise GateLost
        sale.see(availability, asked_at_ms)

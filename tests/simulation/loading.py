"""Loading the gate from the ledger, for the first time or after it was lost; as `sales.loading`."""

from onsale.domain.errors import GateLost
from onsale.gate.epoch import make_epoch
from tests.simulation.ledger import EventRow
from tests.simulation.plan import Terms
from tests.simulation.process import Process
from tests.simulation.scheduler import Steps

# Small, so that a few orders are read in several instants.
CHUNK_ORDERS = 3
_BEFORE_ALL = b""


class Loading:
    """One process that loads."""

    def __init__(self, process: Process, terms: Terms) -> None:
        self._process = process
        self._limit_units = terms.limit_units
        self._gate = process.around.gate
        self._ledger = process.around.ledger

    def load_gate(self, event: EventRow) -> Steps[None]:
        """Load the gate, unless it has been loaded since `event` was read.

        Raises `GateLost` when another one loads now, `GateUnavailable`, `LedgerUnavailable`.
        """
        statement, session = self._process.statement, self._process.begin_session()
        try:
            if not (yield from statement(self._ledger.take_gate_loader, session)):
                raise GateLost
            newest = yield from statement(self._ledger.event)
            if newest.gate_epoch in (None, event.gate_epoch):
                yield from self._load(newest)
        finally:
            session.open = False

    def _load(self, event: EventRow) -> Steps[None]:
        process, gate, ledger = self._process, self._gate, self._ledger
        run_id = yield from process.run_id()
        generation = yield from process.statement(ledger.next_gate_generation)
        epoch = make_epoch(generation, run_id)
        yield from process.command(
            gate.load, epoch, event.version, event.capacity_units, self._limit_units
        )
        yield from self._adopt_live(epoch)
        yield from self._mark_ended(epoch)
        yield from process.run_script(epoch, gate.open, epoch)
        if not (yield from process.statement(ledger.authorise_gate, generation, epoch)):
            raise GateLost
        newest = yield from process.statement(ledger.event)
        yield from process.run_script(epoch, gate.configure, newest.version, newest.capacity_units)

    def _adopt_live(self, epoch: str) -> Steps[None]:
        after = _BEFORE_ALL
        while True:
            chunk = yield from self._process.statement(
                self._ledger.live_orders_after, after, CHUNK_ORDERS
            )
            if chunk:
                yield from self._process.run_script(epoch, self._gate.adopt, chunk)
            if len(chunk) < CHUNK_ORDERS:
                return
            after = chunk[-1].order_id

    def _mark_ended(self, epoch: str) -> Steps[None]:
        after = _BEFORE_ALL
        while True:
            chunk = yield from self._process.statement(
                self._ledger.ended_ids_after, after, CHUNK_ORDERS
            )
            if chunk:
                yield from self._process.run_script(epoch, self._gate.mark_seen, chunk)
            if len(chunk) < CHUNK_ORDERS:
                return
            after = chunk[-1]

"""The workers: each a `run_once` that needs no memory; as `onsale.workers`."""

from collections.abc import Sequence

from onsale.domain.errors import GateLost
from onsale.domain.order import OrderStatus
from onsale.domain.payment import PaymentState
from onsale.payments.provider import AnswerLost
from tests.simulation.ending import give_back
from tests.simulation.gate import StoredOrder
from tests.simulation.ledger import EventRow, OrderRow, PaymentRow
from tests.simulation.loading import CHUNK_ORDERS, Loading
from tests.simulation.plan import Terms
from tests.simulation.planted import Bug
from tests.simulation.process import Process, Surroundings
from tests.simulation.sale import Catalog
from tests.simulation.scheduler import Steps, pause
from tests.simulation.timing import GRACE_MS, SECOND_LOOK_MS

BATCH_ORDERS_MAX = 3
BATCH_PAYMENTS_MAX = 3
_BEFORE_ALL = b""

Comparison = tuple[dict[bytes, OrderStatus | None], list[bytes]]


class Reconciler:
    """Makes the gate agree with the ledger, by order ids and never by counters."""

    def __init__(self, process: Process, terms: Terms) -> None:
        self._process = process
        self._gate = process.around.gate
        self._ledger = process.around.ledger
        self._loading = Loading(process, terms)

    def run_once(self) -> Steps[None]:
        """One pass with the whole comparison."""
        process = self._process
        event = yield from self._with_gate((yield from process.statement(self._ledger.event)))
        epoch = event.gate_epoch
        if epoch is None:
            raise GateLost
        yield from process.run_script(
            epoch, self._gate.configure, event.version, event.capacity_units
        )
        yield from self._tell_unheard(epoch)
        yield from self._give_back_ended(epoch)
        gate_only, ledger_only = yield from self._compare()
        yield from self._repair(epoch, gate_only, ledger_only)

    def _with_gate(self, event: EventRow) -> Steps[EventRow]:
        """The event, its gate loaded anew unless it is the one that the ledger authorised."""
        if event.gate_epoch is not None:
            try:
                yield from self._process.run_script(event.gate_epoch, self._gate.availability)
                return event
            except GateLost:
                pass
        yield from self._loading.load_gate(event)
        return (yield from self._process.statement(self._ledger.event))

    def _tell_unheard(self, epoch: str) -> Steps[None]:
        """What the ledger admitted while it had no gate to ask."""
        statement, run_script = self._process.statement, self._process.run_script
        while unheard := (yield from statement(self._ledger.unheard, CHUNK_ORDERS)):
            rows = yield from statement(self._ledger.rows, unheard)
            live = [row.order for row in rows.values() if row.live]
            yield from run_script(epoch, self._gate.adopt, live)
            ended = [order_id for order_id, row in rows.items() if not row.live]
            if not self._process.has(Bug.ENDED_ORDERS_UNSEEN):
                # Their buyers may press again, and are no strangers.
                yield from run_script(epoch, self._gate.mark_seen, ended)
            yield from statement(self._ledger.heard, unheard)

    def _give_back_ended(self, epoch: str) -> Steps[None]:
        """What the ledger ended lately and the gate may not have heard of."""
        ended = yield from self._process.statement(self._ledger.ended_within, 2 * GRACE_MS)
        if ended and not self._process.has(Bug.REFUND_FORGETS_THE_GATE):
            yield from self._process.run_script(epoch, self._gate.give_back, ended)

    def _compare(self) -> Steps[Comparison]:
        """Which live ids only one of the stores has, at two looks; those in flight left out."""
        gate_only, ledger_only = yield from self._compare_once()
        if not gate_only and not ledger_only:
            return gate_only, ledger_only
        yield from pause(self._process.scheduler, SECOND_LOOK_MS)
        gate_only_again, ledger_only_again = yield from self._compare_once()
        return (
            {key: status for key, status in gate_only_again.items() if key in gate_only},
            [key for key in ledger_only_again if key in ledger_only],
        )

    def _compare_once(self) -> Steps[Comparison]:
        process, gate, ledger = self._process, self._gate, self._ledger
        gate_only: dict[bytes, OrderStatus | None] = {}
        now_ms, stored = yield from process.command(gate.orders)
        settled_before_ms = now_ms - (0 if process.has(Bug.NO_GRACE) else GRACE_MS)
        rows = yield from process.statement(ledger.rows, list(stored))
        for order_id, taken in stored.items():
            row = rows.get(order_id)
            in_flight = row is None and taken.admitted_at_ms >= settled_before_ms
            if not in_flight and not (row is not None and self._agree(taken, row)):
                gate_only[order_id] = row.status if row is not None else None
        ledger_only, after = [], _BEFORE_ALL
        while True:
            chunk = yield from process.statement(ledger.live_orders_after, after, CHUNK_ORDERS)
            ids = [order.order_id for order in chunk]
            if ids:
                ledger_only += yield from process.command(gate.missing, ids)
            if len(ids) < CHUNK_ORDERS:
                return gate_only, ledger_only
            after = ids[-1]

    def _agree(self, taken: StoredOrder, row: OrderRow) -> bool:
        """Whether both stores have the same live order: by its id, and by its body."""
        process = self._process
        if row.status is OrderStatus.REFUNDED and process.has(Bug.REFUND_FORGETS_THE_GATE):
            return True
        same_body = taken.fingerprint == row.order.fingerprint
        return row.live and (same_body or process.has(Bug.COMPARES_IDS_ALONE))

    def _repair(
        self, epoch: str, gate_only: dict[bytes, OrderStatus | None], ledger_only: list[bytes]
    ) -> Steps[None]:
        never_arrived = [key for key, status in gate_only.items() if status is None]
        # Over, or another body's: that one is adopted with its own.
        ended = [key for key, status in gate_only.items() if status is not None]
        fenced = yield from self._fence(never_arrived)
        if fenced or ended:
            yield from self._process.run_script(epoch, self._gate.give_back, [*fenced, *ended])
        for order_id in ledger_only:
            yield from self._adopt(epoch, order_id)

    def _fence(self, order_ids: Sequence[bytes]) -> Steps[Sequence[bytes]]:
        """Those that are abandoned now, and not by somebody else's arriving in time."""
        if not order_ids or self._process.has(Bug.NO_FENCE):
            return order_ids
        return (yield from self._process.statement(self._ledger.fence, order_ids))

    def _adopt(self, epoch: str, order_id: bytes) -> Steps[None]:
        # Read once more: it may have ended since the comparison.
        row = yield from self._process.statement(self._ledger.get, order_id)
        if row is not None and row.live:
            yield from self._process.run_script(epoch, self._gate.adopt, [row.order])


class Sweeper:
    """Expires holds that were not paid in time."""

    def __init__(self, process: Process, catalog: Catalog) -> None:
        self._process = process
        self._catalog = catalog

    def run_once(self) -> Steps[None]:
        """Expire every hold that is overdue now."""
        process = self._process
        clock_ms = process.now_ms() if process.has(Bug.SWEEPER_TRUSTS_ITS_HOST) else None
        while True:
            expired = yield from process.statement(
                process.around.ledger.expire, BATCH_ORDERS_MAX, clock_ms
            )
            if expired:
                sale = yield from self._catalog.reload()
                yield from give_back(process, sale, expired)
            if len(expired) < BATCH_ORDERS_MAX:
                return


class Outbox:
    """Tells the provider what is due."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ledger = process.around.ledger
        self._provider = process.around.provider
        self._last_number = 0

    def run_once(self) -> Steps[None]:
        """Take every payment that is due a step further."""
        while True:
            due = yield from self._process.statement(
                self._ledger.payments_due, BATCH_PAYMENTS_MAX, self._last_number
            )
            moved = 0
            for payment in due:
                moved += yield from self._settle(payment)
            if self._process.has(Bug.OUTBOX_BY_LAST_ID):
                numbers = [payment.number for payment in due]
                self._last_number = max([self._last_number, *numbers])
            if len(due) < BATCH_PAYMENTS_MAX or moved < len(due):
                return

    def _settle(self, payment: PaymentRow) -> Steps[bool]:
        """Take one payment a step further; whether it went."""
        try:
            settled = yield from self._tell_provider(payment)
        except AnswerLost:
            # To the back of the line: those that cannot be settled must not keep the others.
            yield from self._move(payment, payment.state)
            return False
        return (yield from self._move(payment, settled))

    def _tell_provider(self, payment: PaymentRow) -> Steps[PaymentState]:
        tell, provider = self._process.tell_provider, self._provider
        match payment.state:
            case PaymentState.AUTHORIZED:
                yield from tell(provider.capture, payment.key)
                return PaymentState.CAPTURED
            case PaymentState.VOID_DUE:
                yield from tell(provider.void, payment.key)
                return PaymentState.VOIDED
            case PaymentState.REFUND_DUE:
                # A capture may have been under way when the order was refunded. Captured now for
                # certain, it can be given back for certain.
                yield from tell(provider.capture, payment.key)
                yield from tell(provider.refund, payment.key)
                return PaymentState.REFUNDED
            case _:
                # Begun and forgotten: whoever began it is gone, and may have authorised it.
                return PaymentState.VOID_DUE

    def _move(self, payment: PaymentRow, enter: PaymentState) -> Steps[bool]:
        return self._process.statement(
            self._ledger.move_payment, payment.order_id, payment.attempt, payment.state, enter
        )


class Worker(Process):
    """A process of the workers: all three kinds, each in a loop of its own."""

    def __init__(
        self, around: Surroundings, name: str, skew_ms: int, terms: Terms, pass_every_ms_max: int
    ) -> None:
        super().__init__(around, name, skew_ms)
        self._terms = terms
        self._pass_every_ms_max = pass_every_ms_max
        self._boot()

    def _boot(self) -> None:
        self._reconciler = Reconciler(self, self._terms)
        self._sweeper = Sweeper(self, Catalog(self))
        self._outbox = Outbox(self)

    def begin(self) -> None:
        """Run each kind in its loop."""
        for run_once in (self._reconciler.run_once, self._sweeper.run_once, self._outbox.run_once):
            self.repeat(run_once, 200, self._pass_every_ms_max)

    def crash(self) -> None:
        """It is there again at once, and knows nothing."""
        super().crash()
        self._boot()
        self.begin()

    def run_once(self) -> Steps[None]:
        """One pass of each."""
        yield from self._sweeper.run_once()
        yield from self._outbox.run_once()
        yield from self._reconciler.run_once()

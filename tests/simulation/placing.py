"""Placing an order: in-process answers, then the gate's batch, then the ledger's batch.

As `sales.placing`, with the ledger's own admission where the gate does not answer. What a client is
told follows the ledger: an order is answered after its commit, and an id that is in the ledger
already is that order, whoever put it there.
"""

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from onsale.domain.errors import (
    BuyerLimitReached,
    GateLost,
    GateUnavailable,
    IdempotencyKeyReused,
    LedgerUnavailable,
    Refused,
    RequestInProgress,
    SoldOut,
)
from onsale.domain.inventory import Outcome, TakenOrder
from onsale.domain.order import Item, OrderStatus
from tests.simulation.ending import give_back
from tests.simulation.gate import Admission
from tests.simulation.history import ATTEMPTS_MAX, BrokenPromise, Key
from tests.simulation.ledger import (
    ConstraintRefused,
    LedgerRefusal,
    LedgerVerdict,
    OrderRow,
    Placement,
)
from tests.simulation.planted import Bug
from tests.simulation.process import GroupCommit, Pending, Process, Refusal, Verdict
from tests.simulation.sale import Catalog, Sale
from tests.simulation.scheduler import Promise, Steps
from tests.simulation.timing import BYPASS_MS

BATCH_SIZE_MAX = 4
_LEDGER_TRIES = 2


class Asked(NamedTuple):
    """What a press asks for."""

    key: Key
    items: tuple[Item, ...]
    fingerprint: bytes


class Placing:
    """The use case of the crowd, in one process."""

    def __init__(self, process: Process, catalog: Catalog) -> None:
        self._process = process
        self._catalog = catalog
        self._around = process.around
        # One batch in flight: a second could overtake it, and orders are served as they came.
        self._gate_stage = GroupCommit(process, self._admit, BATCH_SIZE_MAX, in_flight_max=1)
        self._ledger_stage = GroupCommit(process, self._write, BATCH_SIZE_MAX, in_flight_max=2)
        self._past_the_gate_until_ms = 0
        self._waiters: dict[Key, Promise[Verdict]] = {}
        self._numbers = count()

    def place(self, asked: Asked) -> Steps[OrderRow]:
        """Place an order, durably, or find the one that this key has placed.

        Raises the refusals of `domain.errors`, `GateUnavailable`, `LedgerUnavailable`.
        """
        sale = yield from self._catalog.require()
        for attempt in range(ATTEMPTS_MAX):
            order = TakenOrder(
                self._name(asked.key, attempt),
                asked.key.buyer.encode(),
                asked.fingerprint,
                asked.items,
            )
            refusal = sale.refusal(order.items)
            if refusal is not None and not sale.may_have_admitted(order.order_id):
                raise _error_for(refusal)
            row = yield from self._attempt(sale, asked.key, order)
            if row is not None:
                return row
        raise RequestInProgress

    def _name(self, key: Key, attempt: int) -> bytes:
        if not self._process.has(Bug.RETRY_TAKES_A_NEW_ID):
            return key.order_id(attempt)
        named = Key(key.buyer, f"{key.name}-{self._process.name}-{next(self._numbers)}")
        self._around.history.ids[named.order_id(attempt)] = key
        return named.order_id(attempt)

    # -- one attempt

    def _attempt(self, sale: Sale, key: Key, order: TakenOrder) -> Steps[OrderRow | None]:
        """The order under this id, or `None` when the ledger has abandoned the id."""
        waiter = self._waiters[key] = self._gate_stage.submit(order)
        verdict = yield from waiter.kept()
        if isinstance(verdict, Placement):
            return (yield from self._placed(sale, order, verdict))
        if verdict.outcome is Outcome.SEEN_WITH_OTHER_BODY:
            return (yield from self._same_body_or_reused(order))
        if not verdict.stranger:
            # The order may have lived and ended: then it is not for the gate to refuse it.
            return (yield from self._earlier_or_refused(sale, order, verdict.outcome))
        raise _error_for(verdict.outcome)

    def _same_body_or_reused(self, order: TakenOrder) -> Steps[OrderRow | None]:
        """The gate may have taken the other body just now, for an order that is over already."""
        if self._process.has(Bug.OTHER_BODY_BY_THE_GATES_WORD):
            raise IdempotencyKeyReused
        row = yield from self._process.statement(self._around.ledger.get, order.order_id)
        if row is not None and row.status is OrderStatus.ABANDONED:
            return None
        if row is None or row.order.fingerprint != order.fingerprint:
            raise IdempotencyKeyReused
        return row

    def _earlier_or_refused(
        self, sale: Sale, order: TakenOrder, refusal: Outcome
    ) -> Steps[OrderRow | None]:
        earlier = yield from self._process.statement(self._around.ledger.get, order.order_id)
        if earlier is None:
            raise _error_for(refusal)
        return (yield from self._placed(sale, order, Placement(earlier, new=False)))

    def _placed(
        self, sale: Sale, order: TakenOrder, placement: Placement
    ) -> Steps[OrderRow | None]:
        row = placement.row
        if placement.new:
            return row
        same_body = row.order.fingerprint == order.fingerprint
        if not (row.live and same_body):
            # The gate took stock just now for an order that is over, or for other items than its
            # own; a live one is adopted again by the reconciler with what the ledger says it has.
            yield from give_back(self._process, sale, [order.order_id])
        if row.status is OrderStatus.ABANDONED:
            return None
        if not same_body:
            raise IdempotencyKeyReused
        return row

    # -- the gate's batches

    def _admit(self, batch: list[Pending]) -> Steps[None]:
        sale = yield from self._catalog.require()
        asked_at_ms = self._process.scheduler.now_ms
        try:
            admission = yield from self._ask_gate(sale, [pending.order for pending in batch])
        except GateUnavailable:
            # The sale goes on: the ledger admits, and the reconciler tells the gate.
            self._around.history.pass_by_gate("ledger admits")
            for pending in batch:
                self._ledger_stage.enqueue(pending)
            return
        sale.see_batch(admission)
        for pending, outcome, stranger in zip(
            batch, admission.outcomes, admission.strangers, strict=True
        ):
            if outcome in (Outcome.ADMITTED, Outcome.SEEN):
                self._pass_on(pending, outcome, asked_at_ms)
            else:
                pending.waiter.keep(Refusal(outcome, stranger))

    def _pass_on(self, pending: Pending, outcome: Outcome, asked_at_ms: int) -> None:
        if self._process.has(Bug.ANSWERED_BEFORE_THE_COMMIT):
            now_ms = self._process.now_ms()
            pending.waiter.keep(Placement(OrderRow(pending.order, OrderStatus.HELD, now_ms), True))
        self._ledger_stage.enqueue(
            pending._replace(asked_gate_at_ms=asked_at_ms, admitted_now=outcome is Outcome.ADMITTED)
        )

    def _ask_gate(self, sale: Sale, orders: list[TakenOrder]) -> Steps[Admission]:
        if self._process.scheduler.now_ms < self._past_the_gate_until_ms:
            raise GateUnavailable
        try:
            return (yield from self._ask_gate_in_force(sale, orders))
        except GateUnavailable:
            self._past_the_gate_until_ms = self._process.scheduler.now_ms + BYPASS_MS
            raise

    def _ask_gate_in_force(self, sale: Sale, orders: list[TakenOrder]) -> Steps[Admission]:
        gate, epoch = self._around.gate, sale.event.gate_epoch
        if epoch is not None:
            try:
                return (yield from self._process.run_script(epoch, gate.admit, orders))
            except GateLost:
                pass
        # Loaded anew since this process last read the event, perhaps.
        yield from self._catalog.reload()
        if sale.event.gate_epoch is None or sale.event.gate_epoch == epoch:
            raise GateLost
        return (yield from self._process.run_script(sale.event.gate_epoch, gate.admit, orders))

    # -- the ledger's batches

    def _write(self, batch: list[Pending]) -> Steps[None]:
        """Write a batch down; the ledger itself admits where the gate was passed by, and where the
        gate has admitted what does not fit.
        """
        verdicts, sure = yield from self._ask_ledger(batch)
        refused = [
            pending
            for pending, verdict in zip(batch, verdicts, strict=True)
            if isinstance(verdict, LedgerRefusal)
        ]
        if sure:
            yield from self._give_back_admitted(refused)
        for pending, verdict in zip(batch, verdicts, strict=True):
            if isinstance(verdict, Placement):
                pending.waiter.keep(verdict)
            elif sure:
                pending.waiter.keep(Refusal(verdict.outcome, stranger=True))
            else:
                pending.waiter.fail(LedgerUnavailable())

    def _give_back_admitted(self, refused: list[Pending]) -> Steps[None]:
        """The gate admitted what the ledger does not take: the ledger is right."""
        admitted = [one.order.order_id for one in refused if one.asked_gate_at_ms is not None]
        if admitted:
            sale = yield from self._catalog.require()
            yield from give_back(self._process, sale, admitted)

    def _ask_ledger(self, batch: list[Pending]) -> Steps[tuple[Sequence[LedgerVerdict], bool]]:
        """What the ledger says of each, and whether a refusal is sure: while a try whose answer
        was lost may still arrive, what it may place is not refused yet.
        """
        ledger, orders = self._around.ledger, [pending.order for pending in batch]
        ledger_admits = any(pending.asked_gate_at_ms is None for pending in batch)
        verdicts: Sequence[LedgerVerdict]
        tries = 0
        while True:
            try:
                if ledger_admits:
                    verdicts = yield from self._process.statement(ledger.admit, orders)
                else:
                    verdicts = yield from self._process.statement(ledger.place, orders)
                break
            except ConstraintRefused:
                if self._process.has(Bug.BATCH_FAILED_WHOLE):
                    verdicts = [LedgerRefusal(Outcome.SOLD_OUT) for _ in batch]
                    break
                ledger_admits = True
            except LedgerUnavailable:
                tries += 1
                if tries == _LEDGER_TRIES:
                    raise
        self._note_broken_promises(batch, verdicts)
        return verdicts, tries == 0 or self._process.has(Bug.REFUSED_AFTER_A_LOST_ANSWER)

    def _note_broken_promises(
        self, batch: list[Pending], verdicts: Sequence[LedgerVerdict]
    ) -> None:
        """Whom the gate admitted just now, the ledger should take."""
        for pending, verdict in zip(batch, verdicts, strict=True):
            if not pending.admitted_now or pending.asked_gate_at_ms is None:
                continue
            ago_ms = self._process.scheduler.now_ms - pending.asked_gate_at_ms
            if isinstance(verdict, LedgerRefusal):
                why = verdict.outcome.name
            elif self._was_abandoned_within(ago_ms, verdict.row):
                why = OrderStatus.ABANDONED.name
            else:
                continue
            promise = BrokenPromise(pending.order.order_id, ago_ms, why)
            self._around.history.promise_broken(promise)

    def _was_abandoned_within(self, ago_ms: int, row: OrderRow) -> bool:
        """An id that had been abandoned before is admitted as well, for the next one to follow."""
        if row.status is not OrderStatus.ABANDONED or row.ended_at_ms is None:
            return False
        return self._around.ledger.now_ms() - row.ended_at_ms <= ago_ms

    # -- clients that go away

    def forget(self, key: Key) -> None:
        """A client went away: its wait ends, and not the commit."""
        waiter = self._waiters.get(key)
        if waiter is not None and self._process.has(Bug.COMMIT_NOT_SHIELDED):
            self._ledger_stage.cancel_flight_of(waiter)


def _error_for(outcome: Outcome) -> Refused:
    return BuyerLimitReached() if outcome is Outcome.BUYER_LIMIT else SoldOut()

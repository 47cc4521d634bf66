"""Placing an order: in-process answers, then the gate's batch, then the ledger's batch.

As `sales.placing`, with the ledger's own admission where the gate does not answer. What a client is
told follows the ledger: an order is answered after its commit, and an id that is in the ledger
already is that order, whoever put it there.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import NamedTuple, TypeVar

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
from tests.simulation.group_commit import GroupCommit, Pending, Refusal, Verdict
from tests.simulation.history import ATTEMPTS_MAX, BrokenPromise, Key
from tests.simulation.ledger import ConstraintRefused, OrderRow, Placement
from tests.simulation.planted import Bug
from tests.simulation.process import Process
from tests.simulation.sale import Catalog, Sale
from tests.simulation.scheduler import Promise, Steps

Written = TypeVar("Written")

BATCH_SIZE_MAX = 4


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
        self._ledger_only_stage = GroupCommit(
            process, self._admit_by_ledger, BATCH_SIZE_MAX, in_flight_max=2
        )
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
            return (yield from self._earlier_of_this_body(sale, order))
        if not verdict.stranger:
            # The order may have lived and ended: then it is not for the gate to refuse it.
            return (yield from self._earlier_or_refused(sale, order, verdict.outcome))
        raise _error_for(verdict.outcome)

    def _earlier_of_this_body(self, sale: Sale, order: TakenOrder) -> Steps[OrderRow | None]:
        """The gate may hold what was asked by mistake, and the ledger what was ordered before."""
        if self._process.has(Bug.OTHER_BODY_BY_THE_GATES_WORD):
            raise IdempotencyKeyReused
        earlier = yield from self._process.statement(self._around.ledger.get, order.order_id)
        if earlier is not None and earlier.status is OrderStatus.ABANDONED:
            return None
        if earlier is None or earlier.order.fingerprint != order.fingerprint:
            raise IdempotencyKeyReused
        return (yield from self._placed(sale, order, Placement(earlier, new=False)))

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
        if not row.live or (not same_body and self._process.has(Bug.GIVES_BACK_ANOTHER_BODY)):
            # The gate took stock just now for an order that is over.
            yield from give_back(self._process, sale, [order.order_id])
        if row.status is OrderStatus.ABANDONED:
            return None
        if not same_body:
            # Should the gate hold stock for this body, the reconciler sees to it.
            raise IdempotencyKeyReused
        return row

    # -- the gate's batches

    def _admit(self, batch: list[Pending]) -> Steps[None]:
        sale = yield from self._catalog.require()
        asked_at_ms = self._process.scheduler.now_ms
        try:
            epoch, admission = yield from self._ask_gate(sale, [pending.order for pending in batch])
        except GateUnavailable:
            # The sale goes on: the ledger admits, and the reconciler tells the gate.
            self._around.history.pass_by_gate("ledger admits")
            for pending in batch:
                self._ledger_only_stage.enqueue(pending)
            return
        if sale.event.gate_epoch == epoch:
            sale.see_batch(admission)
        refused = []
        for pending, outcome in zip(batch, admission.outcomes, strict=True):
            if outcome is Outcome.ADMITTED:
                self._pass_on(pending._replace(asked_gate_at_ms=asked_at_ms))
            elif outcome is Outcome.SEEN:
                self._pass_on(pending)
            else:
                refused.append((pending, outcome))
        if refused:
            # Aside: the next batch does not wait for it.
            self._process.spawn(self._refuse(sale, epoch, refused, admission.orders_ever_admitted))

    def _refuse(
        self,
        sale: Sale,
        epoch: str,
        refused: Sequence[tuple[Pending, Outcome]],
        orders_ever_admitted: int,
    ) -> Steps[None]:
        with suppress(GateUnavailable):
            yield from self._catalog.learn_orders(sale, orders_ever_admitted)
        same_epoch = sale.event.gate_epoch == epoch
        for pending, outcome in refused:
            stranger = same_epoch and sale.surely_never_admitted(
                pending.order.order_id, orders_ever_admitted
            )
            pending.waiter.keep(Refusal(outcome, stranger))

    def _pass_on(self, pending: Pending) -> None:
        if self._process.has(Bug.ANSWERED_BEFORE_THE_COMMIT):
            now_ms = self._process.now_ms()
            pending.waiter.keep(Placement(OrderRow(pending.order, OrderStatus.HELD, now_ms), True))
        self._ledger_stage.enqueue(pending)

    def _ask_gate(self, sale: Sale, orders: list[TakenOrder]) -> Steps[tuple[str, Admission]]:
        """Under which epoch the gate has answered, and what."""
        run_script, admit = self._process.run_script, self._around.gate.admit
        epoch = sale.event.gate_epoch
        if epoch is not None:
            with suppress(GateLost):
                return epoch, (yield from run_script(epoch, admit, orders))
        # Loaded anew since this process last read the event, perhaps.
        yield from self._catalog.reload()
        epoch_now = sale.event.gate_epoch
        if epoch_now is None or epoch_now == epoch:
            raise GateLost
        return epoch_now, (yield from run_script(epoch_now, admit, orders))

    # -- the ledger's batches

    def _write(self, batch: list[Pending]) -> Steps[None]:
        """Write a batch down; one that the ledger's constraints refuse is decided again there."""
        ledger, orders = self._around.ledger, [pending.order for pending in batch]
        try:
            placements, _ = yield from self._insist(ledger.place, orders)
        except ConstraintRefused:
            if self._process.has(Bug.BATCH_FAILED_WHOLE):
                for pending in batch:
                    pending.waiter.keep(Refusal(Outcome.SOLD_OUT, stranger=True))
            else:
                yield from self._decide_again(batch)
            return
        self._note_broken_promises(batch, placements)
        for pending, placement in zip(batch, placements, strict=True):
            pending.waiter.keep(placement)

    def _decide_again(self, batch: list[Pending]) -> Steps[None]:
        refused = yield from self._admit_by_ledger(batch)
        if refused:
            sale = yield from self._catalog.require()
            yield from give_back(self._process, sale, refused)

    def _admit_by_ledger(self, batch: list[Pending]) -> Steps[list[bytes]]:
        """Let the ledger decide a batch, and answer it; the ids that are refused for good."""
        ledger, orders = self._around.ledger, [pending.order for pending in batch]
        verdicts, certain = yield from self._insist(ledger.admit, orders)
        self._note_broken_promises(batch, verdicts)
        refused = []
        for pending, verdict in zip(batch, verdicts, strict=True):
            if isinstance(verdict, Placement):
                pending.waiter.keep(verdict)
            elif certain or self._process.has(Bug.REFUSED_AFTER_A_LOST_ANSWER):
                pending.waiter.keep(Refusal(verdict, stranger=True))
                refused.append(pending.order.order_id)
            else:
                pending.waiter.fail(LedgerUnavailable())
        return refused

    def _insist(
        self, write: Callable[[list[TakenOrder]], list[Written]], orders: list[TakenOrder]
    ) -> Steps[tuple[list[Written], bool]]:
        """Write a batch, twice if need be, and say whether the first try was answered: if not, it
        may still be on its way, and what the second refuses is not refused for certain.
        """
        try:
            return (yield from self._process.statement(write, orders)), True
        except LedgerUnavailable:
            pass
        try:
            return (yield from self._process.statement(write, orders)), False
        except ConstraintRefused:
            raise LedgerUnavailable from None

    def _note_broken_promises(
        self, batch: list[Pending], verdicts: Sequence[Placement | Outcome]
    ) -> None:
        """Whom the gate admitted just now, the ledger should take."""
        for pending, verdict in zip(batch, verdicts, strict=True):
            if pending.asked_gate_at_ms is None:
                continue
            ago_ms = self._process.scheduler.now_ms - pending.asked_gate_at_ms
            if isinstance(verdict, Outcome):
                why = verdict.name
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
            self._ledger_only_stage.cancel_flight_of(waiter)


def _error_for(outcome: Outcome) -> Refused:
    return BuyerLimitReached() if outcome is Outcome.BUYER_LIMIT else SoldOut()

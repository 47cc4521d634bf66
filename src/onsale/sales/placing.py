"""Placing an order: in-process answers, then the gate's batch, then the ledger's batch.

When the gate does not decide, for it is away, slow or being loaded, the ledger does both in a batch
of its own: slower, and just as exact. The same goes for a batch that the gate has admitted and the
ledger's constraints refuse: the gate was wrong, and the ledger decides again whom it takes.

What a client is told follows the ledger: an order is answered after its commit, and an id that is
in the ledger already is that order, whoever put it there. So a request whose twin is on its way at
another process may join it here: both write the same id, one wins, both get the same order.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from onsale.domain.errors import (
    BuyerLimitReached,
    GateLost,
    GateUnavailable,
    IdempotencyKeyReused,
    LedgerUnavailable,
    OnsaleError,
    Refused,
    RequestInProgress,
)
from onsale.domain.event import Event, PaymentKind
from onsale.domain.ids import order_id
from onsale.domain.inventory import Outcome
from onsale.domain.order import Order, OrderRequest, OrderStatus
from onsale.gate.codec import encode_body
from onsale.gate.gate import Admission, EventBatch, Gate
from onsale.ledger.engine import ConstraintRefused
from onsale.ledger.ledger import Ledger, OrderKey, Placement
from onsale.ledger.tables import LIMIT_CONSTRAINT, STOCK_CONSTRAINT
from onsale.observability import metrics
from onsale.observability.logging import get_logger
from onsale.sales.baskets import Asked, Basket
from onsale.sales.catalog import Catalog
from onsale.sales.ending import GiveBack
from onsale.sales.group_commit import GroupCommit, MakeStage
from onsale.sales.sale import PendingOrder, Refusal, Sale, Verdict
from onsale.sales.valve import Valve
from onsale.settings import Settings

# Each attempt but the last was abandoned: its process died, or lost the ledger, on the way to it.
_ATTEMPTS_MAX = 8
# What these say no to was counted wrong at the gate.
_COUNTS = (STOCK_CONSTRAINT, LIMIT_CONSTRAINT)

Written = TypeVar("Written")

log = get_logger(__name__)


class Placed(NamedTuple):
    """The order, and whether an earlier request of the same key had placed it."""

    order: Order
    replayed: bool


class Placing:
    """The use case of the crowd."""

    def __init__(
        self,
        catalog: Catalog,
        gate: Gate,
        ledger: Ledger,
        give_back: GiveBack,
        settings: Settings,
        make_stage: MakeStage = GroupCommit,
    ) -> None:
        self._catalog = catalog
        self._gate = gate
        self._ledger = ledger
        self._give_back = give_back
        self._settings = settings
        self._make_stage = make_stage
        self.valve = Valve(
            settings.orders_in_flight_max, settings.orders_in_flight_busy_max, self._carried
        )
        self._gate_stages: dict[Hashable, GroupCommit[OrderRequest, Verdict]] = {}
        self._asides: set[asyncio.Task[None]] = set()
        self._ledger_stage: GroupCommit[OrderRequest, Verdict] = make_stage(
            self._write,
            stage="ledger",
            batch_size_max=settings.ledger_batch_size_max,
            in_flight_max=settings.ledger_batches_in_flight_max,
            queue_size_max=settings.batch_queue_size_max,
        )
        self._ledger_only_stage: GroupCommit[OrderRequest, Verdict] = make_stage(
            self._admit_by_ledger,
            stage="ledger_only",
            batch_size_max=settings.ledger_batch_size_max,
            in_flight_max=settings.ledger_batches_in_flight_max,
            queue_size_max=settings.batch_queue_size_max,
        )

    def refusing(self, event_id: str) -> Sale | None:
        """The event's sale, if it has buyers to be refused, as far as is known here."""
        sale = self._catalog.known(event_id)
        return sale if sale is not None and sale.refuses else None

    def refusal(self, sale: Sale, buyer_id: str, key: str, asked: Asked) -> Refused | None:
        """Why this order is refused, if that is known here: `place` would raise it.

        Raises `InvalidRequest`.
        """
        outcome = sale.refusal(sale.baskets.of(asked).items)
        if outcome is None or sale.may_have_admitted(order_id(sale.event.id, buyer_id, key)):
            return None
        return self._refused(sale, outcome)

    async def place(self, event_id: str, buyer_id: str, key: str, asked: Asked) -> Placed:
        """Place an order, durably, or find the one that this key has placed.

        Raises the refusals of `domain.errors`, `Overloaded`, `LedgerUnavailable`.
        """
        sale = self._catalog.known(event_id) or await self._catalog.reload(event_id)
        basket = sale.baskets.of(asked)
        try:
            for attempt in range(_ATTEMPTS_MAX):
                named = order_id(event_id, buyer_id, key, attempt)
                refusal = sale.refusal(basket.items)
                if refusal is not None and not sale.may_have_admitted(named):
                    raise self._refused(sale, refusal)
                request = _request(sale.event, named, buyer_id, basket)
                placed = await self._attempt(sale, request)
                if placed is not None:
                    return placed
        except Refused:
            raise
        except OnsaleError:
            sale.meters.failed()
            raise
        raise RequestInProgress

    async def drain(self) -> None:
        """Wait until every order on its way has been answered."""
        for stage in self._gate_stages.values():
            await stage.drain()
        # One may lead to another: who is asked about anew may be refused, which takes a reading.
        while self._asides:
            await asyncio.wait(self._asides)
        await self._ledger_stage.drain()
        await self._ledger_only_stage.drain()

    def _carried(self) -> float:
        """How many orders every stage carries within the deadline."""
        stages = [self._ledger_stage, self._ledger_only_stage, *self._gate_stages.values()]
        return min(stage.carried(self._settings.order_deadline_seconds) for stage in stages)

    # -- one attempt

    async def _attempt(self, sale: Sale, request: OrderRequest) -> Placed | None:
        """The order under this id, or `None` when the ledger has abandoned the id."""
        if sale.event.gate_retired:
            # Only the ledger still knows who had ordered.
            return await self._earlier_or_refused(sale, request, Outcome.CLOSED)
        verdict = await self._gate_stage(request.event_id).submit(request)
        if isinstance(verdict, Placement):
            return await self._placed(sale, request, verdict)
        if verdict.outcome is Outcome.SEEN_WITH_OTHER_BODY:
            return await self._earlier_of_this_body(sale, request)
        if not verdict.stranger:
            # The order may have lived and ended: then it is not for the gate to refuse it.
            return await self._earlier_or_refused(sale, request, verdict.outcome)
        raise self._refused(sale, verdict.outcome)

    async def _earlier_or_refused(
        self, sale: Sale, request: OrderRequest, refusal: Outcome
    ) -> Placed | None:
        earlier = await self._ledger.get(OrderKey(request.event_id, request.order_id))
        if earlier is None:
            raise self._refused(sale, refusal)
        return await self._placed(sale, request, Placement(earlier, new=False))

    async def _earlier_of_this_body(self, sale: Sale, request: OrderRequest) -> Placed | None:
        """The gate may hold what was asked by mistake, and the ledger what was ordered before."""
        earlier = await self._ledger.get(OrderKey(request.event_id, request.order_id))
        if earlier is not None and earlier.status is OrderStatus.ABANDONED:
            # A twin of another body passes there as well, on its way to the next id.
            return None
        if earlier is None or earlier.fingerprint != request.fingerprint:
            raise IdempotencyKeyReused
        return await self._placed(sale, request, Placement(earlier, new=False))

    async def _placed(
        self, sale: Sale, request: OrderRequest, placement: Placement
    ) -> Placed | None:
        order = placement.order
        if placement.new:
            return Placed(order, replayed=False)
        if not order.status.live:
            # The gate took stock just now for an order that is over.
            await self._give_back(sale, [request.order_id])
        if order.status is OrderStatus.ABANDONED:
            return None
        if order.fingerprint != request.fingerprint:
            # For which of the two bodies the gate holds stock is not known here: should it be this
            # one, the reconciler sees to it. Given back, the other's seats would be free.
            raise IdempotencyKeyReused
        sale.meters.replayed()
        return Placed(order, replayed=True)

    def _refused(self, sale: Sale, outcome: Outcome) -> Refused:
        sale.meters.refused(outcome)
        return BuyerLimitReached() if outcome is Outcome.BUYER_LIMIT else sale.error_for(outcome)

    # -- the gate's batches

    def _gate_stage(self, event_id: str) -> GroupCommit[OrderRequest, Verdict]:
        """One for each server: what it decides for all of its events goes there together."""
        home = self._gate.home(event_id)
        stage = self._gate_stages.get(home)
        if stage is None:
            # One batch in flight: a second could overtake it, and orders are served as they came.
            stage = self._gate_stages[home] = self._make_stage(
                self._admit,
                stage="gate",
                batch_size_max=self._settings.gate_batch_size_max,
                in_flight_max=1,
                queue_size_max=self._settings.batch_queue_size_max,
            )
        return stage

    async def _admit(self, batch: list[PendingOrder]) -> None:
        asked, questions = [], []
        for event_id, orders in _by_event(batch).items():
            sale = self._catalog.known(event_id)
            epoch = None if sale is None else sale.event.gate_epoch
            if sale is None or epoch is None:
                self._aside(self._admit_anew(event_id, epoch, orders), orders)
            else:
                asked.append((sale, orders))
                questions.append(_question(event_id, epoch, orders))
        answers = await self._gate.admit_all(questions)
        if any(isinstance(answer, Admission) for answer in answers):
            _tell_mode("redis")
        for (sale, orders), question, answer in zip(asked, questions, answers, strict=True):
            if isinstance(answer, GateLost):
                if sale.lost_epoch != question.epoch:
                    # Once, and not for every batch until it is loaded anew.
                    sale.lost_epoch = question.epoch
                    log.warning("gate lost", event_id=sale.event.id, epoch=question.epoch)
                self._aside(self._admit_anew(sale.event.id, question.epoch, orders), orders)
            else:
                self._heed(sale, question.epoch, orders, answer)

    async def _admit_anew(
        self, event_id: str, epoch: str | None, orders: list[PendingOrder]
    ) -> None:
        """Ask about orders once more if the gate was loaded since this process read the event."""
        sale = await self._catalog.reload(event_id)
        epoch_now = sale.event.gate_epoch
        if sale.event.gate_retired:
            for pending in orders:
                pending.answer(Refusal(Outcome.CLOSED, stranger=False))
        elif epoch_now is None or epoch_now == epoch:
            self._admit_without_gate(orders)
        else:
            question = _question(event_id, epoch_now, orders)
            (answer,) = await self._gate.admit_all([question])
            self._heed(sale, epoch_now, orders, answer)

    def _heed(
        self,
        sale: Sale,
        epoch: str,
        orders: list[PendingOrder],
        answer: Admission | GateUnavailable,
    ) -> None:
        """Do with orders of one event as the gate says."""
        if isinstance(answer, GateUnavailable):
            self._admit_without_gate(orders)
            return
        if sale.event.gate_epoch == epoch:
            sale.see_batch(answer)
        refused = []
        for pending, outcome in zip(orders, answer.outcomes, strict=True):
            if outcome is Outcome.ADMITTED or outcome is Outcome.SEEN:
                self._pass_on(pending, self._ledger_stage)
            else:
                refused.append((pending, outcome))
        if refused and sale.known_orders < answer.orders_ever_admitted:
            late = [pending for pending, _ in refused]
            self._aside(self._refuse_informed(sale, epoch, refused, answer), late)
        else:
            self._refuse(sale, epoch, refused, answer)

    async def _refuse_informed(
        self,
        sale: Sale,
        epoch: str,
        refused: Sequence[tuple[PendingOrder, Outcome]],
        admission: Admission,
    ) -> None:
        with suppress(GateUnavailable):
            await self._catalog.learn_orders(sale, admission.orders_ever_admitted)
        self._refuse(sale, epoch, refused, admission)

    @staticmethod
    def _refuse(
        sale: Sale,
        epoch: str,
        refused: Sequence[tuple[PendingOrder, Outcome]],
        admission: Admission,
    ) -> None:
        same_epoch = sale.event.gate_epoch == epoch
        for pending, outcome in refused:
            stranger = same_epoch and sale.surely_never_admitted(
                pending.job.order_id, admission.orders_ever_admitted
            )
            pending.answer(Refusal(outcome, stranger))

    def _admit_without_gate(self, orders: list[PendingOrder]) -> None:
        _tell_mode("ledger_only")
        for pending in orders:
            self._pass_on(pending, self._ledger_only_stage)

    def _aside(self, work: Coroutine[Any, Any, None], orders: list[PendingOrder]) -> None:
        """Let orders wait for more than their batch, which goes on without them."""
        task = asyncio.create_task(_or_fail(work, orders))
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    @staticmethod
    def _pass_on(pending: PendingOrder, stage: "GroupCommit[OrderRequest, Verdict]") -> None:
        try:
            stage.enqueue(pending)
        except OnsaleError as error:
            # Its stock comes back by the reconciler: nothing was promised.
            pending.fail(error)

    # -- the ledger's batches

    async def _write(self, batch: list[PendingOrder]) -> None:
        """Write a batch down. One whose stock or limits the ledger refuses is decided again by the
        ledger; one that is refused for anything else is halved until the order at fault is alone,
        so that nobody fails with it. A ledger that does not answer refuses nobody.
        """
        try:
            placements, _ = await _insist(self._ledger.place, [pending.job for pending in batch])
        except LedgerUnavailable:
            raise
        except Exception as refused:
            if isinstance(refused, ConstraintRefused) and refused.constraint in _COUNTS:
                await self._decide_again(batch)
                return
            for half in await self._halves(batch, refused):
                await self._write(half)
            return
        for pending, placement in zip(batch, placements, strict=True):
            pending.answer(placement)
        # Those included whose client went away meanwhile: they have an order.
        self._count([placement.order for placement in placements if placement.new])

    async def _halves(
        self, batch: list[PendingOrder], refused: Exception
    ) -> Sequence[list[PendingOrder]]:
        """A refused batch in two; nothing is left of one whose only order has failed."""
        if len(batch) == 1:
            await self._fail(batch[0], refused)
            return ()
        metrics.batch_splits_total.inc()
        middle = len(batch) // 2
        return batch[:middle], batch[middle:]

    def _count(self, orders: list[Order]) -> None:
        by_event: dict[str, list[Order]] = {}
        for order in orders:
            by_event.setdefault(order.event_id, []).append(order)
        for event_id, placed in by_event.items():
            sale = self._catalog.known(event_id)
            if sale is not None:
                sale.meters.placed(placed)

    async def _fail(self, pending: PendingOrder, error: Exception) -> None:
        log.error(
            "the ledger cannot hold an order", event_id=pending.job.event_id, error=str(error)
        )
        sale = await self._catalog.require(pending.job.event_id)
        await self._give_back(sale, [pending.job.order_id])
        pending.fail(error)

    async def _decide_again(self, batch: list[PendingOrder]) -> None:
        log.warning("the ledger refused what the gate admitted", orders=len(batch))
        refused = defaultdict(list)
        for request in await self._admit_by_ledger(batch):
            refused[request.event_id].append(request.order_id)
        for event_id, order_ids in refused.items():
            await self._give_back(await self._catalog.require(event_id), order_ids)

    async def _admit_by_ledger(self, batch: list[PendingOrder]) -> list[OrderRequest]:
        """Let the ledger decide a batch, and answer it; the requests that are refused for good.

        One that cannot be decided is halved as in `_write`.
        """
        try:
            verdicts, certain = await _insist(
                self._ledger.admit, [pending.job for pending in batch]
            )
        except LedgerUnavailable:
            raise
        except Exception as fault:
            halves = await self._halves(batch, fault)
            return [job for half in halves for job in await self._admit_by_ledger(half)]
        refused = []
        for pending, verdict in zip(batch, verdicts, strict=True):
            if isinstance(verdict, Placement):
                pending.answer(verdict)
            elif certain:
                # The ledger has no order of this id: nobody is a stranger more surely.
                pending.answer(Refusal(verdict, stranger=True))
                refused.append(pending.job)
            else:
                pending.fail(LedgerUnavailable())
        admitted = [v.order for v in verdicts if isinstance(v, Placement) and v.new]
        self._count(admitted)
        for event_id in {order.event_id for order in admitted}:
            if sale := self._catalog.known(event_id):
                sale.see_unheard()
        return refused


async def _insist(
    write: Callable[[list[OrderRequest]], Awaitable[list[Written]]], requests: list[OrderRequest]
) -> tuple[list[Written], bool]:
    """Write a batch, twice if need be: it meets a dead connection once after a restart of Postgres,
    and the same ids are the same orders. Says whether the first try was answered: if not, it may
    still be on its way, and what the second refuses is not refused for certain.
    """
    try:
        return await write(requests), True
    except LedgerUnavailable:
        pass
    try:
        return await write(requests), False
    except ConstraintRefused:
        raise LedgerUnavailable from None


async def _or_fail(work: Coroutine[Any, Any, None], orders: list[PendingOrder]) -> None:
    try:
        await work
    except BaseException as error:
        for pending in orders:
            pending.fail(error)
        if not isinstance(error, Exception):
            raise


def _by_event(batch: list[PendingOrder]) -> dict[str, list[PendingOrder]]:
    by_event: dict[str, list[PendingOrder]] = {}
    for pending in batch:
        by_event.setdefault(pending.job.event_id, []).append(pending)
    return by_event


def _question(event_id: str, epoch: str, orders: list[PendingOrder]) -> EventBatch:
    return EventBatch(
        event_id,
        epoch,
        [
            (job.order_id, encode_body(job.buyer_id, job.fingerprint, job.items))
            for job, _ in orders
        ],
    )


def _tell_mode(mode: str) -> None:
    for known in ("redis", "ledger_only"):
        metrics.gate_mode.labels(known).set(known == mode)


def _request(event: Event, named: bytes, buyer_id: str, basket: Basket) -> OrderRequest:
    held = event.payment is PaymentKind.CARD
    return OrderRequest(
        event_id=event.id,
        order_id=named,
        buyer_id=buyer_id,
        fingerprint=basket.fingerprint,
        items=basket.items,
        status=OrderStatus.HELD if held else OrderStatus.CONFIRMED,
        amount_minor_units=basket.amount_minor_units,
        currency=event.currency,
        hold_seconds=event.hold_seconds,
    )

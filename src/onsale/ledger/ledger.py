"""The ledger's orders: one method per step in an order's life, each idempotent.

Knows Postgres and the domain, nothing of the gate and nothing of HTTP. What a buyer may not do is
an answer; `LedgerUnavailable` and `ConstraintRefused` are raised (see `engine`).
"""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import ColumnElement, Row, func, select, true

from onsale.domain.ids import FINGERPRINT_BYTES
from onsale.domain.inventory import Outcome
from onsale.domain.order import LIVE_STATUSES, Item, Order, OrderRequest, OrderStatus
from onsale.domain.payment import PaymentState
from onsale.domain.tier import TierBooks
from onsale.ledger import admission, statements
from onsale.ledger.engine import Database
from onsale.ledger.tables import order_items, orders, payments, tiers

CHUNK_ORDERS = 1_000
# Each leaves a row; who has not paid by then does not mean to.
PAYMENT_ATTEMPTS_MAX = 50


class Placement(NamedTuple):
    """What became of an order request: the order as it now stands, and whether it is new."""

    order: Order
    new: bool


class OrderKey(NamedTuple):
    """An order's primary key: event id in hexadecimal, order id in bytes."""

    event_id: str
    order_id: bytes


class KnownOrder(NamedTuple):
    """What is compared of an order: whether it is live, and what it was for."""

    status: OrderStatus
    fingerprint: bytes


class PaymentRequest(NamedTuple):
    """A buyer who wants to pay for a hold."""

    key: OrderKey
    buyer_id: str
    method: str


class PaymentBegun(NamedTuple):
    """An attempt to make, and the order that it pays for."""

    attempt: int
    order: Order


class PaymentAuthorized(NamedTuple):
    """An attempt that the provider has authorised."""

    key: OrderKey
    attempt: int


class OrderSettled(NamedTuple):
    """An order as it now stands, and for how many seconds it was held if it was confirmed here."""

    order: Order
    held_seconds: float | None


class LiveOrder(NamedTuple):
    """What the gate is told of an order. A million of them are read at a time."""

    id: bytes
    buyer_id: str
    fingerprint: bytes
    items: tuple[Item, ...]


class PaymentAttempt(NamedTuple):
    """An attempt to pay that is under way; `age_seconds` by the ledger's clock."""

    attempt: int
    method: str
    age_seconds: float


class PaymentStanding(NamedTuple):
    """Whether a hold is overdue by the ledger's clock, how often it was tried to pay for it, and
    the payment under way.
    """

    overdue: bool
    attempts: int
    under_way: PaymentAttempt | None


class PaymentDue(NamedTuple):
    """A payment that the provider has yet to hear of."""

    key: OrderKey
    attempt: int
    state: PaymentState


class PageMark(NamedTuple):
    """Where a page of a buyer's orders ends."""

    created_at: datetime
    event_id: str
    order_id: bytes


class LedgerTierBooks(NamedTuple):
    """One tier's counters, and the same added up from its live orders, at one instant."""

    counted: TierBooks
    summed_reserved_units: int
    summed_sold_units: int

    @property
    def oversold_units(self) -> int:
        """Units of live orders beyond the capacity; 0 in a sound sale."""
        return max(0, self.summed_reserved_units - self.counted.capacity_units)


class BuyerUnits(NamedTuple):
    """How many units a buyer's live orders come to."""

    buyer_id: str
    units: int


class OrderMoney(NamedTuple):
    """An order's payments: those taken or about to be, those given back or about to be."""

    order_id: bytes
    status: OrderStatus
    payments_taken: int
    payments_given_back: int


def payment_key(key: OrderKey, attempt: int) -> str:
    """The name of a payment attempt at the provider."""
    return f"{key.event_id}.{key.order_id.hex()}.{attempt}"


class Ledger:
    """Orders and their payments in Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- placing

    async def place(self, requests: Sequence[OrderRequest]) -> list[Placement]:
        """Write a batch down in one transaction; requests whose ids are here change nothing.

        Twins, requests of one id in one batch, get one order, which is new to the first of them.
        Raises `ConstraintRefused` for the whole batch when one of its orders does not fit.
        """
        firsts = {_key_of(request): request for request in reversed(requests)}
        distinct = list(firsts.values())
        items = [(request, item) for request in distinct for item in request.items]
        async with self._database.driver("place") as connection:
            row = await connection.fetchrow(
                statements.PLACE,
                [request.event_id for request in distinct],
                [request.order_id.hex() for request in distinct],
                [request.buyer_id for request in distinct],
                [request.status.value for request in distinct],
                [statements.signed(request.fingerprint) for request in distinct],
                [request.amount_minor_units for request in distinct],
                [request.hold_seconds for request in distinct],
                [request.event_id for request, _ in items],
                [request.order_id.hex() for request, _ in items],
                [item.tier_number for _, item in items],
                [item.quantity for _, item in items],
            )
            placed_ids = {placed.bytes for placed in row["placed_ids"] or ()}
            known = [request for request in distinct if request.order_id not in placed_ids]
            orders = await self._read(connection, [_key_of(request) for request in known])
        for key, request in firsts.items():
            if request.order_id in placed_ids:
                orders[key] = _as_placed(request, row["placed_at"])
        return [
            Placement(
                orders[key := _key_of(request)],
                new=request.order_id in placed_ids and firsts[key] is request,
            )
            for request in requests
        ]

    async def admit(self, requests: Sequence[OrderRequest]) -> "list[Placement | Outcome]":
        """Decide a batch without the gate, in its order, and write down what is admitted.

        A placement for each request whose order is here now, or why it was refused; of twins in one
        batch the order is new to the first.
        """
        firsts = {_key_of(request): request for request in reversed(requests)}
        # In arrival order, which the reversed dictionary does not keep.
        distinct = [request for request in requests if request is firsts[_key_of(request)]]
        async with self._database.driver("admit") as connection:
            outcomes = dict(
                zip(
                    map(_key_of, distinct), await admission.admit(connection, distinct), strict=True
                )
            )
            here = [
                request
                for request in distinct
                if outcomes[_key_of(request)] in (Outcome.ADMITTED, Outcome.SEEN)
            ]
            orders = await self._read(connection, [_key_of(request) for request in here])
        return [
            Placement(
                orders[key],
                new=outcomes[key] is Outcome.ADMITTED and firsts[key] is request,
            )
            if (key := _key_of(request)) in orders
            else outcomes[key]
            for request in requests
        ]

    async def _read(self, connection: Any, keys: Collection[OrderKey]) -> dict[OrderKey, Order]:
        if not keys:
            return {}
        found = map(order_from, await connection.fetch(statements.READ, *_columns(keys)))
        return {OrderKey(order.event_id, order.id): order for order in found}

    # -- reading

    async def get(self, key: OrderKey) -> Order | None:
        """The order, abandoned ones included, or `None`."""
        async with self._database.driver("get") as connection:
            rows = await connection.fetch(statements.READ, [key.event_id], [key.order_id.hex()])
        return order_from(rows[0]) if rows else None

    async def of_buyer(self, buyer_id: str, after: PageMark | None, size: int) -> list[Order]:
        """The buyer's orders of all events, newest first, `size` after a page mark."""
        async with self._database.driver("of_buyer") as connection:
            if after is None:
                rows = await connection.fetch(statements.READ_OF_BUYER, buyer_id, size)
            else:
                rows = await connection.fetch(
                    statements.READ_OF_BUYER_AFTER,
                    buyer_id,
                    size,
                    after.created_at,
                    after.event_id,
                    after.order_id.hex(),
                )
        return [order_from(row) for row in rows]

    # -- ending

    async def release(self, key: OrderKey, buyer_id: str) -> bool:
        """Release the buyer's hold; whether it was held until now."""
        async with self._database.driver("release") as connection:
            row = await connection.fetchrow(
                statements.RELEASE, key.event_id, key.order_id.hex(), buyer_id
            )
        return row is not None

    async def refund(self, key: OrderKey) -> bool:
        """Refund a confirmed order; whether it was confirmed until now."""
        async with self._database.driver("refund") as connection:
            row = await connection.fetchrow(statements.REFUND, key.event_id, key.order_id.hex())
        return row is not None

    async def expire(self, size_max: int) -> list[OrderKey]:
        """Expire up to `size_max` overdue holds, but those that another sweeper has in hand."""
        async with self._database.driver("expire") as connection:
            return _keys(await connection.fetch(statements.EXPIRE, size_max))

    async def oldest_overdue_seconds(self) -> float:
        """How long the longest overdue hold has been overdue; 0 when none is."""
        async with self._database.driver("overdue") as connection:
            overdue = await connection.fetchval(
                "SELECT extract(epoch FROM now() - min(expires_at))::float8"
                " FROM orders WHERE status = 'held'"
            )
        return max(0.0, overdue or 0.0)

    async def fence(self, keys: Sequence[OrderKey]) -> list[OrderKey]:
        """Mark as abandoned those ids that never arrived here; only they may be given back."""
        async with self._database.driver("fence") as connection:
            rows = await connection.fetch(
                statements.FENCE,
                [key.event_id for key in keys],
                [key.order_id.hex() for key in keys],
            )
        return _keys(rows)

    # -- paying

    async def begin_payments(self, asked: Sequence[PaymentRequest]) -> "list[PaymentBegun | None]":
        """Begin to pay for each of some orders: the attempt to make, and the order it pays for.

        `None` for one that is not payable or being paid already, as by its twin in the batch.
        """
        firsts = {(request.key, request.buyer_id): request for request in reversed(asked)}
        distinct = list(firsts.values())
        async with self._database.driver("begin_payments") as connection:
            rows = await connection.fetch(
                statements.BEGIN_PAYMENTS,
                *_columns(request.key for request in distinct),
                [request.buyer_id for request in distinct],
                [request.method for request in distinct],
                PAYMENT_ATTEMPTS_MAX,
            )
            attempts = {
                OrderKey(event_id.hex, order_id.bytes): attempt
                for event_id, order_id, attempt in rows
            }
            orders = await self._read(connection, attempts)
        return [
            PaymentBegun(attempts[request.key], orders[request.key])
            if request.key in attempts
            and orders[request.key].buyer_id == request.buyer_id
            and firsts[request.key, request.buyer_id] is request
            else None
            for request in asked
        ]

    async def payment_standing(self, key: OrderKey) -> PaymentStanding:
        """How it stands with paying for an order that is in the ledger."""
        async with self._database.driver("payment_standing") as connection:
            overdue, attempts, attempt, method, age_seconds = await connection.fetchrow(
                statements.PAYMENT_UNDER_WAY, key.event_id, key.order_id.hex()
            )
        under_way = None if attempt is None else PaymentAttempt(attempt, method, age_seconds)
        return PaymentStanding(bool(overdue), attempts, under_way)

    async def move_payment(
        self, key: OrderKey, attempt: int, leave: PaymentState, enter: PaymentState
    ) -> bool:
        """Move a payment on; whether it still was in the state to leave."""
        async with self._database.driver("move_payment") as connection:
            moved = await connection.fetchval(
                statements.MOVE_PAYMENT,
                key.event_id,
                key.order_id.hex(),
                attempt,
                leave,
                enter,
            )
        return moved is not None

    async def confirm_orders(self, authorized: Sequence[PaymentAuthorized]) -> "list[OrderSettled]":
        """Confirm holds, each by its authorised payment, in one transaction.

        Of an order that is not held any more the payment waits to be let go. Twins confirm once.
        """
        firsts = {payment: payment for payment in reversed(authorized)}
        async with self._database.driver("confirm") as connection:
            rows = await connection.fetch(
                statements.CONFIRM,
                *_columns(key for key, _ in firsts),
                [attempt for _, attempt in firsts],
            )
            held_seconds = {
                PaymentAuthorized(OrderKey(event_id.hex, order_id.bytes), attempt): seconds
                for event_id, order_id, attempt, seconds in rows
            }
            orders = await self._read(connection, {payment.key for payment in authorized})
        return [
            OrderSettled(
                orders[payment.key],
                held_seconds.get(payment) if firsts[payment] is payment else None,
            )
            for payment in authorized
        ]

    async def payments_due(self, given_up_after_seconds: float, size: int) -> list[PaymentDue]:
        """Payments that wait for the provider, those longest waiting first.

        An attempt that was begun and then forgotten is due after `given_up_after_seconds`.
        """
        query = (
            select(payments.c.event_id, payments.c.order_id, payments.c.attempt, payments.c.state)
            .where(_payment_is_due(given_up_after_seconds))
            .order_by(payments.c.changed_at)
            .limit(size)
        )
        async with self._database.transaction("payments_due") as connection:
            rows = (await connection.execute(query)).all()
        return [
            PaymentDue(OrderKey(UUID(event_id).hex, UUID(order_id).bytes), attempt, state)
            for event_id, order_id, attempt, state in rows
        ]

    async def count_payments_due(self, given_up_after_seconds: float) -> int:
        """How many payments wait for the provider."""
        query = select(func.count()).where(_payment_is_due(given_up_after_seconds))
        async with self._database.transaction("count_payments_due") as connection:
            return int((await connection.execute(query)).scalar_one())

    # -- reconciling

    async def live_orders(self, event_id: str) -> AsyncIterator[list[LiveOrder]]:
        """The event's held and confirmed orders by id, in chunks, each read at its own instant."""
        async for rows in self._live("live_orders", statements.READ_LIVE_AFTER, event_id):
            yield [
                LiveOrder(id_.bytes, buyer_id, _fingerprint(signed), _items(pairs))
                for id_, buyer_id, signed, pairs in rows
            ]

    async def live_ids(self, event_id: str) -> AsyncIterator[list[bytes]]:
        """The ids of `live_orders` alone, which is a third of the work."""
        async for rows in self._live("live_ids", statements.LIVE_IDS_AFTER, event_id):
            yield [id_.bytes for (id_,) in rows]

    async def _live(
        self, operation: str, statement: str, event_id: str
    ) -> AsyncIterator[list[Any]]:
        after = _ID_BEFORE_ALL
        while True:
            async with self._database.driver(operation) as connection:
                rows = await connection.fetch(statement, event_id, CHUNK_ORDERS, after)
            if rows:
                yield rows
            if len(rows) < CHUNK_ORDERS:
                return
            after = rows[-1]["id"].hex

    async def ended_ids(self, event_id: str) -> AsyncIterator[list[bytes]]:
        """Ids of the event's orders that are over, abandoned ones included, in chunks."""
        after = _ID_BEFORE_ALL
        while True:
            query = (
                select(orders.c.id)
                .where(
                    orders.c.event_id == event_id,
                    orders.c.id > after,
                    orders.c.status.not_in(LIVE_STATUSES),
                )
                .order_by(orders.c.id)
                .limit(CHUNK_ORDERS)
            )
            async with self._database.transaction("ended_ids") as connection:
                found = (await connection.scalars(query)).all()
            if found:
                yield [UUID(order_id).bytes for order_id in found]
            if len(found) < CHUNK_ORDERS:
                return
            after = found[-1]

    async def unheard(self, event_id: str, size_max: int) -> list[bytes]:
        """Ids of orders that the ledger admitted alone, of which the gate may not know."""
        async with self._database.driver("unheard") as connection:
            rows = await connection.fetch(statements.UNHEARD, event_id, size_max)
        return [row["id"].bytes for row in rows]

    async def heard(self, event_id: str, order_ids: Sequence[bytes]) -> None:
        """Remember that the gate knows of these, or need not know any more."""
        async with self._database.driver("heard") as connection:
            await connection.execute(
                statements.HEARD, event_id, [order_id.hex() for order_id in order_ids]
            )

    async def live(self, keys: Sequence[OrderKey]) -> list[Order]:
        """Those of the orders that are held or confirmed."""
        async with self._database.driver("live") as connection:
            rows = await connection.fetch(
                statements.READ,
                [key.event_id for key in keys],
                [key.order_id.hex() for key in keys],
            )
        return [order for order in map(order_from, rows) if order.status.live]

    async def known(self, event_id: str, ids: Iterable[bytes]) -> "dict[bytes, KnownOrder]":
        """Those of the orders that are here, in a few words."""
        async with self._database.driver("known") as connection:
            rows = await connection.fetch(
                statements.KNOWN, event_id, [order_id.hex() for order_id in ids]
            )
        return {
            id_.bytes: KnownOrder(OrderStatus(status), _fingerprint(signed))
            for id_, status, signed in rows
        }

    async def ended_within(self, event_id: str, seconds: float) -> list[bytes]:
        """Ids of the event's orders that ended within the last `seconds`."""
        since = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
        query = select(orders.c.id).where(orders.c.event_id == event_id, orders.c.ended_at > since)
        async with self._database.transaction("ended_within") as connection:
            return [UUID(found).bytes for found in (await connection.scalars(query)).all()]

    async def counters(self, event_id: str) -> list[TierBooks]:
        """The event's tiers by number, as counted; cheap, for it adds nothing up."""
        query = select(tiers).where(tiers.c.event_id == event_id).order_by(tiers.c.number)
        async with self._database.transaction("counters") as connection:
            return [_counted(row) for row in await connection.execute(query)]

    async def books(self, event_id: str) -> list[LedgerTierBooks]:
        """The event's tiers by number, counted and added up, at one instant."""
        # Of an event that is younger than the statistics Postgres expects one order, and joins all
        # items to all orders. OFFSET 0 has it look each order's items up.
        items = (
            select(order_items.c.tier_number, order_items.c.quantity)
            .where(
                order_items.c.event_id == orders.c.event_id,
                order_items.c.order_id == orders.c.id,
            )
            .offset(0)
            .lateral()
        )
        units = (
            select(
                items.c.tier_number,
                func.sum(items.c.quantity).label("reserved"),
                func.sum(items.c.quantity)
                .filter(orders.c.status == OrderStatus.CONFIRMED)
                .label("sold"),
            )
            .select_from(orders.join(items, true()))
            .where(orders.c.event_id == event_id, orders.c.status.in_(LIVE_STATUSES))
            .group_by(items.c.tier_number)
            .subquery()
        )
        query = (
            select(
                tiers,
                units.c.reserved.label("summed_reserved"),
                units.c.sold.label("summed_sold"),
            )
            .outerjoin(units, units.c.tier_number == tiers.c.number)
            .where(tiers.c.event_id == event_id)
            .order_by(tiers.c.number)
        )
        async with self._database.transaction("books") as connection:
            rows = (await connection.execute(query)).all()
        return [
            LedgerTierBooks(
                _counted(row),
                summed_reserved_units=row.summed_reserved or 0,
                summed_sold_units=row.summed_sold or 0,
            )
            for row in rows
        ]

    async def buyers_above(self, event_id: str, limit_units: int) -> list[BuyerUnits]:
        """Buyers whose live orders come to more than the limit; none in a sound sale."""
        async with self._database.driver("buyers_above") as connection:
            rows = await connection.fetch(statements.BUYERS_ABOVE, event_id, limit_units)
        return [BuyerUnits(*row) for row in rows]

    async def money_astray(self, event_id: str) -> list[OrderMoney]:
        """Orders of a card event whose payments are not those of their status; none in a sound
        sale.
        """
        async with self._database.driver("money_astray") as connection:
            rows = await connection.fetch(statements.MONEY_ASTRAY, event_id)
        return [
            OrderMoney(order_id.bytes, OrderStatus(status), taken, given_back)
            for order_id, status, taken, given_back in rows
        ]


_ID_BEFORE_ALL = bytes(16).hex()


def _payment_is_due(given_up_after_seconds: float) -> ColumnElement[bool]:
    given_up = payments.c.changed_at < func.now() - func.make_interval(
        0, 0, 0, 0, 0, 0, given_up_after_seconds
    )
    waiting = (PaymentState.AUTHORIZED, PaymentState.VOID_DUE, PaymentState.REFUND_DUE)
    return payments.c.state.in_(waiting) | ((payments.c.state == PaymentState.STARTED) & given_up)


def _columns(keys: Iterable[OrderKey]) -> tuple[list[str], list[str]]:
    """Event ids and order ids as the statements take them."""
    keys = list(keys)
    return [key.event_id for key in keys], [key.order_id.hex() for key in keys]


def _key_of(request: OrderRequest) -> OrderKey:
    return OrderKey(request.event_id, request.order_id)


def _as_placed(request: OrderRequest, placed_at: datetime) -> Order:
    held = request.status is OrderStatus.HELD
    return Order(
        event_id=request.event_id,
        id=request.order_id,
        buyer_id=request.buyer_id,
        status=request.status,
        fingerprint=request.fingerprint,
        items=request.items,
        amount_minor_units=request.amount_minor_units,
        currency=request.currency,
        created_at=placed_at,
        expires_at=placed_at + timedelta(seconds=request.hold_seconds) if held else None,
    )


def order_from(row: asyncpg.Record) -> Order:
    """The order in a row of `statements`."""
    return Order(
        event_id=row["event_id"].hex,
        id=row["id"].bytes,
        buyer_id=row["buyer_id"],
        status=OrderStatus(row["status"]),
        fingerprint=_fingerprint(row["fingerprint"]),
        items=_items(row["items"]),
        amount_minor_units=row["amount_minor_units"],
        currency=row["currency"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


def _items(pairs: Iterable[Sequence[int]]) -> tuple[Item, ...]:
    return tuple(Item(*pair) for pair in pairs)


def _fingerprint(signed: int) -> bytes:
    return signed.to_bytes(FINGERPRINT_BYTES, "big", signed=True)


def _counted(row: Row[Any]) -> TierBooks:
    return TierBooks(
        tier_id=row.id,
        capacity_units=row.capacity,
        available_units=row.capacity - row.reserved,
        held_units=row.reserved - row.sold,
        sold_units=row.sold,
    )


def _keys(rows: Iterable[asyncpg.Record]) -> list[OrderKey]:
    return [OrderKey(row["event_id"].hex, row["id"].bytes) for row in rows]

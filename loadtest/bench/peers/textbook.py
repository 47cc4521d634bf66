"""The textbook service: FastAPI, SQLAlchemy 2 on asyncpg, and a lock on the tier's row.

What a careful team writes first, and rightly: one transaction an order, `SELECT … FOR UPDATE` of
the tier, the checks, the rows. It never oversells, keeps the limit of a buyer, answers a repeated
Idempotency-Key with the order that it placed, and answers after the commit. It is written for
speed as far as its design goes: Core in place of the ORM, statements built once, the collector
calmed as in onsale.

What onsale does and this does not: it has no sale window, pause, hold, payment, release, refund,
availability, audit or metrics; its orders are confirmed at once; its errors are FastAPI's
`{"detail": …}`. Those who come too late queue for the lock like those who still get a seat.

    uvicorn --app-dir loadtest/bench/peers --factory textbook:create_app --loop uvloop

`ONSALE_DATABASE_URL` and `ONSALE_AUTH_SECRET` are read when the app is made. Its tables lie in the
schema `bench_textbook`, with an event `none` and its tier `ga` to sell.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateSchema

from onsale.domain.order import OrderStatus
from onsale.domain.tier import CAPACITY_UNITS_MAX
from onsale.http.schemas import ItemOut, OrderIn, OrderOut
from onsale.observability.runtime import calm_garbage_collector
from onsale.settings import Settings

SCHEMA = "bench_textbook"
# By measurement: all orders of a sale want one row, and a longer queue for it only costs wake-ups.
POOL_SIZE = 5
# A crowd waits for its connections: longer than anybody stays is the only time to give up.
POOL_TIMEOUT_SECONDS = 30
SERVER_SETTINGS = {"jit": "off", "lock_timeout": "10s", "statement_timeout": "15s"}

# -- tables

metadata = MetaData(schema=SCHEMA)

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("currency", Text, nullable=False),
    # 0 for no limit.
    Column("max_per_buyer", Integer, nullable=False),
)

tiers = Table(
    "tiers",
    metadata,
    Column("event_id", ForeignKey(events.c.id), primary_key=True),
    Column("id", Text, primary_key=True),
    Column("price_minor_units", BigInteger, nullable=False),
    Column("capacity", Integer, nullable=False),
    Column("reserved", Integer, nullable=False, server_default="0"),
    CheckConstraint("reserved BETWEEN 0 AND capacity", name="tiers_stock"),
    # Room on the page for the next version of a row that every order rewrites.
    postgresql_with={"fillfactor": "20"},
)

orders = Table(
    "orders",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("uuidv7()")),
    # No foreign key: every order of a sale would lock the one row of its event.
    Column("event_id", Text, nullable=False),
    Column("buyer_id", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("amount_minor_units", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    UniqueConstraint("event_id", "buyer_id", "idempotency_key"),
)

order_items = Table(
    "order_items",
    metadata,
    Column("order_id", ForeignKey(orders.c.id), primary_key=True),
    Column("tier_id", Text, primary_key=True),
    Column("quantity", Integer, nullable=False),
    CheckConstraint("quantity > 0", name="order_items_quantity"),
)


async def create_tables(engine: AsyncEngine) -> None:
    """Create what is missing, and the event `none`, whose tier `ga` nobody buys out."""
    event = {"id": "none", "currency": "EUR", "max_per_buyer": 1_000}
    tier = {
        "event_id": "none",
        "id": "ga",
        "price_minor_units": 4_900,
        "capacity": CAPACITY_UNITS_MAX,
    }
    async with engine.begin() as connection:
        await connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
        await connection.run_sync(metadata.create_all)
        await connection.execute(insert(events).values(event).on_conflict_do_nothing())
        await connection.execute(insert(tiers).values(tier).on_conflict_do_nothing())


# -- statements, in the order in which an order runs them

# One order of a buyer after the other, so that limit and key need no second look.
LOCK_BUYER = select(
    func.pg_advisory_xact_lock(
        func.hashtext(bindparam("event_id")), func.hashtext(bindparam("buyer_id"))
    )
)
ITEMS_OF_BUYER = (
    select(orders, order_items.c.tier_id, order_items.c.quantity)
    .join(order_items)
    .where(orders.c.event_id == bindparam("event_id"), orders.c.buyer_id == bindparam("buyer_id"))
    .order_by(orders.c.id, order_items.c.tier_id)
)
# In the order of their ids, so that no two orders wait for each other.
LOCK_TIERS = (
    select(tiers, events.c.currency, events.c.max_per_buyer)
    .join(events)
    .where(
        tiers.c.event_id == bindparam("event_id"),
        tiers.c.id.in_(bindparam("tier_ids", expanding=True)),
    )
    .order_by(tiers.c.id)
    .with_for_update(of=tiers)
)
PLACE = insert(orders).returning(orders)
WRITE_ITEM = insert(order_items).values(
    {name: bindparam(name) for name in ("order_id", "tier_id", "quantity")}
)
RESERVE = (
    update(tiers)
    .where(tiers.c.event_id == bindparam("of_event"), tiers.c.id == bindparam("tier_id"))
    .values(reserved=tiers.c.reserved + bindparam("quantity"))
)
FIND_EVENT = select(events.c.id).where(events.c.id == bindparam("event_id"))


# -- the app


def create_app() -> FastAPI:
    """The service on the database that the environment names."""
    settings = Settings()
    assert settings.auth_secret is not None, "ONSALE_AUTH_SECRET is not set"
    engine = create_async_engine(
        settings.database_url,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        connect_args={"server_settings": SERVER_SETTINGS},
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await create_tables(engine)
        calm_garbage_collector()
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.state.engine = engine
    app.state.auth_secret = settings.auth_secret.get_secret_value()
    app.post("/v1/events/{event_id}/orders", status_code=201)(place_order)
    return app


async def authenticate(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> str:
    """The buyer that the token speaks for."""
    try:
        claims = jwt.decode(
            bearer.credentials if bearer else "",
            request.app.state.auth_secret,
            algorithms=["HS256"],
            options={"require": ["exp", "sub"]},
        )
    except jwt.PyJWTError as error:
        raise HTTPException(401, "unauthenticated") from error
    if "buy" not in claims.get("scope", "").split():
        raise HTTPException(403, "forbidden")
    return str(claims["sub"])


async def place_order(
    request: Request,
    response: Response,
    event_id: str,
    order_in: OrderIn,
    buyer_id: Annotated[str, Depends(authenticate)],
    idempotency_key: Annotated[str, Header(min_length=1, max_length=255)],
) -> OrderOut:
    """Order tickets; they are confirmed at once."""
    if order_in.payment is not None:
        raise HTTPException(422, "this event takes no payment")
    quantities = {item.tier_id: item.quantity for item in order_in.items}
    buyer = {"event_id": event_id, "buyer_id": buyer_id}
    async with request.app.state.engine.begin() as connection:
        await connection.execute(LOCK_BUYER, buyer)
        owned = (await connection.execute(ITEMS_OF_BUYER, buyer)).all()
        if earlier := [row for row in owned if row.idempotency_key == idempotency_key]:
            response.headers["Idempotent-Replayed"] = "true"
            return replay(earlier, quantities)
        locked = await lock_tiers(connection, event_id, quantities)
        check_limit(locked[0].max_per_buyer, owned, quantities)
        check_stock(locked, quantities)
        placed = await write(
            connection, buyer | {"idempotency_key": idempotency_key}, locked, quantities
        )
    return order_out(placed, quantities)


async def lock_tiers(
    connection: AsyncConnection, event_id: str, quantities: dict[str, int]
) -> Sequence[Row[Any]]:
    """The tiers of the order with their event, locked until the end of the transaction."""
    asked = {"event_id": event_id, "tier_ids": list(quantities)}
    locked = (await connection.execute(LOCK_TIERS, asked)).all()
    if len(locked) < len(quantities):
        if (await connection.scalar(FIND_EVENT, asked)) is None:
            raise HTTPException(404, "not_found")
        raise HTTPException(422, "no such tier")
    return locked


def check_limit(max_per_buyer: int, owned: Sequence[Row[Any]], quantities: dict[str, int]) -> None:
    """Raises the 409 of a buyer who would have too many tickets."""
    units = sum(row.quantity for row in owned) + sum(quantities.values())
    if 0 < max_per_buyer < units:
        raise HTTPException(409, "buyer_limit_reached")


def check_stock(locked: Sequence[Row[Any]], quantities: dict[str, int]) -> None:
    """Raises the 409 of a tier that has too few seats left."""
    for tier in locked:
        if tier.reserved + quantities[tier.id] > tier.capacity:
            raise HTTPException(409, "sold_out")


async def write(
    connection: AsyncConnection,
    names: dict[str, str],
    locked: Sequence[Row[Any]],
    quantities: dict[str, int],
) -> Row[Any]:
    """Write an order of the locked tiers, and count it on them."""
    amount = sum(tier.price_minor_units * quantities[tier.id] for tier in locked)
    values = names | {"amount_minor_units": amount, "currency": locked[0].currency}
    placed: Row[Any] = (await connection.execute(PLACE, values)).one()
    items = [
        {
            "of_event": placed.event_id,
            "order_id": placed.id,
            "tier_id": tier_id,
            "quantity": quantity,
        }
        for tier_id, quantity in quantities.items()
    ]
    await connection.execute(WRITE_ITEM, items)
    await connection.execute(RESERVE, items)
    return placed


def replay(earlier: Sequence[Row[Any]], quantities: dict[str, int]) -> OrderOut:
    """The order that the key has placed; raises the 422 of a key that asks for something else."""
    if quantities != {row.tier_id: row.quantity for row in earlier}:
        raise HTTPException(422, "idempotency_key_reused")
    return order_out(earlier[0], quantities)


def order_out(order: Row[Any], quantities: dict[str, int]) -> OrderOut:
    """The order as its buyer sees it."""
    return OrderOut(
        id=order.id.hex,
        event_id=order.event_id,
        buyer_id=order.buyer_id,
        status=OrderStatus.CONFIRMED,
        items=[
            ItemOut(tier_id=tier_id, quantity=quantity) for tier_id, quantity in quantities.items()
        ],
        amount=order.amount_minor_units,
        currency=order.currency,
        created_at=order.created_at,
        expires_at=None,
    )

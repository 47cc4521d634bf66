"""The best that Postgres alone does for one order at a time: FastAPI, raw asyncpg, one statement.

An order is one prepared statement, so one round trip and one commit. It writes the order, the
buyer's count and the items first and counts the tier up last, so that the row which everybody wants
is locked for the commit and for little else. The guards are constraints: a stock or a limit
that would be exceeded takes the whole statement back. It never oversells, keeps the limit of a
buyer, answers a repeated Idempotency-Key with the order that it placed, and answers after the
commit.

What onsale does and this does not: it has no sale window, pause, hold, payment, release, refund,
availability, audit or metrics; its orders are confirmed at once; its errors are FastAPI's
`{"detail": …}`. Orders of one tier commit one after the other, however many connections there are:
neither is a tier's stock split over several rows, nor do orders share a commit.

    uvicorn --app-dir loadtest/bench/peers --factory cte:create_app --loop uvloop

`ONSALE_DATABASE_URL` and `ONSALE_AUTH_SECRET` are read when the app is made. Its tables lie in the
schema `bench_cte`, with an event `none` and its tier `ga` to sell.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, NoReturn

import asyncpg
import jwt
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from onsale.domain.order import OrderStatus
from onsale.domain.tier import CAPACITY_UNITS_MAX
from onsale.http.schemas import ItemOut, OrderIn, OrderOut
from onsale.observability.runtime import calm_garbage_collector
from onsale.settings import Settings

SCHEMA = "bench_cte"
# By measurement: all orders of a sale want one row, and a longer queue for it only costs wake-ups.
POOL_SIZE = 5
SERVER_SETTINGS = {
    "search_path": SCHEMA,
    "jit": "off",
    # One plan for all orders: to plan the statement costs more than to run it.
    "plan_cache_mode": "force_generic_plan",
    "lock_timeout": "10s",
    "statement_timeout": "15s",
}

# No foreign keys: the one statement that writes here has just read what they would look up.
TABLES = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};

CREATE TABLE IF NOT EXISTS events (
    id text PRIMARY KEY,
    currency text NOT NULL,
    max_per_buyer int NOT NULL  -- 0 for no limit
);

CREATE TABLE IF NOT EXISTS tiers (
    event_id text REFERENCES events,
    id text,
    price_minor_units bigint NOT NULL,
    capacity int NOT NULL,
    reserved int NOT NULL DEFAULT 0,
    PRIMARY KEY (event_id, id),
    CONSTRAINT sold_out CHECK (reserved BETWEEN 0 AND capacity)
-- Room on the page for the next version of a row that every order rewrites.
) WITH (fillfactor = 20);

CREATE TABLE IF NOT EXISTS buyers (
    event_id text,
    id text,
    units int NOT NULL,
    units_max int NOT NULL,
    PRIMARY KEY (event_id, id),
    CONSTRAINT buyer_limit_reached CHECK (units_max = 0 OR units <= units_max)
);

CREATE TABLE IF NOT EXISTS orders (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    event_id text NOT NULL,
    buyer_id text NOT NULL,
    idempotency_key text NOT NULL,
    amount_minor_units bigint NOT NULL,
    currency text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (event_id, buyer_id, idempotency_key)
);

CREATE TABLE IF NOT EXISTS order_items (
    order_id uuid,
    tier_id text,
    quantity int NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (order_id, tier_id)
);
"""

EVENT = "INSERT INTO events VALUES ('none', 'EUR', 1000) ON CONFLICT DO NOTHING"
TIER = "INSERT INTO tiers VALUES ('none', 'ga', 4900, $1) ON CONFLICT DO NOTHING"

# $1 event, $2 buyer, $3 key, $4 tiers, $5 quantities. The order, when it was placed here and now;
# nothing when a tier is missing or sold out or the key has placed an order before. Each step reads
# the rows of the step before, which is what puts them in this order; the stock that is looked at
# first only spares latecomers the writing, and the constraint decides.
PLACE = """
WITH wanted AS (
    SELECT id AS tier_id, quantity, price_minor_units
    FROM unnest($4::text[], $5::int[]) AS asked (tier_id, quantity)
    JOIN tiers ON event_id = $1 AND id = tier_id
    WHERE reserved + quantity <= capacity
), total AS (
    SELECT sum(quantity) AS units, sum(quantity * price_minor_units) AS amount
    FROM wanted HAVING count(*) = cardinality($4)
), placed AS (
    INSERT INTO orders (event_id, buyer_id, idempotency_key, amount_minor_units, currency)
    SELECT $1, $2, $3, amount, currency FROM total JOIN events ON events.id = $1
    ON CONFLICT DO NOTHING
    RETURNING *
), bought AS (
    INSERT INTO buyers (event_id, id, units, units_max)
    SELECT $1, $2, units, max_per_buyer FROM total, placed JOIN events ON events.id = event_id
    ON CONFLICT (event_id, id) DO UPDATE SET units = buyers.units + excluded.units
    RETURNING id
), items AS (
    INSERT INTO order_items
    SELECT placed.id, tier_id, quantity FROM placed, bought, wanted
    RETURNING tier_id, quantity
), locked AS (
    SELECT id AS tier_id, quantity FROM tiers JOIN items ON event_id = $1 AND id = tier_id
    ORDER BY id FOR NO KEY UPDATE OF tiers
), counted AS (
    UPDATE tiers SET reserved = reserved + quantity
    FROM locked WHERE event_id = $1 AND id = tier_id
)
SELECT * FROM placed
"""

# $1 event, $2 buyer, $3 key.
FIND = """
SELECT orders.*, array_agg(tier_id) AS tier_ids, array_agg(quantity) AS quantities
FROM orders JOIN order_items ON order_id = id
WHERE event_id = $1 AND buyer_id = $2 AND idempotency_key = $3 GROUP BY id
"""

# $1 event, $2 tiers.
COUNT_TIERS = "SELECT count(*) FROM tiers WHERE event_id = $1 AND id = ANY($2)"
FIND_EVENT = "SELECT id FROM events WHERE id = $1"


async def create_tables(pool: asyncpg.Pool) -> None:
    """Create what is missing, and the event `none`, whose tier `ga` nobody buys out."""
    await pool.execute(TABLES)
    await pool.execute(EVENT)
    await pool.execute(TIER, CAPACITY_UNITS_MAX)


# -- the app


def create_app() -> FastAPI:
    """The service on the database that the environment names."""
    settings = Settings()
    assert settings.auth_secret is not None, "ONSALE_AUTH_SECRET is not set"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(
            settings.database_url.replace("+asyncpg", "", 1),
            min_size=POOL_SIZE,
            max_size=POOL_SIZE,
            reset=leave_as_it_is,
            server_settings=SERVER_SETTINGS,
        ) as pool:
            await create_tables(pool)
            calm_garbage_collector()
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)
    app.state.auth_secret = settings.auth_secret.get_secret_value()
    app.post("/v1/events/{event_id}/orders", status_code=201)(place_order)
    return app


async def leave_as_it_is(connection: asyncpg.Connection) -> None:
    """A statement that is its own transaction leaves nothing that a round trip had to clear."""


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
    pool: asyncpg.Pool = request.app.state.pool
    names = (event_id, buyer_id, idempotency_key)
    quantities = {item.tier_id: item.quantity for item in order_in.items}
    try:
        order = await pool.fetchrow(PLACE, *names, list(quantities), list(quantities.values()))
    except asyncpg.CheckViolationError as error:
        raise HTTPException(409, error.constraint_name) from error
    if order is None:
        order = await find_placed(pool, names, quantities)
        response.headers["Idempotent-Replayed"] = "true"
    return order_out(order, quantities)


async def find_placed(
    pool: asyncpg.Pool, names: tuple[str, str, str], quantities: dict[str, int]
) -> asyncpg.Record:
    """The order that the key has placed before; raises what was in the way if there is none."""
    order = await pool.fetchrow(FIND, *names)
    if order is None:
        await refuse(pool, names[0], quantities)
    if quantities != dict(zip(order["tier_ids"], order["quantities"], strict=True)):
        raise HTTPException(422, "idempotency_key_reused")
    return order


async def refuse(pool: asyncpg.Pool, event_id: str, quantities: dict[str, int]) -> NoReturn:
    """Raises the 404, 422 or 409 of an order that can not be placed."""
    if await pool.fetchval(FIND_EVENT, event_id) is None:
        raise HTTPException(404, "not_found")
    if await pool.fetchval(COUNT_TIERS, event_id, list(quantities)) < len(quantities):
        raise HTTPException(422, "no such tier")
    raise HTTPException(409, "sold_out")


def order_out(order: asyncpg.Record, quantities: dict[str, int]) -> OrderOut:
    """The order as its buyer sees it."""
    return OrderOut(
        id=order["id"].hex,
        event_id=order["event_id"],
        buyer_id=order["buyer_id"],
        status=OrderStatus.CONFIRMED,
        items=[
            ItemOut(tier_id=tier_id, quantity=quantity) for tier_id, quantity in quantities.items()
        ],
        amount=order["amount_minor_units"],
        currency=order["currency"],
        created_at=order["created_at"],
        expires_at=None,
    )

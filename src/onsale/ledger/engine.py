"""The pool of connections to Postgres, and the one place where its errors get their names."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic, perf_counter
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from onsale.domain.errors import LedgerUnavailable
from onsale.observability import metrics
from onsale.settings import Settings


class ConstraintRefused(Exception):
    """A constraint of the ledger refused a statement; `constraint` is its name."""

    def __init__(self, constraint: str) -> None:
        super().__init__(constraint)
        self.constraint = constraint


def create_engine(settings: Settings) -> AsyncEngine:
    """A pool that opens its connections when they are first needed."""
    engine = create_async_engine(
        settings.database_url,
        pool_size=settings.db_pool_size_max,
        max_overflow=0,
        pool_timeout=settings.db_pool_timeout_seconds,
        # Whoever comes next meets the connection that was found broken, and with it all of its age
        # are made anew.
        pool_use_lifo=True,
        connect_args={
            "async_creator_fn": _Hosts().connect,
            "timeout": settings.db_connect_timeout_seconds,
            # Of several hosts one takes writes; and one host may have been told to do so no more.
            "target_session_attrs": "read-write",
            # For a server that went silent: one that answers ends the statement itself, earlier.
            "command_timeout": settings.db_statement_timeout_seconds + 1,
            "server_settings": {
                "application_name": "onsale",
                "timezone": "UTC",
                # Short statements over small batches: compiling them costs more than running them.
                "jit": "off",
                "statement_timeout": _ms(settings.db_statement_timeout_seconds),
                "lock_timeout": _ms(settings.db_lock_timeout_seconds),
                "idle_in_transaction_session_timeout": _ms(settings.db_statement_timeout_seconds),
            },
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


class _Hosts:
    """Connects to the first of the URL's hosts that takes writes; the last one that did is first.

    asyncpg goes through several hosts as well, but within one time-out for all of them: past one
    that is silent it would never get.
    """

    def __init__(self) -> None:
        self._first = 0

    async def connect(self, *, host: Any = None, port: Any = None, **options: Any) -> Any:
        hosts = list(zip(host, port, strict=True)) if isinstance(host, list) else [(host, port)]
        failed: Exception | None = None
        for number in range(self._first, self._first + len(hosts)):
            one, its_port = hosts[number % len(hosts)]
            try:
                connection = await asyncpg.connect(host=one, port=its_port, **options)
            except _UNREACHABLE as error:
                failed = error
            else:
                self._first = number % len(hosts)
                return connection
        assert failed is not None, "there is a host"
        raise failed


def _refuse_closed(dbapi_connection: Any, record: object, proxy: object) -> None:
    """Replace the connections that a restart of Postgres closed, without a ping for each use."""
    if dbapi_connection.driver_connection.is_closed():
        raise InvalidatePoolError


def _ms(seconds: float) -> str:
    return str(int(seconds * 1000))


class Database:
    """Connections of the pool, measured, with errors translated.

    Everything raised is `LedgerUnavailable` (try again), `ConstraintRefused`, or a mistake of ours.
    `outage_patience_seconds` is how long the beginning of an outage is waited out.
    """

    def __init__(self, engine: AsyncEngine, outage_patience_seconds: float = 0.0) -> None:
        self.engine = engine
        self._outage_patience_seconds = outage_patience_seconds
        self._unreachable_since_seconds: float | None = None

    @asynccontextmanager
    async def transaction(self, operation: str) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits when the block ends well."""
        async with self._connection(operation) as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def driver(self, operation: str) -> AsyncIterator[Any]:
        """asyncpg's own connection, where each statement is a transaction of its own.

        For the statements that the crowd pays for: one round trip, and none of the cost of
        rendering and adapting a statement that never changes.
        """
        async with self._connection(operation) as connection:
            raw = await connection.get_raw_connection()
            yield raw.driver_connection

    @asynccontextmanager
    async def _connection(self, operation: str) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._acquired() as connection:
                started = perf_counter()
                yield connection
                metrics.db_query_duration_seconds.labels(operation).observe(
                    perf_counter() - started
                )
        except _STORE_ERRORS as error:
            raise _translated(operation, error) from error
        metrics.dependency_up.labels("postgres").set(1)

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[AsyncConnection]:
        metrics.db_pool_waiters.inc()
        started = perf_counter()
        try:
            connection = await self._connect()
        finally:
            metrics.db_pool_waiters.dec()
        metrics.db_pool_acquire_seconds.observe(perf_counter() - started)
        try:
            yield connection
        except _STORE_ERRORS as error:
            if isinstance(_driver_error(error), _BROKEN) and not connection.invalidated:
                # What its server says, if anything, is not to be waited for again.
                raw = await connection.get_raw_connection()
                raw.driver_connection.terminate()  # type: ignore[union-attr]
            raise
        finally:
            # Shielded: a cancelled request must not leave its connection to the garbage collector.
            await asyncio.shield(connection.close())

    async def _connect(self) -> AsyncConnection:
        """A connection of the pool, whose server is tried again for a while: a restart may be over
        soon. When an outage has lasted, everybody is told at once: who waits for it to end takes
        the place of others.
        """
        pause_seconds = _PAUSE_SECONDS_MIN
        while True:
            try:
                connection = await self.engine.connect()
            except _STORE_ERRORS as error:
                if not isinstance(_driver_error(error), _UNREACHABLE):
                    raise
                since = self._unreachable_since_seconds
                if since is None:
                    since = self._unreachable_since_seconds = monotonic()
                if monotonic() + pause_seconds > since + self._outage_patience_seconds:
                    raise
            else:
                self._unreachable_since_seconds = None
                return connection
            # Not all at once when it is back.
            await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))
            pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)

    def report_pool(self) -> None:
        """Set the gauges of the pool to what it is now."""
        pool: Any = self.engine.pool
        metrics.db_pool_connections.labels("in_use").set(pool.checkedout())
        metrics.db_pool_connections.labels("idle").set(pool.checkedin())
        metrics.db_pool_size_max.set(pool.size())

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


_PAUSE_SECONDS_MIN = 0.02
_PAUSE_SECONDS_MAX = 0.25

# No connection can be had now, and it may be otherwise soon.
_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    # It takes no writes: a fail-over is under way.
    asyncpg.TargetServerAttributeNotMatched,
)
# The connection is at fault and not the statement: its server is silent, gone, or a primary no
# more.
_BROKEN = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.ReadOnlySQLTransactionError,
)
_STORE_ERRORS = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # What the driver says when the server goes away in the midst of its own questions.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def _translated(operation: str, error: Exception) -> Exception:
    cause = _driver_error(error)
    metrics.db_errors_total.labels(operation, type(cause).__name__).inc()
    if isinstance(cause, asyncpg.IntegrityConstraintViolationError):
        return ConstraintRefused(cause.constraint_name or "")
    if isinstance(cause, _OURS):
        return error
    if isinstance(cause, OSError | PoolTimeoutError | asyncpg.PostgresConnectionError):
        metrics.dependency_up.labels("postgres").set(0)
    return LedgerUnavailable()


# Statements that no retry can mend: a mistake of ours, which must not hide as an outage.
_OURS = (asyncpg.SyntaxOrAccessError, asyncpg.DataError)


def _driver_error(error: BaseException) -> BaseException:
    """asyncpg's own error, below SQLAlchemy's and its adapter's."""
    while True:
        below = getattr(error, "orig", None) or (
            error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else None
        )
        if below is None:
            return error
        error = below

"""Whom to ask about an event: the one server, or the node of a cluster that owns the event's slot.

The gate believes an answer only of the run of the server that the event's epoch names. So each
server is spoken to over connections of its own, which have asked it for its run id, and a cluster
is several such servers: all keys of an event share a slot, and one node at a time owns it.
redis-py's own cluster client follows redirections by itself, and nobody could tell afterwards
which run of which node had decided.

A slot that went elsewhere, in a resharding or a fail-over, is at a server that the epoch does not
name. Whether all of its data went along cannot be told from here: the gate is lost, and is loaded
anew from the ledger. While a slot is on its way (ASK, TRYAGAIN) the gate is unavailable: an order
that followed it would be decided by a server that nobody has named yet.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisError,
    TryAgainError,
)

from onsale.domain.errors import GateUnavailable
from onsale.gate.breaker import Breaker
from onsale.gate.epoch import names_server
from onsale.gate.keeping import Keeping, keeping_of
from onsale.gate.scripts import Scripts
from onsale.settings import Settings

Answer = TypeVar("Answer")

# A node that has not heard of a move yet sends us back, and they agree within a few messages.
_MOVES_MAX = 5


class Server:
    """One server: its connections, the scripts there, and which run of it answers.

    Every new connection asks for the run id, so that a restart, a fail-over or a restored snapshot
    is noticed before the first order is decided there.
    """

    def __init__(
        self, where: dict[str, Any], settings: Settings, *, in_cluster: bool = False
    ) -> None:
        defaults: dict[str, Any] = {
            "max_connections": settings.redis_connections_max,
            "timeout": settings.redis_timeout_seconds,
            "socket_timeout": settings.redis_timeout_seconds,
            "socket_connect_timeout": settings.redis_timeout_seconds,
            "protocol": 2,
        }
        self._name = str(where.get("path") or f"{where.get('host')}:{where.get('port', 6379)}")
        self._pool = BlockingConnectionPool(
            **{**defaults, **where}, redis_connect_func=self._on_connect
        )
        self.redis = Redis(connection_pool=self._pool)
        self.scripts = Scripts(self.redis, in_cluster=in_cluster)
        self.run_id: str | None = None
        self._breaker = Breaker("redis", settings.redis_rest_seconds)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let the breaker know how the call of the block goes.

        Raises `GateUnavailable` in place of the block while the server is left alone.
        """
        if not self._breaker.allows():
            raise GateUnavailable
        try:
            yield
        except (AskError, TryAgainError):
            # It is well, and so are its other events: this one's slot is elsewhere or on its way.
            self._breaker.succeeded()
            raise
        except (TimeoutError, RedisError, OSError):
            self._breaker.failed()
            raise
        self._breaker.succeeded()

    def is_named_by(self, epoch: str) -> bool:
        """Whether the epoch was loaded on the run that answers here, as far as this is known."""
        return self.run_id is not None and names_server(epoch, self.run_id)

    async def keeping(self) -> Keeping:
        """How well it keeps what it is told."""
        with self.watched():
            info: dict[str, Any] = await self.redis.info("memory", "persistence")
        return keeping_of(self._name, info)

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose()
        await self._pool.disconnect()

    async def _on_connect(self, connection: AbstractConnection) -> None:
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        reply: bytes = await connection.read_response()
        lines = dict(line.partition(b":")[::2] for line in reply.splitlines())
        self.run_id = lines[b"run_id"].decode()


class Servers(Protocol):
    """The servers of a gate. What asks one raises `RedisError`, `OSError`, `TimeoutError`, and
    `GateUnavailable` when it is left alone.
    """

    def home(self, key: str) -> Hashable:
        """The same for all keys of one server, as far as is known."""

    def known(self, key: str) -> Server | None:
        """Where the key is, if that is known without asking."""

    async def of(self, key: str) -> Server:
        """Where the key is, as far as is known."""

    async def answering(self, key: str, deadline: float | None = None) -> Server:
        """Where the key is; it has just answered, so its run id is the present one.

        A server that has not answered by `deadline`, of the event loop's clock, is `TimeoutError`.
        """

    def learn(self, key: str, error: Exception) -> bool:
        """Draw the consequences of a failed call; whether the key is at another server now."""

    async def ping(self) -> None:
        """Whether the gate as a whole can decide."""

    async def keeping(self) -> list[Keeping]:
        """How well each server that answers keeps what it is told: one at least."""

    async def close(self) -> None:
        """Close every connection."""


def connect(settings: Settings) -> Servers:
    """The servers that `settings.redis_url` names; connections are opened when first needed."""
    scheme, _, rest = settings.redis_url.partition("://")
    where: dict[str, Any] = {**parse_url(f"{scheme.removesuffix('+cluster')}://{rest}")}
    if scheme.endswith("+cluster"):
        return Cluster(where, settings)
    return OneServer(Server(where, settings))


class OneServer:
    """The gate of a single server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def home(self, key: str) -> Hashable:
        return None

    def known(self, key: str) -> Server:
        return self._server

    async def of(self, key: str) -> Server:
        return self._server

    async def answering(self, key: str, deadline: float | None = None) -> Server:
        with self._server.watched():
            async with asyncio.timeout_at(deadline):
                await self._server.redis.ping()
        return self._server

    def learn(self, key: str, error: Exception) -> bool:
        return False

    async def ping(self) -> None:
        await self._server.redis.ping()

    async def keeping(self) -> list[Keeping]:
        return [await self._server.keeping()]

    async def close(self) -> None:
        await self._server.close()


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int


class Cluster:
    """The gate of a cluster: a server for each node, and who owns which slot."""

    def __init__(self, where: dict[str, Any], settings: Settings) -> None:
        self._where = where
        self._settings = settings
        # The one that the URL names is kept for good: its name may lead to other nodes by and by.
        self._first = Address(where.get("host", "localhost"), where.get("port", 6379))
        self._nodes = {self._first: self._open(self._first)}
        self._owners: dict[int, Address] = {}
        self._reading: asyncio.Task[None] | None = None

    def home(self, key: str) -> Hashable:
        return self._owners.get(_slot(key))

    def known(self, key: str) -> Server | None:
        owner = self._owners.get(_slot(key))
        return None if owner is None else self._nodes.get(owner)

    async def of(self, key: str) -> Server:
        slot = _slot(key)
        if slot not in self._owners:
            await self._share_reading()
        if slot not in self._owners:
            raise ClusterDownError(f"no node owns slot {slot}")
        owner = self._owners[slot]
        if owner not in self._nodes:
            self._nodes[owner] = self._open(owner)
        return self._nodes[owner]

    async def answering(self, key: str, deadline: float | None = None) -> Server:
        for _ in range(_MOVES_MAX):
            server = await self.of(key)
            try:
                with server.watched():
                    async with asyncio.timeout_at(deadline):
                        # A ping that only the owner of the slot answers.
                        await server.redis.exists(key)
            except MovedError as moved:
                self.learn(key, moved)
            else:
                return server
        raise ClusterDownError(f"the nodes disagree on who owns slot {_slot(key)}")

    def learn(self, key: str, error: Exception) -> bool:
        # Whatever it was, the slot may have another owner: by a fail-over, if nobody said so.
        asked = self._owners.pop(_slot(key), self._first)
        if not isinstance(error, MovedError):
            return False
        # A node that is not told what to call the others says that they are on its own host.
        self._owners[error.slot_id] = Address(error.host or asked.host, error.port)
        return True

    async def ping(self) -> None:
        await self._ask_any(_check_state)

    async def keeping(self) -> list[Keeping]:
        """Replicas included: one may be the owner of tomorrow."""
        await self._share_reading()
        found: list[Keeping] = []
        failed: Exception | None = None
        for node in list(self._nodes.values()):
            try:
                found.append(await node.keeping())
            except (GateUnavailable, RedisError, OSError, TimeoutError) as error:
                failed = error
        if failed is not None and not found:
            raise failed
        return found

    async def close(self) -> None:
        for server in self._nodes.values():
            await server.close()

    def _open(self, address: Address) -> Server:
        return Server({**self._where, **address._asdict()}, self._settings, in_cluster=True)

    async def _share_reading(self) -> None:
        """Read who owns what; many who need it at once share one reading, and its failure."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_owners())
            self._reading.add_done_callback(self._end_reading)
        # Shielded: one who stops waiting must not stop it for the others.
        await asyncio.shield(self._reading)

    def _end_reading(self, reading: "asyncio.Task[None]") -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # heard, though nobody may be waiting any more

    async def _read_owners(self) -> None:
        asked, ranges = await self._ask_any(_slot_ranges)
        self._owners, nodes = {}, {self._first}
        for first, last, *serving in ranges:
            owner, *replicas = (_address(node, asked) for node in serving)
            self._owners.update(dict.fromkeys(range(first, last + 1), owner))
            nodes.update((owner, *replicas))
        for address in nodes - self._nodes.keys():
            self._nodes[address] = self._open(address)
        for address in self._nodes.keys() - nodes:
            await self._nodes.pop(address).close()

    async def _ask_any(self, ask: Callable[[Redis], Awaitable[Answer]]) -> tuple[Address, Answer]:
        """The first good answer of a node; one that has none is asked last from now on."""
        failed: Exception = ClusterDownError("the cluster has no nodes")
        for address, server in list(self._nodes.items()):
            try:
                return address, await ask(server.redis)
            except (RedisError, OSError, TimeoutError) as error:
                failed = error
                self._nodes[address] = self._nodes.pop(address, server)
        raise failed


async def _slot_ranges(redis: Redis) -> list[Any]:
    """`CLUSTER SLOTS`: `[first, last, [host, port, …] of the owner, … of its replicas]` each."""
    ranges: list[Any] = await redis.cluster("SLOTS")
    if not ranges:
        raise ClusterDownError("this node belongs to no cluster")
    return ranges


async def _check_state(redis: Redis) -> None:
    state: dict[str, str] = await redis.cluster("INFO")
    if state["cluster_state"] != "ok":
        raise ClusterDownError(f"the cluster's state is {state['cluster_state']}")


def _address(node: list[Any], asked: Address) -> Address:
    host, port, *_ = node
    # A node that is not told what to call itself or the others leaves the host to us.
    return Address(host.decode() if host else asked.host, port)


def _slot(key: str) -> int:
    return key_slot(key.encode())

"""A cluster of three Valkeys on the loopback, whose slots may be moved and whose nodes may end.

As an operator would have it for the gate: with a password, and with `cluster-require-full-coverage
no`, so that a node that is down takes its own events with it and no others.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import redis
from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot
from redis.exceptions import AskError, MovedError
from redis.retry import Retry

from onsale.embedded import EmbeddedValkey, free_port
from tests.support import wait_until

PASSWORD = "a-password-of-tests"
_MIGRATION_MS_MAX = 5_000


class Node(EmbeddedValkey):
    """One node. Nodes meet over TCP; the rest of `EmbeddedValkey` is as it was."""

    def __init__(self, data_dir: Path) -> None:
        self.port = free_port()
        super().__init__(
            data_dir,
            options={
                "cluster-enabled": "yes",
                "cluster-require-full-coverage": "no",
                "cluster-node-timeout": "1000",
                "requirepass": PASSWORD,
                "primaryauth": PASSWORD,
                # By default a first replica waits 5 s for a second one.
                "repl-diskless-sync-delay": "0",
            },
        )
        # By default it is the port and 10,000, which need not be one.
        self._bus_port = free_port()

    async def __aenter__(self) -> Self:
        self.start()
        self.client = Redis(port=self.port, password=PASSWORD, protocol=2)
        self.id: str = await self.ask("CLUSTER MYID")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.client.aclose()
        self.stop()

    @property
    def cluster_url(self) -> str:
        """What a process is told of the cluster: this node."""
        return f"redis+cluster://:{PASSWORD}@127.0.0.1:{self.port}"

    async def ask(self, *command: Any) -> Any:
        """What the node itself says, without any redirection."""
        reply = await self.client.execute_command(*command)  # type: ignore[no-untyped-call]
        return reply.decode() if isinstance(reply, bytes) else reply

    async def run_id(self) -> str:
        """Which run of it answers."""
        info: dict[str, Any] = await self.client.info("server")
        return str(info["run_id"])

    async def owns(self, event_id: str) -> bool:
        """Whether the event's keys are for this node."""
        try:
            await self.client.exists(event_id)  # in the slot of its keys, whose hash tag it is
        except MovedError:
            return False
        except AskError:  # it is on its way elsewhere, and this is where it comes from
            return True
        return True

    async def meet(self, other: "Node") -> None:
        """Make the two known to each other."""
        await self.ask("CLUSTER MEET", "127.0.0.1", other.port, other._bus_port)

    async def sees(self, nodes: int) -> bool:
        """Whether it takes commands, and knows so many nodes and one that is up for each slot."""
        try:
            info = await self.ask("CLUSTER INFO")
        except redis.ConnectionError:
            return False
        known = (info["cluster_known_nodes"], info["cluster_slots_ok"])
        return info["cluster_state"] == "ok" and known == (f"{nodes}", f"{SLOTS}")

    def _argv(self) -> Sequence[str | Path]:
        address = ("--bind", "127.0.0.1", "--port", f"{self.port}")
        return [*super()._argv(), *address, "--cluster-port", f"{self._bus_port}"]

    def _is_ready(self) -> bool:
        try:
            at_once = Retry(NoBackoff(), 0)
            with redis.Redis(port=self.port, password=PASSWORD, retry=at_once) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


class Cluster:
    """Three nodes with a third of the slots each, to begin with."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    async def owner(self, event_id: str) -> Node:
        """The node that owns the event's slot."""
        (owner,) = [node for node in self.nodes if await node.owns(event_id)]
        return owner

    async def is_whole(self) -> bool:
        """Whether every node sees all of them, and there is one to ask for each slot."""
        return all([await node.sees(len(self.nodes)) for node in self.nodes])

    @asynccontextmanager
    async def with_option(self, name: str, value: str) -> AsyncIterator[None]:
        """All nodes with another value of a setting."""
        before = (await self.nodes[0].client.config_get(name))[name]
        assert before is not None
        try:
            for node in self.nodes:
                await node.client.config_set(name, value)
            yield
        finally:
            for node in self.nodes:
                await node.client.config_set(name, before)

    async def add_replica(self, replica: Node, primary: Node) -> None:
        """Let a node follow another; it has what that has."""
        await replica.meet(primary)
        await wait_until(partial(replica.sees, len(self.nodes) + 1))
        await replica.ask("CLUSTER REPLICATE", primary.id)

        async def follows() -> bool:
            info: dict[str, Any] = await replica.client.info("replication")
            return info.get("master_link_status") == "up"

        await wait_until(follows)

    async def elsewhere(self, event_id: str) -> Node:
        """A node that does not own the event's slot."""
        owner = await self.owner(event_id)
        return next(node for node in self.nodes if node is not owner)


async def carry_keys(cluster: Cluster, event_id: str, target: Node) -> None:
    """All of a resharding but its end, a key at a time: each state between is seen."""
    slot, source = key_slot(event_id.encode()), await cluster.owner(event_id)
    await target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
    await source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
    where = ("127.0.0.1", target.port, "", 0, _MIGRATION_MS_MAX, "AUTH", PASSWORD)
    while keys := await source.ask("CLUSTER GETKEYSINSLOT", slot, 1):
        await source.ask("MIGRATE", *where, "KEYS", *keys)


async def move_by_keys(cluster: Cluster, event_id: str, target: Node) -> None:
    """As `valkey-cli --cluster reshard` does it."""
    slot, source = key_slot(event_id.encode()), await cluster.owner(event_id)
    await carry_keys(cluster, event_id, target)
    for node in (target, source):
        await node.ask("CLUSTER SETSLOT", slot, "NODE", target.id)


async def move_at_once(cluster: Cluster, event_id: str, target: Node) -> None:
    """As Valkey 9 can: the target follows the source like a replica, then takes over."""
    slot, source = key_slot(event_id.encode()), await cluster.owner(event_id)
    await source.ask("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
    await wait_until(partial(target.owns, event_id))


@asynccontextmanager
async def three_nodes(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster that takes commands."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node(folder / f"{n}")) for n in range(3)]
        cluster = Cluster(nodes)
        share = -(-SLOTS // len(nodes))
        for number, node in enumerate(nodes):
            first = number * share
            last = min(first + share, SLOTS) - 1
            await node.ask("CLUSTER ADDSLOTSRANGE", first, last)
            await node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            await node.meet(nodes[0])
        await wait_until(cluster.is_whole)
        yield cluster

"""The gate forgets: all of it, what it had not saved, or whatever came last."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from redis.asyncio import Redis

from onsale.chaos.faults.fault import Fault
from onsale.chaos.links import Store
from onsale.chaos.stage import Stage
from onsale.embedded import EmbeddedValkey, free_port

_POLL_SECONDS = 0.05
_REPLICATED_SECONDS_MAX = 20.0
_SCRIPT_FLUSH_SECONDS = 0.02


class FlushAll(Fault):
    """FLUSHALL."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        await flushall(stage)

    async def mend(self, stage: Stage) -> None:
        """That is the reconciler's."""


class ScriptFlush(Fault):
    """SCRIPT FLUSH, again and again."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        async with _redis_at(stage.valkey) as redis:
            for _ in range(dice.randint(5, 20)):
                await redis.script_flush()
                await asyncio.sleep(_SCRIPT_FLUSH_SECONDS)

    async def mend(self, stage: Stage) -> None:
        """The scripts are sent again by whoever calls them."""


class OldSnapshot(Fault):
    """Redis is killed and comes back with the files that it had some seconds before."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        data, snapshot = (stage.valkey.data_dir / name for name in ("data", "snapshot"))
        await stage.do(_copy, data, snapshot)
        await asyncio.sleep(dice.uniform(1.0, 3.0))
        await stage.do(stage.valkey.kill)
        await stage.do(_copy, snapshot, data)

    async def mend(self, stage: Stage) -> None:
        await stage.start_server(Store.GATE)


class LaggingReplica(Fault):
    """Redis is lost, and a replica takes its place that had stopped hearing of it before."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        primary, replica = stage.valkey, stage.spare_valkey
        await stage.do(_empty, replica.data_dir / "data")
        await stage.do(replica.start)
        await _replicate(primary, replica)
        await asyncio.sleep(dice.uniform(1.0, 2.5))
        await stage.do(primary.kill)
        await stage.do(primary.stop)
        async with _redis_at(replica) as redis:
            await redis.replicaof("NO", "ONE")
        stage.valkey, stage.spare_valkey = replica, primary

    async def mend(self, stage: Stage) -> None:
        await stage.lead_to_valkey()


class GateFull(Fault):
    """Redis has no memory left; it evicts nothing and takes nothing."""

    gate_alone = True

    async def inject(self, stage: Stage, dice: Random) -> None:
        await _limit_memory(stage, 1)

    async def mend(self, stage: Stage) -> None:
        await _limit_memory(stage, 0)


async def flushall(stage: Stage) -> None:
    """Empty the gate's server."""
    async with _redis_at(stage.valkey) as redis:
        await redis.flushall()


async def _limit_memory(stage: Stage, limit_bytes: int) -> None:
    async with _redis_at(stage.valkey) as redis:
        await redis.config_set("maxmemory", limit_bytes)


async def _replicate(primary: EmbeddedValkey, replica: EmbeddedValkey) -> None:
    """Let the replica hear of everything until now, and of nothing from now on.

    Replication is spoken over TCP alone: the primary opens a port on the loopback for as long.
    """
    async with _redis_at(primary) as from_redis, _redis_at(replica) as to_redis:
        port = free_port()
        # It would wait some seconds for more replicas than one.
        await from_redis.config_set("repl-diskless-sync-delay", 0)
        await from_redis.config_set("bind", "127.0.0.1")
        await from_redis.config_set("port", port)
        try:
            await to_redis.replicaof("127.0.0.1", port)
            async with asyncio.timeout(_REPLICATED_SECONDS_MAX):
                await _until_replicated(to_redis)
        finally:
            await from_redis.config_set("port", 0)
            await from_redis.client_kill_filter(_type="replica")


async def _until_replicated(replica: Redis) -> None:
    while True:
        if (await replica.info("replication"))["master_link_status"] == "up":
            return
        await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def _redis_at(server: EmbeddedValkey) -> AsyncIterator[Redis]:
    """The server itself, not by a link."""
    redis = Redis.from_url(server.url, decode_responses=True)
    try:
        yield redis
    finally:
        await redis.aclose()


def _copy(source: Path, target: Path) -> None:
    """A copy with its owners, made while the server runs: what a backup of the disk would have."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def _empty(folder: Path) -> None:
    for each in folder.glob("*") if folder.exists() else ():
        shutil.rmtree(each) if each.is_dir() else each.unlink()

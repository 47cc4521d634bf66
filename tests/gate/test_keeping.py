"""A server that evicts is refused when a process starts; how well one keeps its data is told.

Seen red with another policy taken for `noeviction`, a check that one of the commands leaves out, a
status of the append-only file that is not looked at, and a reconciler that tells nothing.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from onsale.domain.errors import GateUnavailable
from onsale.embedded import EmbeddedValkey
from onsale.gate.gate import Gate
from onsale.gate.keeping import GateEvicts, keeping_of
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.reconciler import Reconciler
from tests.support import SECRET

STARTED_SECONDS_MAX = 60

SOUND = {
    "maxmemory_policy": "noeviction",
    "aof_enabled": 1,
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "aof_delayed_fsync": 3,
}


@pytest.fixture(scope="module")
def evicting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A Valkey as caches have it."""
    options = {"maxmemory-policy": "allkeys-lru", "maxmemory": "64mb", "appendonly": "no"}
    with EmbeddedValkey(tmp_path_factory.mktemp("evicting") / "valkey", options=options) as server:
        yield server


@pytest.fixture
async def evicting_gate(evicting: EmbeddedValkey) -> AsyncIterator[Gate]:
    """The gate's client of a process on it."""
    made = Gate.connect(Settings(redis_url=evicting.url))
    yield made
    await made.close()


async def test_a_sound_server_is_taken(gate: Gate) -> None:
    await gate.require_noeviction()
    (kept,) = await gate.keeping()
    assert (kept.evicts, kept.aof_enabled, kept.aof_ok) == (False, True, True)


async def test_a_server_that_evicts_is_refused(
    evicting: EmbeddedValkey, evicting_gate: Gate
) -> None:
    with pytest.raises(GateEvicts, match=r"valkey\.sock .*allkeys-lru.* to noeviction") as told:
        await evicting_gate.require_noeviction()
    assert "\n" not in str(told.value)
    (kept,) = await evicting_gate.keeping()
    assert not kept.aof_enabled


async def test_a_server_that_does_not_answer_is_no_reason_not_to_start(tmp_path: Path) -> None:
    gate = Gate.connect(Settings(redis_url=f"unix://{tmp_path}/nobody.sock"))
    await gate.require_noeviction()
    with pytest.raises(GateUnavailable):
        await gate.keeping()
    await gate.close()


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_each_process_says_so_in_one_line(
    settings: Settings, evicting: EmbeddedValkey, command: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "onsale", command],
        env=os.environ
        | {
            "ONSALE_DATABASE_URL": settings.database_url,
            "ONSALE_REDIS_URL": evicting.url,
            "ONSALE_AUTH_SECRET": SECRET,
            "ONSALE_PORT": "0",
            "ONSALE_WORKER_METRICS_PORT": "0",
        },
        stderr=subprocess.PIPE,
        text=True,
        timeout=STARTED_SECONDS_MAX,
        check=False,
    )
    assert ended.returncode == 1
    *_, line = ended.stderr.splitlines()
    assert line.startswith("onsale: Redis at ")
    assert line.endswith("set its maxmemory-policy to noeviction, then start again")


@pytest.mark.parametrize("status", ["aof_last_write_status", "aof_last_bgrewrite_status"])
def test_a_file_that_could_not_be_written_is_not_well(status: str) -> None:
    assert keeping_of("here", SOUND).aof_ok
    assert not keeping_of("here", SOUND | {status: "err"}).aof_ok


async def test_the_reconciler_tells(service: Service, valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(valkey.url) as redis:
        for policy in ("allkeys-lru", "noeviction"):
            await redis.config_set("maxmemory-policy", policy)
            await Reconciler(service).run_once(full=False)
            assert told("onsale_gate_evicts") == (policy != "noeviction")
        for keeps in ("no", "yes"):
            await redis.config_set("appendonly", keeps)
            await Reconciler(service).run_once(full=False)
            assert told("onsale_gate_aof_enabled") == (keeps == "yes")
    assert told("onsale_gate_aof_ok") == 1
    assert told("onsale_gate_aof_delayed_fsyncs") is not None


def told(metric: str) -> float | None:
    return REGISTRY.get_sample_value(metric)

"""What is particular to Valkey: its settings, its door, a crash amid its writes."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
import redis
import redis.asyncio

from onsale.embedded import EmbeddedError, EmbeddedValkey
from onsale.embedded.binaries import find_valkey


def client_of(valkey: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(valkey.url, decode_responses=True)


def test_it_is_valkey_9_and_keeps_what_it_is_told(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey, client_of(valkey) as client:
        assert client.info("server")["valkey_version"].startswith("9.")
        for setting, value in {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-entries": "32",
            "port": "0",
        }.items():
            assert client.config_get(setting) == {setting: value}


def test_the_async_client_takes_the_url(tmp_path: Path) -> None:
    async def ping(url: str) -> bool:
        async with redis.asyncio.from_url(url) as client:
            return bool(await client.ping())

    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        assert asyncio.run(ping(valkey.url))


def test_options_go_before_the_defaults(tmp_path: Path) -> None:
    options = {"appendfsync": "always", "maxmemory": "64mb", "save": "3600 1"}
    with (
        EmbeddedValkey(tmp_path / "valkey", options=options) as valkey,
        client_of(valkey) as client,
    ):
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
        assert client.config_get("save") == {"save": "3600 1"}


def test_a_bad_option_is_told_in_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"appendfsync.*server\.log") as told:
        EmbeddedValkey(tmp_path / "valkey", options={"appendfsync": "sometimes"}).start()
    assert "\n" not in str(told.value)
    with EmbeddedValkey(tmp_path / "valkey"):
        pass


def test_a_missing_binary_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="no server at"):
        EmbeddedValkey(tmp_path / "valkey", binary=tmp_path / "no-such-server").start()


def test_with_fsync_always_every_write_before_a_crash_is_there_after_it(tmp_path: Path) -> None:
    # Under `everysec` this does not hold: a write answered while a sync is under way may be lost.
    with EmbeddedValkey(tmp_path / "valkey", options={"appendfsync": "always"}) as valkey:
        for crash in range(3):
            with client_of(valkey) as client:
                assert client.dbsize() == crash * 1000
                pipe = client.pipeline(transaction=False)
                for number in range(1000):
                    pipe.set(f"{crash}:{number}", "kept")
                pipe.execute()
            valkey.kill()
            valkey.start()


def test_a_client_survives_the_crash_of_its_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey, client_of(valkey) as client:
        before = client.info("server")["run_id"]
        valkey.kill()
        valkey.start()
        assert client.info("server")["run_id"] != before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root stages a copy")
def test_a_binary_that_nobody_can_reach_is_staged(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "server"
    hidden.parent.mkdir(mode=0o700)
    shutil.copy(find_valkey(None), hidden)
    with EmbeddedValkey(tmp_path / "valkey", binary=hidden) as valkey:
        program = Path(f"/proc/{valkey.pid}/exe").readlink()
        assert program.name == "server"
        assert program != hidden
    shutil.rmtree(program.parent)

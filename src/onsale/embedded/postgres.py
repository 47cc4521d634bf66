"""Postgres 18, listening on a Unix socket alone.

A socket in a folder of 0700 is reached by the user that runs the server, and by root, and by
nobody else: there is no password to make, keep or leak, and no port that another program may
take before we do or between a crash and a restart. asyncpg, psql and the exporters all speak it.
The folder is the authentication, so the socket's clients are trusted. An `options` entry that
opens TCP is possible and meets `scram-sha-256`, with no role that has a password.
"""

import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import URL

from onsale.embedded.binaries import PostgresPrograms, find_postgres
from onsale.embedded.folders import DataFolder, give, here, sync_folder
from onsale.embedded.processes import EmbeddedError
from onsale.embedded.server import EmbeddedServer, environment

_USER = "onsale"
_DATABASE = "onsale"
_COMMAND_SECONDS_MAX = 30.0

# Durability is Postgres' own: a demo that skips the disk would not be the same service.
_DEFAULTS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "listen_addresses": "",
    "port": "5432",  # without TCP, only a part of the socket's name
    # Several API processes with pools of 10, the workers, and tests that race.
    "max_connections": "200",
    "shared_buffers": "128MB",
    # Two readings of the clock a sync, and one sees whether the disk is the bottleneck.
    "track_wal_io_timing": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres(EmbeddedServer):
    """A Postgres cluster with the database `onsale`, which the superuser `onsale` owns."""

    name = "Postgres"
    stop_signal = signal.SIGINT  # a fast shutdown: clients are cut off, nothing is lost

    def __init__(self, data_dir: Path, *, options: Mapping[str, str] | None = None) -> None:
        """`options` are settings of postgresql.conf, by name; they go before our defaults."""
        super().__init__(data_dir)
        self._options = _DEFAULTS | dict(options or {})
        self._programs: PostgresPrograms | None = None

    @property
    def url(self) -> str:
        """The URL of the database `onsale`, for SQLAlchemy with asyncpg."""
        return self.url_for(_DATABASE)

    def url_for(self, database: str) -> str:
        """The URL of a database of this cluster, which need not exist."""
        address = {"host": str(self._socket_dir), "port": self._options["port"]}
        return str(URL.create("postgresql+asyncpg", _USER, database=database, query=address))

    def _prepare(self, folder: DataFolder, lock_fd: int) -> None:
        self._programs = find_postgres(folder.account)
        if not folder.data_path.exists():
            self._make_cluster(folder, self._programs.initdb, lock_fd)

    def _make_cluster(self, folder: DataFolder, initdb: Path, lock_fd: int) -> None:
        """Run initdb beside the final place: one that was cut short is never taken for whole."""
        unfinished = folder.path / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        give(unfinished, folder.account)
        command: list[str | Path] = [
            initdb,
            f"--pgdata={here(unfinished)}",
            f"--username={_USER}",
            "--encoding=UTF8",
            # Built in: the same order of text on every system, without its locales.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        ]
        self._run_to_end(command, unfinished, lock_fd)
        unfinished.rename(folder.data_path)
        sync_folder(folder.path)

    def _argv(self) -> Sequence[str | Path]:
        assert self._programs is not None
        address = {
            "unix_socket_directories": f'"{self._socket_dir}"',
            "unix_socket_permissions": "0700",
        }
        settings = [f"--{name}={value}" for name, value in (self._options | address).items()]
        return [self._programs.postgres, "-D", here(self.data_dir / "data"), *settings]

    def _is_ready(self) -> bool:
        """Whether the server says so in `postmaster.pid`, which is where pg_ctl looks as well."""
        try:
            lines = (self.data_dir / "data/postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _settle(self) -> None:
        """Make the database `onsale` if it is missing."""
        assert self._programs is not None
        psql: list[str | Path] = [
            self._programs.psql,
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            f"--host={self._socket_dir}",
            f"--port={self._options['port']}",
            f"--username={_USER}",
            "postgres",
        ]
        create_if_missing = f"""
            SELECT 'CREATE DATABASE {_DATABASE}'
            WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{_DATABASE}') \\gexec
        """
        try:
            subprocess.run(
                psql,
                env=environment(),
                input=create_if_missing,
                text=True,
                capture_output=True,
                check=True,
                timeout=_COMMAND_SECONDS_MAX,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            reason = " ".join(str(error.stderr or error).split())
            raise EmbeddedError(f"Postgres has no database {_DATABASE}: {reason}") from None

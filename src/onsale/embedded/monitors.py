"""Prometheus, Alertmanager and the exporters, as the programs that are on PATH.

They are no wheels: a distribution's packages bring them (Debian's names stand in each class). Each
listens on one port of the loopback and, like the stores, runs as somebody harmless in a folder of
its own and dies with its owner. As root they are the user that the embedded stores are, so they
enter the same sockets.
"""

import shutil
import signal
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from onsale.embedded.folders import DataFolder, give, here
from onsale.embedded.processes import EmbeddedError, free_port, require_free
from onsale.embedded.server import EmbeddedServer

_ANSWER_SECONDS_MAX = 1.0


class Monitor(EmbeddedServer):
    """One program of PATH that answers HTTP at `url`; `port` 0 takes one that is free."""

    program: ClassVar[str]
    package: ClassVar[str]
    stop_signal = signal.SIGTERM
    _ready_path: ClassVar[str] = "/"

    def __init__(self, data_dir: Path, *, port: int = 0, files: Mapping[str, str] | None = None):
        """`files` are written into the folder that the program starts in, by relative path."""
        super().__init__(data_dir)
        self.port = port or free_port()
        self.files = dict(files or {})

    @classmethod
    def find(cls) -> Path:
        """Where the program is; raises `EmbeddedError` with the command that installs it."""
        found = shutil.which(cls.program)
        if found is None:
            raise EmbeddedError(f"{cls.program} is not on PATH: apt-get install {cls.package}")
        return Path(found)

    @property
    def address(self) -> str:
        """Host and port, as Prometheus names a target."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.address}"

    @abstractmethod
    def options(self) -> Sequence[str]:
        """The options of its command line."""

    def _prepare(self, folder: DataFolder, lock_fd: int) -> None:
        self.find()
        # Otherwise whoever has the port would answer for this one.
        require_free(self.port)
        folder.data_path.mkdir(exist_ok=True)
        give(folder.data_path, folder.account)
        for name, text in self.files.items():
            for parent in reversed(Path(name).parents[:-1]):
                (folder.data_path / parent).mkdir(exist_ok=True)
                give(folder.data_path / parent, folder.account)
            path = folder.data_path / name
            # Anew each time: one that a run before left may belong to the server.
            path.unlink(missing_ok=True)
            path.write_text(text)
            path.chmod(0o644)

    def _argv(self) -> Sequence[str | Path]:
        return [self.find(), *self.options()]

    def _is_ready(self) -> bool:
        try:
            with httpx.Client(trust_env=False, timeout=_ANSWER_SECONDS_MAX) as client:
                return client.get(self.url + self._ready_path).status_code == 200
        except httpx.TransportError:
            return False


class Prometheus(Monitor):
    """Prometheus on the file `prometheus.yml`; takes what k6 writes to it (`remote_write_url`)."""

    name = "Prometheus"
    program = "prometheus"
    package = "prometheus"
    _ready_path = "/-/ready"

    @property
    def remote_write_url(self) -> str:
        """Where others send their samples."""
        return f"{self.url}/api/v1/write"

    def options(self) -> Sequence[str]:
        return [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=tsdb",
            # As long as the window of the service's objectives.
            "--storage.tsdb.retention.time=30d",
            f"--web.listen-address={self.address}",
            # What its alerts link to: itself, and the runbooks among its `files`.
            f"--web.external-url={self.url}",
            "--web.user-assets=assets",
            "--web.enable-remote-write-receiver",
            # k6 sends its trends as such, and the service shows which requests were traced.
            "--enable-feature=native-histograms,exemplar-storage",
        ]


class Alertmanager(Monitor):
    """Alertmanager on the file `alertmanager.yml`, alone: no other is gossiped with."""

    name = "Alertmanager"
    program = "prometheus-alertmanager"
    package = "prometheus-alertmanager"
    _ready_path = "/-/ready"

    def options(self) -> Sequence[str]:
        return [
            "--config.file=alertmanager.yml",
            "--storage.path=state",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
        ]


class Grafana(Monitor):
    """Grafana, open to this machine and without a login, on the provisioning among its `files`."""

    name = "Grafana"
    program = "grafana"
    package = "grafana (from https://apt.grafana.com)"
    _ready_path = "/api/health"

    @property
    def here(self) -> str:
        """The folder of its `files`, as its provisioning may call it."""
        return here(self.data_dir / "data")

    def options(self) -> Sequence[str]:
        return ["server", "--homepath=/usr/share/grafana"]

    def _environment(self) -> Mapping[str, str]:
        return {
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(self.port),
            "GF_PATHS_DATA": self.here,
            "GF_PATHS_LOGS": self.here,
            "GF_PATHS_PROVISIONING": f"{self.here}/provisioning",
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_BASIC_ENABLED": "false",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
        }


class NodeExporter(Monitor):
    """The host: CPU, memory, disks, and how long tasks wait for each (PSI)."""

    name = "node exporter"
    program = "prometheus-node-exporter"
    package = "prometheus-node-exporter"

    def options(self) -> Sequence[str]:
        wanted = (
            *("cpu", "meminfo", "filesystem", "diskstats", "loadavg", "netdev", "netstat"),
            "pressure",
        )
        return [
            f"--web.listen-address={self.address}",
            # Each of its other collectors costs a scrape, and nothing asks for them.
            "--collector.disable-defaults",
            *(f"--collector.{name}" for name in wanted),
        ]


class RedisExporter(Monitor):
    """What Redis or Valkey at `store_url` says of itself."""

    name = "Redis exporter"
    program = "prometheus-redis-exporter"
    package = "prometheus-redis-exporter"

    def __init__(self, data_dir: Path, store_url: str, *, port: int = 0) -> None:
        """`store_url` as the settings have it: `redis://`, `rediss://`, `unix://`, `…+cluster://`."""
        super().__init__(data_dir, port=port)
        self._store_url = store_url

    def options(self) -> Sequence[str]:
        is_cluster = "+cluster://" in self._store_url
        return [f"--web.listen-address={self.address}", *(["--is-cluster"] * is_cluster)]

    def _environment(self) -> Mapping[str, str]:
        # By the environment, for a password in a command line is everybody's to read.
        return {"REDIS_ADDR": redis_address(self._store_url)}


class PostgresExporter(Monitor):
    """What Postgres at `store_url` says of itself, by the queries of the file `queries.yml`.

    By those alone: the exporter's own lack waits, locks and the log, and those of Debian's version
    ask for columns that Postgres 17 moved.
    """

    name = "Postgres exporter"
    program = "prometheus-postgres-exporter"
    package = "prometheus-postgres-exporter"

    def __init__(self, data_dir: Path, store_url: str, *, queries: str, port: int = 0) -> None:
        """`store_url` is one of SQLAlchemy's, over TCP or, with `?host=`, a Unix socket."""
        super().__init__(data_dir, port=port, files={"queries.yml": queries})
        self._store_url = store_url

    def options(self) -> Sequence[str]:
        return [
            f"--web.listen-address={self.address}",
            "--extend.query-path=queries.yml",
            "--disable-default-metrics",
            "--disable-settings-metrics",
            "--no-collector.database",
            "--no-collector.bgwriter",
        ]

    def _environment(self) -> Mapping[str, str]:
        return {"DATA_SOURCE_NAME": postgres_source(self._store_url)}


def postgres_source(store_url: str) -> str:
    """A URL of SQLAlchemy and asyncpg as the exporter's driver takes it."""
    parts = urlsplit(store_url)
    query = dict(parse_qsl(parts.query))
    # The driver would insist on TLS, asyncpg takes what there is.
    query["sslmode"] = query.pop("ssl", "disable")
    query["application_name"] = "onsale-monitor"
    return urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(query), ""))


def redis_address(store_url: str) -> str:
    """A URL of the settings as the exporter takes it; after `unix://` all of it is the socket."""
    address = store_url.replace("+cluster://", "://")
    return address.partition("?")[0] if address.startswith("unix://") else address

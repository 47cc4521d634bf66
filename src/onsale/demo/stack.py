"""The embedded stack: Postgres, Valkey, the migrated schema, the API and the workers.

Everything is a real process that dies with this one.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from onsale.embedded import (
    EmbeddedError,
    EmbeddedPostgres,
    EmbeddedValkey,
    free_port,
    spawn_child,
    stop_child,
)
from onsale.ledger.migrations import migrate
from onsale.monitoring import Service as MonitoredService
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.reconciler import Reconciler

# Two processes on two slow cores that others want, too, have needed 33 s.
_READY_SECONDS_MAX = 120.0
_READY_POLL_SECONDS = 0.05


@dataclass(slots=True)
class Stack:
    """The stack below `data_dir`; a context that starts and stops it. Raises `EmbeddedError`.

    `tell` is called with a line for every step of the start.
    """

    data_dir: Path
    auth_secret: str
    port: int = 0
    workers: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda line: None
    metrics_port: int = 0
    worker_metrics_port: int = 0
    database_url: str = ""
    redis_url: str = ""
    # Of `postgres`, `redis`, `api` and `worker`, for those who want to see what they use.
    pids: dict[str, int] = field(default_factory=dict)
    _exits: ExitStack = field(default_factory=ExitStack)
    _children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    def __enter__(self) -> Self:
        if self.port:
            _require_free(self.port)
        with ExitStack() as exits:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self.logs_dir.mkdir(exist_ok=True)
            self._start_stores(exits)
            self._start_processes(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()

    @property
    def service(self) -> MonitoredService:
        """Where this is watched; `onsale monitor` reads it from the data folder."""
        return MonitoredService(
            api=[f"127.0.0.1:{self.metrics_port + number}" for number in range(self.workers)],
            workers=[f"127.0.0.1:{self.worker_metrics_port}"],
            database_url=self.database_url,
            redis_url=self.redis_url,
        )

    def died(self) -> str | None:
        """The name of a process that ended by itself, or `None` while all is well."""
        return next(
            (name for name, child in self._children.items() if child.poll() is not None), None
        )

    def _start_stores(self, exits: ExitStack) -> None:
        self.tell("starting Postgres")
        postgres = exits.enter_context(EmbeddedPostgres(self.data_dir / "postgres"))
        self.tell("starting Valkey")
        valkey = exits.enter_context(EmbeddedValkey(self.data_dir / "valkey"))
        self.database_url, self.redis_url = postgres.url, valkey.url
        self.pids |= {"postgres": postgres.pid, "redis": valkey.pid}
        self.tell("migrating the ledger")
        migrate(self.database_url)
        # A gate that was restarted is loaded before the first buyer comes, not a second after.
        asyncio.run(self._load_gates())

    async def _load_gates(self) -> None:
        service = Service.of(Settings(database_url=self.database_url, redis_url=self.redis_url))
        try:
            await Reconciler(service).run_once()
        finally:
            await service.close()

    def _start_processes(self, exits: ExitStack) -> None:
        self.port = self.port or free_port()
        self.metrics_port, self.worker_metrics_port = free_ports(self.workers), free_port()
        self.tell(f"starting the API ({self.workers} process{'es' * (self.workers > 1)})")
        self._spawn(exits, "api", "serve")
        self.tell("starting sweeper, reconciler, outbox and webhooks")
        self._spawn(exits, "worker", "worker")
        self._wait_until_ready()
        exits.callback(self.service.forget, self.data_dir)
        self.service.remember(self.data_dir)

    def _spawn(self, exits: ExitStack, name: str, command: str) -> None:
        environment = {
            # Who tries webhooks out has a receiver on the same machine.
            "ONSALE_WEBHOOK_PRIVATE_TARGETS_ALLOWED": "true",
            **os.environ,
            "ONSALE_DATABASE_URL": self.database_url,
            "ONSALE_REDIS_URL": self.redis_url,
            "ONSALE_AUTH_SECRET": self.auth_secret,
            "ONSALE_HOST": "127.0.0.1",
            "ONSALE_PORT": str(self.port),
            "ONSALE_WORKERS": str(self.workers),
            "ONSALE_METRICS_PORT": str(self.metrics_port),
            "ONSALE_WORKER_METRICS_PORT": str(self.worker_metrics_port),
            **self.env,
        }
        environment.pop("ONSALE_AUTH_JWKS_URL", None)
        child = spawn_child(
            [sys.executable, "-m", "onsale", command],
            env=environment,
            log_path=self.logs_dir / f"{name}.log",
        )
        self._children[name] = child
        self.pids[name] = child.pid
        exits.callback(stop_child, child)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS_MAX
        while time.monotonic() < deadline:
            died = self.died()
            if died is not None:
                raise EmbeddedError(f"the {died} process ended; see {self.logs_dir / died}.log")
            try:
                if httpx.get(f"{self.base_url}/readyz", timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_READY_POLL_SECONDS)
        raise EmbeddedError(f"the API was not ready in time; see {self.logs_dir / 'api.log'}")


def _require_free(port: int) -> None:
    try:
        with socket.socket() as listener:
            # As the server will: a port whose last connections are fading out is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise EmbeddedError(f"port {port} is in use; choose another with --port") from error


def free_ports(size: int) -> int:
    """The first of `size` ports in a row that were free a moment ago."""
    while True:
        first = free_port()
        if first + size > 65_535:
            continue
        try:
            for port in range(first, first + size):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first

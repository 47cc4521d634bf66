"""What is measured, running: both stores and a server process for each variant."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from onsale.bench.errors import BenchError
from onsale.bench.probes import Stores
from onsale.bench.variants import Sale, Variant
from onsale.demo.client import ServiceClient
from onsale.embedded import (
    EmbeddedPostgres,
    EmbeddedValkey,
    free_port,
    spawn_child,
    stop_child,
)
from onsale.ledger.migrations import migrate

_READY_SECONDS_MAX = 60.0
_READY_POLL_SECONDS = 0.05
# A limit that nobody reaches: the gate counts every buyer's units, as in a real sale.
_PER_BUYER_MAX = 1_000

# As `onsale.http.server` runs uvicorn.
_UVICORN = (
    *("--loop", "uvloop", "--http", "httptools", "--ws", "none", "--backlog", "4096"),
    *("--timeout-keep-alive", "30", "--no-access-log", "--no-server-header"),
    *("--log-level", "warning"),
)


@dataclass
class Server:
    """One variant's process. `event_id` and `metrics_port` are of variants that sell."""

    variant: Variant
    process: "subprocess.Popen[bytes]"
    port: int
    metrics_port: int
    log_path: Path
    event_id: str = "none"
    # Requests go on where the last turn ended, so that each has a key and a buyer of its own.
    next_index: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def orders_url(self) -> str:
        """Where the crowd is sent."""
        return f"{self.base_url}/v1/events/{self.event_id}/orders"

    def check(self) -> None:
        """Raises `BenchError` when the process has ended."""
        if self.process.poll() is not None:
            raise BenchError(f"the {self.variant.name} process ended; see {self.log_path}")


@dataclass(frozen=True)
class Stage:
    """The running processes."""

    postgres_pid: int
    redis_pid: int
    stores: Stores
    servers: Sequence[Server]


@contextmanager
def stage(
    folder: Path,
    variants: Iterable[Variant],
    auth_secret: str,
    tell: Callable[[str], None],
) -> Iterator[Stage]:
    """The stores and the servers, each sale with its event.

    Raises `BenchError`, `EmbeddedError`, `ServiceError` when something does not start.
    """
    with ExitStack() as exits:
        tell("starting Postgres and Valkey")
        postgres = exits.enter_context(EmbeddedPostgres(folder / "postgres"))
        valkey = exits.enter_context(EmbeddedValkey(folder / "valkey"))
        migrate(postgres.url)
        tell("starting a server process for each variant")
        settings = {
            "ONSALE_DATABASE_URL": postgres.url,
            "ONSALE_REDIS_URL": valkey.url,
            "ONSALE_AUTH_SECRET": auth_secret,
            "ONSALE_WORKERS": "1",
        }
        servers = []
        for variant in variants:
            server = _start(variant, folder, settings)
            exits.callback(stop_child, server.process)
            servers.append(server)
        for server in servers:
            _wait_until_ready(server)
            if server.variant.sale is not None:
                server.event_id = _create_event(server, server.variant.sale, auth_secret)
        yield Stage(postgres.pid, valkey.pid, Stores(postgres.url, valkey.url), servers)


def _start(variant: Variant, folder: Path, settings: Mapping[str, str]) -> Server:
    port, metrics_port = free_port(), free_port()
    listen = {"ONSALE_PORT": str(port), "ONSALE_METRICS_PORT": str(metrics_port)}
    serve = ["onsale", "serve", "--host", "127.0.0.1"]
    serve_bare = ["uvicorn", f"onsale.bench.bare:{variant.name}", "--port", str(port), *_UVICORN]
    environment = os.environ | settings | listen
    environment.pop("ONSALE_AUTH_JWKS_URL", None)
    log_path = folder / f"{variant.name}.log"
    process = spawn_child(
        [sys.executable, "-m", *(serve_bare if variant.sale is None else serve)],
        env=environment,
        log_path=log_path,
    )
    return Server(variant, process, port, metrics_port, log_path)


def _wait_until_ready(server: Server) -> None:
    """Wait until it accepts connections, which uvicorn does once the app has started."""
    deadline = time.monotonic() + _READY_SECONDS_MAX
    while time.monotonic() < deadline:
        server.check()
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            time.sleep(_READY_POLL_SECONDS)
        else:
            return
    raise BenchError(f"{server.variant.name} was not ready in time; see {server.log_path}")


def _create_event(server: Server, sale: Sale, auth_secret: str) -> str:
    tier = {"id": "ga", "name": "General admission", "price": 4_900, "capacity": sale.stock}
    event = ServiceClient(server.base_url, auth_secret).create_event(
        f"A benchmark of {server.variant.name}",
        [tier],
        payment=sale.payment,
        max_per_buyer=_PER_BUYER_MAX,
    )
    event_id: str = event["id"]
    return event_id

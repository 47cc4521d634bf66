"""What is measured, running: both stores and a server for each variant."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from onsale.bench.databases import make_database
from onsale.bench.errors import BenchError
from onsale.bench.probes import Stores
from onsale.bench.variants import Variant
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey, spawn_child, stop_child
from onsale.embedded.processes import last_words
from onsale.ledger.migrations import migrate

_READY_SECONDS_MAX = 60.0
_IN_FLIGHT_MAX = 10_000
_READY_POLL_SECONDS = 0.05
# Below those that the kernel gives to whoever connects, as wrk does thousands of times: a port
# that was free is still free when the server has started.
_PORTS = range(20_000, 32_000)
# One for the API, and one for the metrics of each of its processes.
_PORTS_PER_SERVER = 8
_POSTGRES_OPTIONS = {
    # Every process has a pool of ten.
    "max_connections": "500",
    # As a database is given that has to sell: its million orders fit, and no checkpoint falls into
    # a turn. Ids are hashes, so each order is on pages of its own, and of every page the first
    # change after a checkpoint writes all 8 KB of it to the log.
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
}
# A log that is written anew would be paid for by whoever has a turn just then.
_VALKEY_OPTIONS = {"auto-aof-rewrite-percentage": "0"}


@dataclass
class Server:
    """One variant's process, with its children if it has several; it uses the `stores`."""

    variant: Variant
    process: "subprocess.Popen[bytes]"
    port: int
    metrics_ports: range
    log_path: Path
    stores: Stores

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def check(self) -> None:
        """Raises `BenchError` when the process has ended."""
        if self.process.poll() is not None:
            raise self.failure("ended")

    def sleep(self) -> None:
        """Stop it where it is. Even with nobody to serve it asks the stores how its sales stand,
        and twenty such servers cost an order that another one serves a few microseconds of Redis.
        """
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def failure(self, what: str) -> BenchError:
        """An error that names the server and tells the end of its log, which goes with the run."""
        said = last_words(self.log_path, offset_bytes=0)
        return BenchError(f"{self.variant.name} {what}; the end of its log: {said}")


@dataclass(frozen=True)
class Stage:
    """The running processes."""

    postgres_pid: int
    redis_pid: int
    servers: Sequence[Server]


@contextmanager
def stage(
    folder: Path,
    variants: Sequence[Variant],
    auth_secret: str,
    tell: Callable[[str], None],
) -> Iterator[Stage]:
    """The stores and the servers. Raises `BenchError`, `EmbeddedError` when one does not start."""
    with ExitStack() as exits:
        tell("starting Postgres and Valkey")
        postgres = exits.enter_context(
            EmbeddedPostgres(folder / "postgres", options=_POSTGRES_OPTIONS)
        )
        valkey = exits.enter_context(EmbeddedValkey(folder / "valkey", options=_VALKEY_OPTIONS))
        migrate(postgres.url)
        # All of them now: a database that somebody uses cannot be copied.
        stores = [Stores(_database(variant, postgres), valkey.url) for variant in variants]
        tell("starting a server for each variant")
        servers = []
        free = _free_ports(exits)
        traces_url = ""
        if any(variant.traces for variant in variants):
            traces_url = _receiver_of_traces(folder, next(free)[0], exits)
        for variant, its_stores, ports in zip(variants, stores, free, strict=False):
            redis_url = _way_to_redis(variant, valkey.url, folder, exits)
            server = _start(variant, folder, auth_secret, its_stores, redis_url, traces_url, ports)
            exits.callback(_end, server)
            servers.append(server)
        for server in servers:
            _wait_until_ready(server)
        yield Stage(postgres.pid, valkey.pid, servers)


def _end(server: Server) -> None:
    server.wake()  # who sleeps hears nothing
    stop_child(server.process)


def _database(variant: Variant, postgres: EmbeddedPostgres) -> str:
    if not variant.own_database:
        return postgres.url
    return make_database(postgres, variant.name, variant.commit_delay_ms)


def _way_to_redis(variant: Variant, redis_url: str, folder: Path, exits: ExitStack) -> str:
    if variant.redis_delay_ms is None:
        return redis_url
    listen, log_path = folder / f"{variant.name}.sock", folder / f"{variant.name}-proxy.log"
    server = unquote(urlsplit(redis_url).path)
    program = ["onsale.bench.proxy", str(listen), server, str(variant.redis_delay_ms)]
    process = spawn_child([sys.executable, "-m", *program], log_path=log_path)
    exits.callback(stop_child, process)
    return f"unix://{quote(str(listen))}?db=0"


def _receiver_of_traces(folder: Path, port: int, exits: ExitStack) -> str:
    """Nobody waits for it: who finds it not there yet tries again."""
    program = ["onsale.bench.serve", "onsale.bench.forgetful:create_app", str(port)]
    process = spawn_child([sys.executable, "-m", *program], log_path=folder / "traces.log")
    exits.callback(stop_child, process)
    return f"http://127.0.0.1:{port}"


def _start(
    variant: Variant,
    folder: Path,
    auth_secret: str,
    stores: Stores,
    redis_url: str,
    traces_url: str,
    ports: range,
) -> Server:
    port, metrics_ports = ports[0], ports[1 : 1 + variant.workers]
    settings = {
        "ONSALE_DATABASE_URL": stores.database_url,
        "ONSALE_REDIS_URL": redis_url,
        "ONSALE_AUTH_SECRET": auth_secret,
        "ONSALE_WORKERS": str(variant.workers),
        "ONSALE_HOST": "127.0.0.1",
        "ONSALE_PORT": str(port),
        "ONSALE_METRICS_PORT": str(metrics_ports[0]),
        "ONSALE_TRACING_ENDPOINT": traces_url if variant.traces else "",
        **_traces(variant),
        # Who drives a closed loop of many connections wants them all to wait.
        **({} if variant.sheds else {"ONSALE_ORDERS_IN_FLIGHT_BUSY_MAX": str(_IN_FLIGHT_MAX)}),
    }
    environment = os.environ | settings
    environment.pop("ONSALE_AUTH_JWKS_URL", None)
    log_path = folder / f"{variant.name}.log"
    process = spawn_child(
        [sys.executable, "-m", *_program(variant, port)],
        env=environment,
        log_path=log_path,
        # The only signal that reaches one that sleeps.
        death_signal=signal.SIGKILL,
    )
    return Server(variant, process, port, metrics_ports, log_path, stores)


def _traces(variant: Variant) -> dict[str, str]:
    if variant.traces is None:
        return {}
    return {
        "ONSALE_TRACING_SAMPLE_SHARE": str(variant.traces.share),
        "ONSALE_TRACING_REQUESTS_PER_SECOND_MAX": str(variant.traces.per_second_max),
    }


def _program(variant: Variant, port: int) -> list[str]:
    if variant.app is not None:
        return ["onsale.bench.serve", variant.app, str(port)]
    return ["onsale", "serve"] if variant.metered else ["onsale.bench.quiet"]


def _wait_until_ready(server: Server) -> None:
    """Wait until it accepts connections, each of its processes, as they do once they have started.

    Several listen on one port before any has started, but each on its own for its metrics.
    """
    ports = [server.port] if server.variant.sale is None else [server.port, *server.metrics_ports]
    deadline = time.monotonic() + _READY_SECONDS_MAX
    while time.monotonic() < deadline:
        server.check()
        if all(_accepts(port) for port in ports):
            return
        time.sleep(_READY_POLL_SECONDS)
    raise server.failure("was not ready in time")


def _free_ports(exits: ExitStack) -> Iterator[range]:
    """Ports in a row that nobody listens on, for one server after the other."""
    for first in range(_PORTS.start, _PORTS.stop, _PORTS_PER_SERVER):
        ports = range(first, first + _PORTS_PER_SERVER)
        # A name that is free again when this process ends: another run, whose servers may not
        # listen yet, has another name.
        name = exits.enter_context(socket.socket(socket.AF_UNIX))
        try:
            name.bind(f"\0onsale-bench-{first}")
        except OSError:
            continue
        if not any(_accepts(port) for port in ports):
            yield ports


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True

"""What is broken in a campaign: both stores, two API processes, two of each worker, and the links.

Real processes that die with this one. All of them are started by one thread that lives as long as
the stage: Linux ends a child with the thread that started it, and the small disk is that thread's.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from redis.asyncio import Redis

from onsale.chaos.disk import SmallDisk
from onsale.chaos.links import Links, Store
from onsale.chaos.processes import Process, thaw_tree
from onsale.embedded import (
    EmbeddedError,
    EmbeddedPostgres,
    EmbeddedValkey,
    spawn_child,
    stop_child,
)
from onsale.ledger.migrations import migrate
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers.main import WorkerKind

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PER_KIND = 2
# The campaign's own eyes have links of their own, on which the weather is always fair.
AUDITOR = "auditor"

_READY_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.05
_LEDGER_DISK_BYTES = 512 * 1024 * 1024
# A disk to be filled is a small one, and so is the log that lies on it.
_SMALL_LOG = {"max_wal_size": "128MB", "min_wal_size": "32MB"}

# Every patience of the service shortened alike, so that a fault of seconds outlasts it: a frozen
# process must wake up after everybody has given it up. Their order is that of the defaults.
IMPATIENCE = {
    "ONSALE_REDIS_TIMEOUT_SECONDS": "0.5",
    "ONSALE_DB_POOL_TIMEOUT_SECONDS": "1",
    "ONSALE_DB_STATEMENT_TIMEOUT_SECONDS": "1",
    "ONSALE_DB_LOCK_TIMEOUT_SECONDS": "0.8",
    "ONSALE_DB_OUTAGE_PATIENCE_SECONDS": "0.25",
    "ONSALE_PAYMENT_TIMEOUT_SECONDS": "0.5",
    "ONSALE_SIMULATED_PAYMENT_SLOW_SECONDS": "0.2",
    "ONSALE_RECONCILER_INTERVAL_SECONDS": "0.5",
    "ONSALE_RECONCILER_GRACE_SECONDS": "2.5",
    "ONSALE_OUTBOX_INTERVAL_SECONDS": "0.25",
    "ONSALE_WEBHOOK_INTERVAL_SECONDS": "0.25",
    "ONSALE_WEBHOOK_TIMEOUT_SECONDS": "1",
    "ONSALE_WEBHOOK_BACKOFF_SECONDS": "0.3",
    "ONSALE_WEBHOOK_BACKOFF_SECONDS_MAX": "2",
    # Short pauses, so more of them: a message is not to be given up.
    "ONSALE_WEBHOOK_ATTEMPTS_MAX": "100",
    "ONSALE_SHUTDOWN_SECONDS": "2",
}
# Longer than any of those; what waits for longer has been given up by everybody.
LONGEST_PATIENCE_SECONDS = 2.5


class Stage:
    """See the module; an async context. `folder` is for data and logs, `sockets` for sockets and
    has a short name; `program` is the module that a process runs with `serve` or `worker`.
    """

    def __init__(
        self,
        folder: Path,
        sockets: Path,
        auth_secret: str,
        *,
        program: str = "onsale",
        env: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.auth_secret = auth_secret
        self.logs = folder / "logs"
        self.provider_books = folder / "provider"
        self.disk = SmallDisk(folder / "disk", _LEDGER_DISK_BYTES)
        self.disk_fault: str | None = None
        self.postgres = EmbeddedPostgres(self.disk.path / "postgres", options=_SMALL_LOG)
        self.valkey, self.spare_valkey = (
            EmbeddedValkey(folder / name) for name in ("valkey-1", "valkey-2")
        )
        self.links = Links(sockets)
        self.apis: dict[str, Process] = {}
        self.addresses: dict[str, str] = {}
        self.workers: dict[str, Process] = {}
        # Buyers go away after so long while it is set; a fault's way to have them do it.
        self.buyers_hang_up_after_seconds: float | None = None
        self._program = program
        self._env = env or {}
        self._tell = tell
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage")
        self._exits = AsyncExitStack()
        self._nursery_path = sockets / "nursery"
        self._helpers: list[subprocess.Popen[bytes]] = []

    # -- its life

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exits.aclose()

    async def do(
        self,
        step: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Take a step that blocks, in the thread that owns every process."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: step(*args, **kwargs))

    async def _start(self) -> None:
        exits = self._exits
        exits.callback(self._thread.shutdown)
        exits.push_async_callback(self.do, self._stop_everything)
        await self.do(self._start_stores)
        await self._start_helpers()
        self.service = Service.of(
            Settings(
                database_url=await self.links.open(AUDITOR, Store.LEDGER, self.postgres.url),
                redis_url=await self.links.open(AUDITOR, Store.GATE, self.valkey.url),
            )
        )
        exits.push_async_callback(self.service.close)
        self.redis = Redis.from_url(self.service.settings.redis_url)
        exits.push_async_callback(self.redis.aclose)
        await self._start_service()

    def _start_stores(self) -> None:
        self.logs.mkdir(parents=True)
        try:
            self.disk.mount()
        except EmbeddedError as error:
            self.disk_fault = str(error)
        self._tell("starting Postgres and Valkey")
        self.postgres.start()
        self.valkey.start()
        migrate(self.postgres.url)

    async def _start_helpers(self) -> None:
        """The proxy and the nursery, which start their own processes."""
        for module, path, *args in (
            ("onsale.chaos.proxy", self.links.control_path),
            ("onsale.chaos.nursery", self._nursery_path, self._program),
        ):
            child = await self.do(
                spawn_child,
                [sys.executable, "-m", module, path, *args],
                log_path=self.logs / f"{module.rpartition('.')[2]}.log",
                death_signal=signal.SIGKILL,
            )
            self._helpers.append(child)
            await self._until(path.exists, partial(_lives, child), module)

    async def _start_service(self) -> None:
        self._tell(f"starting {PER_KIND} API processes and {PER_KIND} of each worker")
        for number in range(1, PER_KIND + 1):
            port = self._reserve_port()
            api = await self._process(f"api-{number}", ["serve"], {"ONSALE_PORT": str(port)})
            self.apis[api.name] = api
            self.addresses[api.name] = f"http://127.0.0.1:{port}"
            for kind in WorkerKind:
                worker = await self._process(f"{kind}-{number}", ["worker", kind], {})
                self.workers[worker.name] = worker
        for process in (*self.apis.values(), *self.workers.values()):
            await self.do(process.start)
        for name, address in self.addresses.items():
            await self._until(partial(_is_ready, address), partial(_lives, self.apis[name]), name)

    def _reserve_port(self) -> int:
        """A port that is ours for good, also while the process that listens there is dead."""
        reserved = socket.socket()
        self._exits.callback(reserved.close)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        return port

    async def _process(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> Process:
        urls = {
            "ONSALE_DATABASE_URL": await self.links.open(name, Store.LEDGER, self.postgres.url),
            "ONSALE_REDIS_URL": await self.links.open(name, Store.GATE, self.valkey.url),
        }
        own = {name: value for name, value in os.environ.items() if not name.startswith("ONSALE_")}
        ours = {
            "ONSALE_AUTH_SECRET": self.auth_secret,
            "ONSALE_WEBHOOK_PRIVATE_TARGETS_ALLOWED": "true",
            "ONSALE_METRICS_PORT": "0",
            "ONSALE_WORKER_METRICS_PORT": "0",
            "ONSALE_SIMULATED_PAYMENT_BOOKS": str(self.provider_books),
        }
        return Process(
            name,
            self._nursery_path,
            command,
            own | IMPATIENCE | ours | urls | dict(env) | dict(self._env),
            self.logs / f"{name}.log",
        )

    async def _until(
        self, reached: Callable[[], bool], lives: Callable[[], bool], name: str
    ) -> None:
        deadline = time.monotonic() + _READY_SECONDS_MAX
        while not await self.do(reached):
            if not lives() or time.monotonic() > deadline:
                raise EmbeddedError(f"{name} did not start; see {self.logs}")
            await asyncio.sleep(_POLL_SECONDS)

    def _stop_everything(self) -> None:
        self.disk.relieve()
        for server in (self.postgres, self.valkey):
            if server.is_running:
                thaw_tree(server.pid)
        for process in (*self.apis.values(), *self.workers.values()):
            process.kill()
        for helper in self._helpers:
            stop_child(helper)
        for server in (self.valkey, self.spare_valkey, self.postgres):
            server.stop()

    # -- what a campaign asks of it

    def process(self, name: str) -> Process:
        """An API process or a worker, by its name."""
        return self.apis.get(name) or self.workers[name]

    def of_kind(self, kind: str) -> list[str]:
        """The names of the processes of a kind: `api`, or a worker's."""
        return [f"{kind}-{number}" for number in range(1, PER_KIND + 1)]

    async def start(self, name: str, more_env: Mapping[str, str] | None = None) -> None:
        """Start a process anew; returns when an API process listens."""
        process = self.process(name)
        await self.do(process.start, more_env)
        if name in self.apis:
            await self._until(
                partial(_listens, self.addresses[name]), partial(_lives, process), name
            )

    def server(self, store: Store) -> EmbeddedValkey | EmbeddedPostgres:
        """The server of a store as it is now."""
        return self.valkey if store is Store.GATE else self.postgres

    async def start_server(self, store: Store) -> None:
        """Start a store's server unless it runs; returns when it answers."""
        server = self.server(store)
        if not server.is_running:
            await self.do(server.start)

    async def lead_to_valkey(self) -> None:
        """Lead every link to the server that `valkey` is now."""
        for name in (*self.apis, *self.workers, AUDITOR):
            await self.links.lead(name, Store.GATE, self.valkey.url)


def _lives(process: "Process | subprocess.Popen[bytes]") -> bool:
    return process.runs if isinstance(process, Process) else process.poll() is None


def _listens(address: str) -> bool:
    port = urlsplit(address).port
    assert port is not None
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=1).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False

"""Limits to plant, one at a time, each with the stage that has to be named for it."""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import redis

from onsale.demo.stack import Stack
from onsale.embedded import spawn_child, stop_child
from onsale.ledger.engine import create_engine
from onsale.settings import Settings

WITHIN = Path(__file__).parent / "within"
_LOG_BYTES_PER_SECOND = 50_000
_HOGS = 48
_NICEST = 19

Beside = Callable[["PlantedStack"], AbstractContextManager[None]]


@dataclass(frozen=True)
class Plant:
    """One limit: `within` the service's processes, in their settings, or `beside` them.

    `stores` runs before they start. `before` runs when they are up and the service is not yet, and
    may change its settings. `around` runs while the load comes.
    """

    name: str
    stage: str | None
    within: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    stores: Beside = lambda stack: nullcontext()
    before: Beside = lambda stack: nullcontext()
    around: Beside = lambda stack: nullcontext()
    buyers_per_second: int = 100
    k6: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class PlantedStack(Stack):
    """The embedded stack with a plant in it."""

    plant: Plant = field(default_factory=lambda: Plant("nothing", None))
    slow_sync: Path | None = None

    def _start_stores(self, exits: ExitStack) -> None:
        exits.enter_context(self.plant.stores(self))
        Stack._start_stores(self, exits)

    def _start_processes(self, exits: ExitStack) -> None:
        self.env = {"PYTHONPATH": str(WITHIN), "PLANT": self.plant.within} | dict(self.plant.env)
        exits.enter_context(self.plant.before(self))
        Stack._start_processes(self, exits)

    def set(self, name: str, value: str) -> None:
        """One more setting of the service."""
        self.env = dict(self.env) | {name: value}


@contextmanager
def _in_a_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something beside the load until it is over; what it raises is raised at the end."""
    over = threading.Event()
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work(over)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if raised:
        raise raised[0]


def _on_postgres(stack: Stack, work: Callable[[Any], Awaitable[None]]) -> None:
    """Do something on a connection of its own."""

    async def run() -> None:
        engine = create_engine(Settings(database_url=stack.database_url))
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            await work(raw.driver_connection)
        await engine.dispose()

    asyncio.run(run())


@contextmanager
def with_slow_sync(stack: PlantedStack) -> Iterator[None]:
    """Postgres starts with a sync that can be slowed down; needs a compiler.

    `commit_delay` would not do: who sleeps for that is at work, as Postgres tells it.
    """
    # Not within the stack's folder: the user that Postgres runs as has to get there.
    with tempfile.TemporaryDirectory(prefix="onsale-slow-sync-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        library, stack.slow_sync = folder / "slow_sync.so", folder / "slow"
        source = WITHIN / "slow_sync.c"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        os.environ |= {"LD_PRELOAD": str(library), "SLOW_SYNC": str(stack.slow_sync)}
        try:
            yield
        finally:
            del os.environ["LD_PRELOAD"], os.environ["SLOW_SYNC"]


@contextmanager
def slow_sync(stack: PlantedStack) -> Iterator[None]:
    """From now on every sync of the log takes a tenth of a second longer."""
    assert stack.slow_sync is not None
    stack.slow_sync.touch()
    try:
        yield
    finally:
        stack.slow_sync.unlink()


def locked_tier(stack: PlantedStack) -> AbstractContextManager[None]:
    """A session that takes the tiers' rows and keeps them for a second, again and again."""

    def work(over: threading.Event) -> None:
        async def lock(connection: asyncpg.Connection) -> None:
            while not over.is_set():
                async with connection.transaction():
                    await connection.execute("SELECT * FROM tiers FOR UPDATE")
                    await asyncio.sleep(1)

        _on_postgres(stack, lock)

    return _in_a_thread(work)


def busy_redis(stack: PlantedStack) -> AbstractContextManager[None]:
    """Somebody else's scripts, one after the other, in which nobody is served."""

    def work(over: threading.Event) -> None:
        client = redis.Redis.from_url(stack.redis_url)
        script = client.register_script("for i = 1, 3000000 do end")
        while not over.is_set():
            script()
        client.close()

    return _in_a_thread(work)


@contextmanager
def far_redis(stack: PlantedStack) -> Iterator[None]:
    """A proxy that keeps everything for a while, as a way of 150 ms would."""
    listen, upstream = stack.data_dir / "far.sock", stack.redis_url.removeprefix("unix://")
    proxy = spawn_child(
        [sys.executable, "-m", "onsale.bench.proxy", listen, upstream.partition("?")[0], "150"]
    )
    while not listen.exists():
        time.sleep(0.01)
    stack.set("ONSALE_REDIS_URL", f"unix://{listen}")
    try:
        yield
    finally:
        stop_child(proxy)


def slow_log(stack: PlantedStack) -> AbstractContextManager[None]:
    """The API's log is a pipe that somebody empties slowly, as a disk would take it."""
    pipe = stack.logs_dir / "api.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def work(over: threading.Event) -> None:
        part = _LOG_BYTES_PER_SECOND // 20
        while not over.wait(0.05):
            with suppress(BlockingIOError):
                os.read(reader, part)
        # The service stops after this, and has something to say to that.
        os.set_blocking(reader, True)
        threading.Thread(target=_empty, args=(reader,), daemon=True).start()

    return _in_a_thread(work)


def _empty(reader: int) -> None:
    while os.read(reader, 2**16):
        pass


@contextmanager
def on_the_last_core(stack: PlantedStack) -> Iterator[None]:
    """The service and its stores keep away from the first core, where k6 is to be starved."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    for store in ("postgres", "redis"):
        server = psutil.Process(stack.pids[store])
        for process in (server, *server.children()):
            process.cpu_affinity([max(cores)])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def starved_k6(stack: PlantedStack) -> Iterator[None]:
    """k6 has one core and, once it has begun, shares what others leave of it with many.

    It and they are as nice as can be, and who else uses the machine comes after the service: that
    gets its core whenever it wants it, or it would be what is starved.
    """
    for pid in stack.pids.values():
        _put_first(psutil.Process(pid))
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        with _in_a_thread(lambda over: _hog(stack, over)):
            yield
    finally:
        os.sched_setaffinity(0, cores)


def _hog(stack: PlantedStack, over: threading.Event) -> None:
    # Before its first buyer it makes its virtual users, for which it would take half a minute.
    while not over.wait(0.1) and not _has_orders(stack):
        pass
    hogs = [spawn_child([sys.executable, "-c", "while True: pass"]) for _ in range(_HOGS)]
    generators = [child.pid for child in psutil.Process().children() if child.name() == "k6"]
    for pid in (*generators, *(hog.pid for hog in hogs)):
        _make_nice(pid)
    over.wait()
    for hog in hogs:
        hog.kill()
        hog.wait()


def _make_nice(pid: int) -> None:
    """Whoever else wants the core has it: each thread, and the session where Linux weighs those."""
    for thread in psutil.Process(pid).threads():
        os.setpriority(os.PRIO_PROCESS, thread.id, _NICEST)
    with suppress(FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text(str(_NICEST))


def _put_first(server: psutil.Process) -> None:
    """A core is theirs as soon as they want one, and their children's; where we may say so."""
    for process in (server, *server.children(recursive=True)):
        with suppress(PermissionError, psutil.NoSuchProcess):
            for thread in process.threads():
                os.sched_setscheduler(thread.id, os.SCHED_RR, os.sched_param(1))


def _has_orders(stack: PlantedStack) -> bool:
    scraped = httpx.get(f"http://127.0.0.1:{stack.metrics_port}/metrics", trust_env=False).text
    return re.search(r'onsale_admissions_total\{decision="accepted"\} [1-9]', scraped) is not None


PLANTS = (
    Plant("ledger pool of 1", "pool", within="small pool", buyers_per_second=500),
    Plant("slow WAL sync", "wal", stores=with_slow_sync, around=slow_sync),
    Plant("a session that locks a tier", "locks", around=locked_tier),
    Plant("a slow script beside the gate's", "redis", around=busy_redis),
    Plant("latency between API and Redis", "gate", before=far_redis),
    Plant(
        "a handler that blocks the event loop",
        "loop",
        within="blocking handler",
        buyers_per_second=60,
    ),
    Plant(
        "too few workers for the CPU at hand",
        "worker",
        within="dear requests",
        buyers_per_second=300,
        # No more than the processes of a pool can be at: the rest waits at the door.
        k6={"VUS_MAX": "50"},
    ),
    Plant("slow payment provider", "payment", within="slow provider"),
    Plant(
        "small in-flight limit",
        "valve",
        env={"ONSALE_ORDERS_IN_FLIGHT_MAX": "1", "ONSALE_ORDERS_IN_FLIGHT_BUSY_MAX": "1"},
        buyers_per_second=80,
    ),
    Plant("log writes to a slow disk", "logs", within="access log", before=slow_log),
    Plant(
        "k6 starved",
        "generator",
        before=on_the_last_core,
        around=starved_k6,
        buyers_per_second=120,
    ),
    Plant("nothing, and a low load", None, buyers_per_second=30),
)

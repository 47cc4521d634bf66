"""What every process tells about itself: build, event-loop lag, and its own metrics port."""

import asyncio
import gc
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from threading import get_native_id
from time import perf_counter
from typing import Any

from prometheus_client import start_http_server

from onsale.observability import metrics

_LAG_SAMPLE_SECONDS = 0.1
_CANCEL_AGAIN_SECONDS = 0.1
_PORT_POLL_SECONDS = 0.2
_NANOSECONDS = 1e-9


def serve_metrics(host: str, first_port: int, ports: int = 1) -> int:
    """Serve this process's metrics on the first free port of a range; 0 takes any free port.

    Several processes of one kind share a range, and each is scraped as an instance of its own.
    The port taken. Raises `OSError` when none is free.
    """
    python = platform.python_version()
    metrics.build_info.labels(version("onsale"), python).set(1)
    for port in range(first_port, first_port + ports):
        try:
            server, _ = start_http_server(port, host)
        except OSError:
            if port == first_port + ports - 1:
                raise
        else:
            return int(server.server_port)
    raise AssertionError("a range has at least one port")


async def serve_metrics_when_free(host: str, first_port: int, ports: int) -> int:
    """`serve_metrics` as soon as a port is free: a process that takes another's place is there
    before the other has ended.
    """
    while True:
        try:
            return serve_metrics(host, first_port, ports)
        except OSError:
            await asyncio.sleep(_PORT_POLL_SECONDS)


def calm_garbage_collector() -> None:
    """Take what start-up left out of the collector's sight, and let it look less often.

    Everything that requests make is freed by counting references; the collector's walks through the
    modules and remembered tokens cost an order a fifth of its CPU, and most of its 99th percentile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


async def watch_event_loop(report: Callable[[], None] = lambda: None) -> None:
    """Measure for ever how late the event loop wakes a sleeper and how long its thread waits for a
    core, and let others report beside it.
    """
    waited_seconds = cpu_wait_seconds()
    while True:
        asleep_since = perf_counter()
        await asyncio.sleep(_LAG_SAMPLE_SECONDS)
        lag_seconds = perf_counter() - asleep_since - _LAG_SAMPLE_SECONDS
        metrics.event_loop_lag_seconds.observe(max(0.0, lag_seconds))
        before, waited_seconds = waited_seconds, cpu_wait_seconds()
        metrics.cpu_wait_seconds_total.inc(waited_seconds - before)
        report()


def cpu_wait_seconds() -> float:
    """For how long this thread was ready and not running: the second field of its schedstat; 0
    where there is no such file.
    """
    try:
        stat = os.open(f"/proc/self/task/{get_native_id()}/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        return int(os.read(stat, 100).split()[1]) * _NANOSECONDS
    finally:
        os.close(stat)


async def stop(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel tasks until they have ended.

    Once is not enough: a cancellation that meets redis-py's own time-out at the end of a read is
    taken for that and lost.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)

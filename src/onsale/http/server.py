"""Serving the API: uvicorn with uvloop and httptools, one process or several on one port."""

import asyncio
import os
import signal
import socket
import sys
from typing import Any

import uvicorn

from onsale.gate.gate import Gate
from onsale.http.app import create_app
from onsale.http.protocol import BoundedHttpProtocol
from onsale.settings import Settings

# Connections that the kernel keeps while every process is busy: a spike is thousands at once.
_BACKLOG = 4_096
_KEEP_ALIVE_SECONDS = 30
# To start, in a rolling restart, and to say that it lives: a machine under load is slow at both,
# and starting has taken 19 s on one.
_PROCESS_SECONDS_MAX = 60

# How every app is served whose speed is compared with this one's; `onsale bench` serves others.
UVICORN_OPTIONS: dict[str, Any] = {
    "loop": "uvloop",
    "ws": "none",
    "backlog": _BACKLOG,
    "timeout_keep_alive": _KEEP_ALIVE_SECONDS,
    "access_log": False,
    "proxy_headers": False,
    "log_config": None,
    "server_header": False,
    # Or a request in line is served in the context of the one before: in its trace, under its id.
    "reset_contextvars": True,
}


def serve(settings: Settings) -> None:
    """Serve until told to stop. Every process reads its settings from the environment.

    Raises `ValueError`, `GateEvicts`: mistakes that show here, once, and not in every process again
    and again.
    """
    # Processes of uvicorn's start anew and know only the environment.
    os.environ["ONSALE_WORKERS"] = str(settings.workers)
    # Told to stop, and stopped, is a good end: before uvicorn listens for the signal, and when it
    # raises it once more after all is done.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    create_app(settings)
    asyncio.run(_require_noeviction(settings))
    _require_free(settings.host, settings.port)
    uvicorn.run(
        "onsale.http.app:create_app_from_environment",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http=BoundedHttpProtocol,
        lifespan="on",
        timeout_graceful_shutdown=settings.shutdown_seconds,
        timeout_worker_healthcheck=_PROCESS_SECONDS_MAX,
        **UVICORN_OPTIONS,
    )


async def _require_noeviction(settings: Settings) -> None:
    gate = Gate.connect(settings)
    try:
        await gate.require_noeviction()
    finally:
        await gate.close()


def _require_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}:{port} (ONSALE_PORT): {error.strerror}"
        ) from None

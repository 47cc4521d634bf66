"""The API as it runs in production: processes of its own, which may be killed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from onsale.embedded import free_port, spawn_child, stop_child
from onsale.settings import Settings
from tests.support import SECRET, wait_until

_READY_SECONDS_MAX = 60.0


class Api:
    """`onsale serve --workers N` on the stores of `settings`; an async context that ends it."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        *,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.log_path = folder / "api.log"
        self._workers = workers
        self._env = {
            **os.environ,
            "ONSALE_DATABASE_URL": settings.database_url,
            "ONSALE_REDIS_URL": settings.redis_url,
            "ONSALE_AUTH_SECRET": SECRET,
            "ONSALE_HOST": "127.0.0.1",
            "ONSALE_PORT": str(self.port),
            "ONSALE_WORKERS": str(workers),
            "ONSALE_METRICS_PORT": "0",
            **(env or {}),
        }
        self._child: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._child = spawn_child(
            [sys.executable, "-m", "onsale", "serve"], env=self._env, log_path=self.log_path
        )
        try:
            await wait_until(self.is_whole, timeout_s=_READY_SECONDS_MAX, poll_s=0.05)
        except BaseException:
            self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """End every process."""
        if self._child is not None:
            stop_child(self._child)
            self._child = None

    def serving(self) -> list[psutil.Process]:
        """The processes that answer requests: the one, or the children of the one that watches."""
        assert self._child is not None
        assert self._child.poll() is None, self.log_path.read_text()
        parent = psutil.Process(self._child.pid)
        if self._workers == 1:
            return [parent]
        return [child for child in parent.children() if _is_worker(child)]

    async def get(self, path: str) -> httpx.Response:
        """Ask for a page. Raises `httpx.TransportError`."""
        async with httpx.AsyncClient() as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    async def is_whole(self) -> bool:
        """Whether every process runs and the API says that it is ready."""
        if len(self.serving()) != self._workers:
            return False
        try:
            return (await self.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False


def _is_worker(child: psutil.Process) -> bool:
    """Whether it runs and is not Python's resource tracker, which is a child as well."""
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:  # or a zombie, which is one as well to psutil
        return False

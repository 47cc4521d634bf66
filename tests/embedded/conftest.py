"""What the tests of embedded servers share."""

import asyncio
import time
from collections.abc import Callable, Iterable

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


async def _run_sql(url: str, statements: tuple[str, ...]) -> str:
    async with create_async_engine(url, poolclass=NullPool).begin() as connection:
        for statement in statements:
            result = await connection.execute(text(statement))
        return str(result.scalar()) if result.returns_rows else ""


@pytest.fixture
def run_sql() -> Callable[..., str]:
    """Runs statements in one transaction at a URL; gives the first value of the last one."""
    return lambda url, *statements: asyncio.run(_run_sql(url, statements))


def _has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, or a zombie: an orphan's is reaped when the system's init gets to it."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _wait_until_ended(processes: Iterable[psutil.Process]) -> None:
    deadline = time.monotonic() + 30
    for process in processes:
        while not _has_ended(process):
            assert time.monotonic() < deadline, f"{process} has not ended"
            time.sleep(0.01)


@pytest.fixture
def wait_until_ended() -> Callable[[Iterable[psutil.Process]], None]:
    """Returns when processes have ended that need not be our children; fails after 30 s."""
    return _wait_until_ended

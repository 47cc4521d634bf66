"""No API process outlives the one that started it, however that one ends."""

import os
import signal
import sys
from pathlib import Path

import psutil

from onsale.embedded import EmbeddedPostgres, EmbeddedValkey, free_port, spawn_child
from tests.support import SECRET, wait_until


async def test_workers_end_when_their_supervisor_is_killed(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """Seen red without the thread that waits for the supervisor's end: they kept the port."""
    environment = {
        **os.environ,
        "ONSALE_DATABASE_URL": postgres.url,
        "ONSALE_REDIS_URL": valkey.url,
        "ONSALE_AUTH_SECRET": SECRET,
        "ONSALE_PORT": str(free_port()),
        "ONSALE_METRICS_PORT": "0",
        "ONSALE_WORKERS": "2",
    }
    log = tmp_path / "api.log"
    supervisor = spawn_child(
        [sys.executable, "-m", "onsale", "serve"], env=environment, log_path=log
    )

    async def both_serve() -> bool:
        return log.read_text().count('"serving"') == 2

    await wait_until(both_serve)
    workers = psutil.Process(supervisor.pid).children(recursive=True)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()

    async def nobody_is_left() -> bool:
        return not any(
            worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers
        )

    await wait_until(nobody_is_left)

"""What is watched, and how another process finds it."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from onsale.settings import Settings

_FILE = "running.json"


@dataclass(frozen=True)
class Service:
    """`host:port` of each process's metrics, and the URLs of the stores."""

    api: Sequence[str]
    workers: Sequence[str]
    database_url: str
    redis_url: str

    @classmethod
    def of_settings(cls, settings: Settings) -> Self:
        """The processes of this machine that were started with these settings."""
        ports = range(settings.metrics_port, settings.metrics_port + settings.workers)
        return cls(
            api=[f"127.0.0.1:{port}" for port in ports],
            workers=[f"127.0.0.1:{settings.worker_metrics_port}"],
            database_url=settings.database_url,
            redis_url=settings.redis_url,
        )

    @classmethod
    def running_on(cls, data_dir: Path) -> Self | None:
        """The embedded service that runs on a data folder; `None` when none does."""
        try:
            return cls(**json.loads((data_dir / _FILE).read_text("utf-8")))
        except FileNotFoundError:
            return None

    def remember(self, data_dir: Path) -> None:
        """Have others find it; for the owner alone, as the URLs may hold passwords."""
        path = data_dir / _FILE
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file)

    @staticmethod
    def forget(data_dir: Path) -> None:
        """It does not run any more."""
        (data_dir / _FILE).unlink(missing_ok=True)

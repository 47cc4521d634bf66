"""What is read before and after a turn: CPU from /proc, the API's metrics, sizes of the stores."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import asyncpg
import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from onsale.bench.errors import BenchError
from onsale.http.intake import ROUTE

Key = TypeVar("Key")

_PROC = Path("/proc")
# Fields of /proc/PID/stat after the name in brackets (proc(5) counts from the pid on, as 1).
_PARENT = 4 - 3
_TIMES = slice(14 - 3, 17 - 3 + 1)


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used so far, with its children, those that have ended included.

    Raises `BenchError` where there is no /proc.
    """
    parents, ticks = {}, {}
    for entry in _PROC.glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended just now
            continue
        number = int(entry.parent.name)
        parents[number] = int(fields[_PARENT])
        ticks[number] = sum(int(field) for field in fields[_TIMES])
    if pid not in ticks:
        raise BenchError(f"the CPU time of process {pid} cannot be read from /proc")
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return sum(ticks[member] for member in family) / os.sysconf("SC_CLK_TCK")


class ApiCounters(NamedTuple):
    """Counters of an API process; `batches` and `batched` are by stage, `answers` by status."""

    answers: Mapping[int, int]
    in_flight: int
    batches: Mapping[str, int]
    batched: Mapping[str, int]

    @classmethod
    def scrape(cls, metrics_port: int) -> Self:
        """What the process says now."""
        page = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10, trust_env=False)
        return cls.parse(page.text)

    @classmethod
    def parse(cls, page: str) -> Self:
        """The counters of a metrics page."""
        answers, batches, batched = {}, {}, {}
        in_flight = 0
        for family in text_string_to_metric_families(page):
            for name, labels, value, *_ in family.samples:
                match name:
                    case "onsale_http_requests_total" if labels["route"] == ROUTE:
                        answers[int(labels["status"])] = int(value)
                    case "onsale_http_requests_in_flight":
                        in_flight = int(value)
                    case "onsale_batch_size_count":
                        batches[labels["stage"]] = int(value)
                    case "onsale_batch_size_sum":
                        batched[labels["stage"]] = int(value)
        return cls(answers, in_flight, batches, batched)

    def since(self, before: "ApiCounters") -> "ApiCounters":
        """What was counted between two looks."""
        return ApiCounters(
            _difference(self.answers, before.answers),
            self.in_flight,
            _difference(self.batches, before.batches),
            _difference(self.batched, before.batched),
        )

    def batch_size_mean(self, stage: str) -> float | None:
        """Orders in a batch of the stage, or `None` when there was no batch."""
        batches = self.batches.get(stage)
        return self.batched[stage] / batches if batches else None


class Holdings(NamedTuple):
    """What the stores hold: live orders of one event, and bytes in all."""

    live_orders: int
    postgres_bytes: int
    redis_bytes: int


@dataclass(frozen=True)
class Stores:
    """Both stores, looked at from outside of the service."""

    database_url: str
    redis_url: str

    def holdings(self, event_id: str) -> Holdings:
        """What there is now."""
        live_orders, postgres_bytes = asyncio.run(self._in_postgres(event_id))
        with Redis.from_url(self.redis_url) as redis:
            memory: dict[str, int] = redis.info("memory")
        return Holdings(live_orders, postgres_bytes, memory["used_memory"])

    async def _in_postgres(self, event_id: str) -> tuple[int, int]:
        connection = await asyncpg.connect(self.database_url.replace("+asyncpg", "", 1))
        try:
            row = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM orders"
                "        WHERE event_id = $1::uuid AND status IN ('held', 'confirmed')),"
                " pg_total_relation_size('orders') + pg_total_relation_size('order_items')",
                event_id,
            )
        finally:
            await connection.close()
        return row[0], row[1]


def _difference(after: Mapping[Key, int], before: Mapping[Key, int]) -> dict[Key, int]:
    return {key: value - before.get(key, 0) for key, value in after.items()}

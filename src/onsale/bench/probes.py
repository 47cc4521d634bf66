"""What is read before and after a turn: CPU from /proc, the API's metrics, sizes of the stores."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

import asyncpg
import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from onsale.bench.errors import BenchError
from onsale.domain.order import OrderStatus

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


def resident_bytes(pid: int) -> int:
    """Memory that a process occupies now. Raises `BenchError` where it cannot be read."""
    try:
        pages = int((_PROC / str(pid) / "statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        raise BenchError(f"the memory of process {pid} cannot be read from /proc") from None
    return pages * os.sysconf("SC_PAGE_SIZE")


class ApiCounters(NamedTuple):
    """Counters of API processes; `batches` and `batched` are by stage, `answers` by status."""

    answers: Mapping[int, int]
    in_flight: int
    batches: Mapping[str, int]
    batched: Mapping[str, int]

    @classmethod
    def scrape(cls, metrics_ports: Iterable[int], route: str) -> Self:
        """What the processes say now, added up; `answers` are those of one route."""
        pages = [
            httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10, trust_env=False).text
            for port in metrics_ports
        ]
        return cls.parse(pages, route)

    @classmethod
    def parse(cls, pages: Iterable[str], route: str) -> Self:
        """The counters of metrics pages, added up."""
        answers: Counter[int] = Counter()
        batches: Counter[str] = Counter()
        batched: Counter[str] = Counter()
        in_flight = 0
        for name, labels, value in _samples(pages):
            match name:
                case "onsale_http_requests_total" if labels["route"] == route:
                    answers[int(labels["status"])] += value
                case "onsale_http_requests_in_flight":
                    in_flight += value
                case "onsale_batch_size_count":
                    batches[labels["stage"]] += value
                case "onsale_batch_size_sum":
                    batched[labels["stage"]] += value
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
    """What the stores hold: orders of one kind, and bytes in all."""

    orders: int
    postgres_bytes: int
    redis_bytes: int

    def since(self, before: "Holdings") -> "Holdings":
        """By how much it grew between two looks."""
        return Holdings(*(now - then for now, then in zip(self, before, strict=True)))


@dataclass(frozen=True)
class Stores:
    """Both stores, looked at from outside of the service."""

    database_url: str
    redis_url: str

    def holdings_of_events(self, event_ids: Sequence[str], status: OrderStatus) -> Holdings:
        """What there is now, with the events' orders in that status."""
        return self._holdings("public", "event_id = ANY($1) AND status = $2", event_ids, status)

    def holdings_of_schema(self, schema: str) -> Holdings:
        """What there is now, with every order of a peer."""
        return self._holdings(schema, "true")

    def _holdings(self, schema: str, condition: str, *values: object) -> Holdings:
        orders, postgres_bytes = asyncio.run(self._in_postgres(schema, condition, values))
        with Redis.from_url(self.redis_url) as redis:
            memory: dict[str, int] = redis.info("memory")
        # Of the keys alone: what connections and the log buffer comes and goes.
        return Holdings(orders, postgres_bytes, memory["used_memory_dataset"])

    async def _in_postgres(
        self, schema: str, condition: str, values: Iterable[object]
    ) -> tuple[int, int]:
        connection = await asyncpg.connect(driver_url(self.database_url))
        try:
            orders = await connection.fetchval(
                f"SELECT count(*) FROM {schema}.orders WHERE {condition}", *values
            )
            table_bytes = await connection.fetchval(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
                " WHERE relkind = 'r' AND relnamespace = $1::regnamespace",
                schema,
            )
        finally:
            await connection.close()
        return orders, int(table_bytes)


def driver_url(database_url: str) -> str:
    """The URL as asyncpg itself takes it."""
    return database_url.replace("+asyncpg", "", 1)


def _samples(pages: Iterable[str]) -> Iterator[tuple[str, Mapping[str, str], int]]:
    for page in pages:
        for family in text_string_to_metric_families(page):
            for name, labels, value, *_ in family.samples:
                yield name, labels, int(value)


def _difference(after: Mapping[Key, int], before: Mapping[Key, int]) -> dict[Key, int]:
    return {key: value - before.get(key, 0) for key, value in after.items()}

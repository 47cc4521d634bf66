"""What is read before and after a turn: CPU from /proc, the API's metrics, sizes of the stores."""

import asyncio
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
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
_TIMES_OF_ENDED_CHILDREN = slice(16 - 3, 17 - 3 + 1)
_HASH_TAG = re.compile(rb"{.*?}")
# Of the many entries of a key, which are all alike.
_MEMORY_SAMPLES = 100


def cpu_seconds(*pids: int) -> list[float]:
    """CPU that processes have used so far, each with its children, those that ended included.

    Raises `BenchError` where there is no /proc.
    """
    children, used_seconds = defaultdict(list), {}
    for entry in _PROC.glob("[0-9]*/stat"):
        number = int(entry.parent.name)
        try:
            fields = entry.read_text().rpartition(")")[2].split()
            own_seconds = time.clock_gettime(_cpu_clock(number))
        except OSError:  # it ended just now
            continue
        children[int(fields[_PARENT])].append(number)
        ended_ticks = sum(int(field) for field in fields[_TIMES_OF_ENDED_CHILDREN])
        used_seconds[number] = own_seconds + ended_ticks / os.sysconf("SC_CLK_TCK")

    def of_family(pid: int) -> float:
        return used_seconds[pid] + sum(of_family(child) for child in children[pid])

    missing = set(pids) - set(used_seconds)
    if missing:
        raise BenchError(f"the CPU time of process {missing.pop()} cannot be read from /proc")
    return [of_family(pid) for pid in pids]


def _cpu_clock(pid: int) -> int:
    """The clock of a process' CPU time, in nanoseconds where /proc counts hundredths of a second.

    As clock_getcpuclockid(3) makes it, which Python does not have for other processes.
    """
    return ~pid << 3 | 2


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
    """What the stores hold: some orders, all tables of their schema, the keys of their events."""

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

    def holdings_of_events(self, event_ids: Collection[str], status: OrderStatus) -> Holdings:
        """What there is now, with the events' orders in that status."""
        in_postgres = self._in_postgres(
            "public", "event_id = ANY($1) AND status = $2", event_ids, status
        )
        return Holdings(*asyncio.run(in_postgres), self._redis_bytes(event_ids))

    def holdings_of_schema(self, schema: str) -> Holdings:
        """What there is now, with every order of a peer, which has nothing in Redis."""
        return Holdings(*asyncio.run(self._in_postgres(schema, "true")), redis_bytes=0)

    def _redis_bytes(self, event_ids: Collection[str]) -> int:
        # All keys of an event have its id in braces, so that they stay together in a cluster.
        wanted = {f"{{{event_id}}}".encode() for event_id in event_ids}
        with Redis.from_url(self.redis_url) as redis:
            memory_usages = redis.pipeline(transaction=False)
            for key in redis.scan_iter(count=1_000):
                if not wanted.isdisjoint(_HASH_TAG.findall(key)):
                    memory_usages.memory_usage(key, samples=_MEMORY_SAMPLES)
            return sum(memory_usages.execute())

    async def _in_postgres(self, schema: str, condition: str, *values: object) -> tuple[int, int]:
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

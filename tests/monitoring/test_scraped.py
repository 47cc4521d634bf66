"""Rules ask only for what a real scrape of the real processes and exporters has."""

import re
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import REGISTRY

from monitoring.detection import is_settled, monitored, ordering
from onsale.demo.stack import Stack
from onsale.monitoring import MonitoringStack
from onsale.observability import metrics
from tests.monitoring.test_runbooks import rules
from tests.support import wait_until

assert metrics.build_info  # importing the catalogue is what fills the registry

# Strings, matchers, ranges and groupings: what an expression has besides metrics and functions.
NOT_METRICS = re.compile(
    r'"(?:[^"\\]|\\.)*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left)\s*\([^)]*\)'
)
METRIC = re.compile(r"\b(?!(?:and|or|unless|bool|offset)\b)[a-zA-Z_][\w:]*\b(?!\s*\()")

# Ours that a calm service does not have yet; tests/http/test_metrics.py sees each move.
OURS = {
    f"{family.name}{suffix}"
    for family in REGISTRY.collect()
    for suffix in ("", "_total", "_bucket")
}


def asked(expression: str) -> set[str]:
    """The series that an expression names."""
    return set(METRIC.findall(NOT_METRICS.sub(" ", expression)))


def unknown(expressions: list[str], scraped: set[str]) -> set[str]:
    """What is asked for and neither scraped nor recorded."""
    known = scraped | {rule["record"] for rule in rules("record")}
    return {name for expression in expressions for name in asked(expression)} - known


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, MonitoringStack]]:
    """Started before the loop runs, as the stack wants it."""
    with monitored(tmp_path_factory.mktemp("scraped"), scrape_seconds=1) as both:
        yield both


@pytest.fixture(scope="module")
async def scraped(watched: tuple[Stack, MonitoringStack]) -> set[str]:
    """The names of all series that Prometheus has after some orders, and the rules' own."""
    stack, monitoring = watched

    async def settled() -> bool:
        return await is_settled(monitoring)

    async with ordering(stack):
        await wait_until(settled, timeout_s=60)
        return await names(monitoring)


async def names(monitoring: MonitoringStack) -> set[str]:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(f"{monitoring.prometheus.url}/api/v1/label/__name__/values")
    return set(answer.json()["data"])


def test_every_rule_asks_for_what_there_is(scraped: set[str]) -> None:
    expressions = [rule["expr"] for kind in ("record", "alert") for rule in rules(kind)]
    assert unknown(expressions, scraped | OURS) == set()


def test_the_exporters_have_what_alerts_ask_of_them(scraped: set[str]) -> None:
    """Not by way of `OURS`: nothing of it is theirs."""
    theirs = {
        name
        for rule in rules("alert")
        for name in asked(rule["expr"])
        if name.startswith(("postgres_", "pg_", "redis_", "node_", "up", "process_"))
    }
    assert len(theirs) > 10
    assert theirs - scraped == set()


@pytest.mark.parametrize(
    "expression", ["sum(rate(onsale_order_total[5m]))", "postgres_connection_used > 1"]
)
def test_what_nothing_reports_is_found(expression: str) -> None:
    assert unknown([expression], OURS | {"postgres_connections_used"})

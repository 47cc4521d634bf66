"""The shipped files run natively, on real stores and exporters."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
from onsale.ledger.migrations import migrate
from onsale.monitoring import MonitoringStack, Service
from onsale.monitoring.configuration import prometheus_files
from tests.monitoring.test_dashboards import running_exporter
from tests.support import wait_until


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitoringStack]:
    """The stack beside real stores and a stand-in for the service's processes."""
    folder = tmp_path_factory.mktemp("monitored")
    with (
        EmbeddedPostgres(folder / "postgres") as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
        running_exporter() as port,
    ):
        migrate(postgres.url)
        address = f"127.0.0.1:{port}"
        service = Service([address], [address], postgres.url, valkey.url)
        with MonitoringStack(folder / "monitoring", service) as stack:
            yield stack


def values(stack: MonitoringStack, query: str) -> dict[str, float]:
    """The newest value of a query's lines, by job."""
    answer = httpx.get(f"{stack.prometheus.url}/api/v1/query", params={"query": query}).json()
    return {
        line["metric"].get("job", ""): float(line["value"][1]) for line in answer["data"]["result"]
    }


async def test_every_job_is_scraped(monitoring: MonitoringStack) -> None:
    jobs = {
        "onsale-api",
        "onsale-worker",
        "postgres",
        "redis",
        "node",
        "alertmanager",
        "prometheus",
    }

    async def all_up() -> bool:
        return values(monitoring, "up") == dict.fromkeys(jobs, 1.0)

    await wait_until(all_up)


def test_every_query_of_postgres_is_answered(monitoring: MonitoringStack) -> None:
    scraped = httpx.get(f"{monitoring.exporters['postgres'].url}/metrics").text
    assert "pg_exporter_last_scrape_error 0" in scraped
    for name in (
        "postgres_connections_used",
        "postgres_transactions_longest_seconds",
        "postgres_lock_waits_sessions",
        "postgres_wal_sync_seconds_total",
        "postgres_database_commits_total",
        "postgres_checkpoints_timed_total",
        "postgres_table_live_rows",
    ):
        assert f"\n{name}{{" in scraped, name


def test_prometheus_has_its_alertmanager(monitoring: MonitoringStack) -> None:
    assert monitoring.alertmanager is not None
    found = httpx.get(f"{monitoring.prometheus.url}/api/v1/alertmanagers").json()["data"]
    (active,) = found["activeAlertmanagers"]
    assert active["url"].startswith(monitoring.alertmanager.url)


def runbooks(stack: MonitoringStack) -> list[str]:
    """The first line of the page behind each alert."""
    alerts = httpx.get(f"{stack.prometheus.url}/api/v1/alerts").json()["data"]["alerts"]
    pages = (httpx.get(alert["annotations"]["runbook_url"]) for alert in alerts)
    return [page.raise_for_status().text.splitlines()[0] for page in pages]


async def test_an_alert_links_to_a_page_that_is_there(monitoring: MonitoringStack) -> None:
    """Of the watchdog, which always fires."""

    async def told() -> bool:
        return "# Watchdog" in runbooks(monitoring)

    await wait_until(told, timeout_s=30)


def test_a_job_that_is_not_shipped_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="onsale-apy"):
        prometheus_files({"onsale-apy": ["127.0.0.1:1"]})


def test_a_program_that_is_missing_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    service = Service(["127.0.0.1:1"], [], "postgresql+asyncpg:///none", "redis://none")
    stack = MonitoringStack(tmp_path, service)
    assert [monitor.name for monitor in stack.monitors] == ["Prometheus"]

"""The programs of PATH that watch the service: started, asked, stopped, and named when missing."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from onsale.embedded import (
    Alertmanager,
    EmbeddedError,
    EmbeddedPostgres,
    EmbeddedValkey,
    Monitor,
    NodeExporter,
    PostgresExporter,
    Prometheus,
    RedisExporter,
)
from onsale.embedded.monitors import postgres_source

QUERIES = """
probe:
  query: SELECT 42 AS answer
  metrics:
    - answer: {usage: GAUGE, description: "Of everything."}
"""

Make = Callable[[Path], Monitor]


def scraped(monitor: Monitor) -> str:
    return httpx.get(f"{monitor.url}/metrics").text


@pytest.mark.parametrize(
    ("make", "metric"),
    [
        pytest.param(
            lambda path: Prometheus(path, files={"prometheus.yml": ""}),
            "prometheus_build_info",
            id="prometheus",
        ),
        pytest.param(
            lambda path: Alertmanager(
                path, files={"alertmanager.yml": "{route: {receiver: a}, receivers: [{name: a}]}"}
            ),
            "alertmanager_build_info",
            id="alertmanager",
        ),
        pytest.param(NodeExporter, "node_cpu_seconds_total", id="node"),
    ],
)
def test_it_answers_until_it_is_stopped(make: Make, metric: str, tmp_path: Path) -> None:
    with make(tmp_path / "data") as monitor:
        assert metric in scraped(monitor)
        assert monitor.is_running
    with pytest.raises(httpx.ConnectError):
        scraped(monitor)
    with monitor:
        assert metric in scraped(monitor)


def test_prometheus_takes_what_others_write_to_it(tmp_path: Path) -> None:
    with Prometheus(tmp_path / "data", files={"prometheus.yml": ""}) as prometheus:
        # Not a good message, and at a door that is open: a closed one answers 404.
        assert httpx.post(prometheus.remote_write_url, content=b"?").status_code == 400
        flags = httpx.get(f"{prometheus.url}/api/v1/status/flags").json()["data"]
        assert "native-histograms" in flags["enable-feature"]


def test_the_redis_exporter_sees_the_gate(tmp_path: Path) -> None:
    with (
        EmbeddedValkey(tmp_path / "valkey") as valkey,
        RedisExporter(tmp_path / "exporter", valkey.url) as exporter,
    ):
        assert "\nredis_up 1" in scraped(exporter)
        valkey.kill()
        assert "\nredis_up 0" in scraped(exporter)


def test_the_postgres_exporter_asks_its_queries(tmp_path: Path) -> None:
    with (
        EmbeddedPostgres(tmp_path / "postgres") as postgres,
        PostgresExporter(tmp_path / "exporter", postgres.url, queries=QUERIES) as exporter,
    ):
        assert "probe_answer{" in scraped(exporter)
        assert "\npg_up 1" in scraped(exporter)
        postgres.kill()
        assert "\npg_up 0" in scraped(exporter)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        (
            "postgresql+asyncpg://onsale:p%40ss@db:5433/onsale",
            "postgresql://onsale:p%40ss@db:5433/onsale?sslmode=disable",
        ),
        (
            "postgresql+asyncpg://onsale@/onsale?host=/run/a+b&ssl=require",
            "postgresql://onsale@/onsale?host=%2Frun%2Fa+b&sslmode=require",
        ),
    ],
)
def test_a_url_of_ours_is_one_of_the_exporters(url: str, source: str) -> None:
    assert postgres_source(url) == f"{source}&application_name=onsale-monitor"


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedError, match="apt-get install prometheus-alertmanager"):
        Alertmanager(tmp_path / "data").start()


def test_what_is_wrong_with_a_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"Prometheus did not start: .*patience"):
        Prometheus(tmp_path / "data", files={"prometheus.yml": "{patience: 1s}"}).start()

"""Everything that watches a service, as processes of this machine that end with this one."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from onsale.embedded import (
    Alertmanager,
    EmbeddedError,
    Grafana,
    Monitor,
    NodeExporter,
    PostgresExporter,
    Prometheus,
    RedisExporter,
)
from onsale.monitoring.configuration import (
    alertmanager_files,
    grafana_files,
    postgres_queries,
    prometheus_files,
)
from onsale.monitoring.service import Service

_PROGRAMS: tuple[type[Monitor], ...] = (
    Prometheus,
    Alertmanager,
    NodeExporter,
    RedisExporter,
    PostgresExporter,
)


def missing_packages() -> list[str]:
    """The Debian packages of programs that are not on PATH."""
    return [program.package for program in _PROGRAMS if not _is_here(program)]


def _is_here(program: type[Monitor]) -> bool:
    try:
        program.find()
    except EmbeddedError:
        return False
    return True


class MonitoringStack:
    """Prometheus, and what else is on PATH, beside a service; a context that starts and stops it.

    `prometheus`, `alertmanager` and `grafana` (`None` where it is missing) are theirs who ask for
    `url`, `remote_write_url` and `pid`. A port of 0 takes any that is free. Raises `EmbeddedError`.
    """

    def __init__(
        self,
        data_dir: Path,
        service: Service,
        *,
        prometheus_port: int = 0,
        alertmanager_port: int = 0,
        grafana_port: int = 0,
        scrape_seconds: int | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._data_dir = data_dir
        self._service = service
        self._scrape_seconds = scrape_seconds
        self._tell = tell
        self._exits = ExitStack()
        self.alertmanager = self._alertmanager(alertmanager_port)
        self.exporters = self._exporters()
        self.prometheus = self._prometheus(prometheus_port)
        self.grafana = self._grafana(grafana_port)

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            for monitor in self.monitors:
                self._tell(f"starting {monitor.name}")
                exits.enter_context(monitor)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()

    @property
    def monitors(self) -> list[Monitor]:
        """All of them, in the order of their start."""
        found = [*self.exporters.values(), self.alertmanager, self.prometheus, self.grafana]
        return [monitor for monitor in found if monitor is not None]

    def died(self) -> Monitor | None:
        """One that ended by itself, or `None` while all is well."""
        return next((monitor for monitor in self.monitors if not monitor.is_running), None)

    def _alertmanager(self, port: int) -> Alertmanager | None:
        if not _is_here(Alertmanager):
            return None
        return Alertmanager(self._data_dir / "alertmanager", port=port, files=alertmanager_files())

    def _exporters(self) -> dict[str, Monitor]:
        """The exporters that are here, by the name of the job that scrapes them."""
        here: dict[str, Monitor] = {}
        if _is_here(NodeExporter):
            here["node"] = NodeExporter(self._data_dir / "node-exporter")
        if _is_here(RedisExporter):
            here["redis"] = RedisExporter(
                self._data_dir / "redis-exporter", self._service.redis_url
            )
        if _is_here(PostgresExporter):
            here["postgres"] = PostgresExporter(
                self._data_dir / "postgres-exporter",
                self._service.database_url,
                queries=postgres_queries(),
            )
        return here

    def _prometheus(self, port: int) -> Prometheus:
        prometheus = Prometheus(self._data_dir / "prometheus", port=port)
        alertmanagers = [self.alertmanager.address] if self.alertmanager else []
        targets = {
            "onsale-api": self._service.api,
            "onsale-worker": self._service.workers,
            "alertmanager": alertmanagers,
            "prometheus": [prometheus.address],
        } | {job: [exporter.address] for job, exporter in self.exporters.items()}
        prometheus.files |= prometheus_files(targets, alertmanagers, self._scrape_seconds)
        return prometheus

    def _grafana(self, port: int) -> Grafana | None:
        if not _is_here(Grafana):
            return None
        grafana = Grafana(self._data_dir / "grafana", port=port)
        grafana.files |= grafana_files(self.prometheus.url, f"{grafana.here}/dashboards")
        return grafana

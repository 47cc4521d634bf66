"""Reads the stages of a run from Prometheus."""

from onsale.bottleneck.engine import Load, Observed, Reading, Verdict, judge
from onsale.bottleneck.stages import (
    CLIENT_MEAN,
    CLIENT_SECONDS,
    LOOP_SECONDS,
    SERVED_MEAN,
    SERVER_MEAN,
    SERVER_SECONDS,
    STAGES,
    Signal,
    Stage,
)
from onsale.report import Prometheus, Run


def read_verdict(prometheus: Prometheus, run: Run) -> Verdict:
    """What limited a run, by the metrics alone. Raises `ReportError`."""
    reader = _Reader(prometheus, run)
    return judge([reader.observed(stage) for stage in STAGES], reader.load())


class _Reader:
    """One run, from its first buyer to its last."""

    def __init__(self, prometheus: Prometheus, run: Run) -> None:
        self._prometheus, self._run = prometheus, run
        self._begin = run.phases[0].begin if run.phases else run.begin
        self._end = run.phases[-1].end if run.phases else run.end

    def observed(self, stage: Stage) -> Observed:
        readings = tuple(self._reading(signal) for signal in stage.signals)
        lost = None if stage.lost is None else self._over_all(stage.lost) or 0.0
        part = 1.0 if stage.part is None else self._over_all(stage.part) or 0.0
        return Observed(stage, readings, lost, part)

    def load(self) -> Load:
        run = self._run
        server = self._over_all(SERVER_SECONDS) or 0.0
        client = self._over_all(CLIENT_SECONDS) if run.testid else None
        mean = self._over_all(CLIENT_MEAN) if run.testid else None
        return Load(
            seconds=self._end - self._begin,
            points=int((self._end - self._begin) / run.step_seconds) + 1,
            client_seconds=client or server,
            client_mean_seconds=mean or self._over_all(SERVER_MEAN) or 0.0,
            server_seconds=server,
            loop_seconds=self._over_all(LOOP_SECONDS) or 0.0,
            served_mean_seconds=self._over_all(SERVED_MEAN),
            generator_strain=run.generator.strain if run.generator else None,
            dropped=run.dropped,
        )

    def _reading(self, signal: Signal) -> Reading:
        query = _filled_in(signal.query, self._run.variables)
        found = self._prometheus.over(query, self._begin, self._end, self._run.step_seconds)
        points = found[0].points if found else ()
        return Reading(signal, query, [(at - self._begin, value) for at, value in points])

    def _over_all(self, query: str) -> float | None:
        """One value for the whole run."""
        whole = {"__rate_interval": f"{max(self._end - self._begin, 2):.0f}s"}
        filled_in = _filled_in(query, self._run.variables | whole)
        found = self._prometheus.over(filled_in, self._end, self._end, 1)
        return found[0].points[0][1] if found else None


def _filled_in(query: str, variables: dict[str, str]) -> str:
    """The query as Grafana would send it."""
    for name, value in variables.items():
        query = query.replace(f"${name}", value)
    return query

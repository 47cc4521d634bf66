"""When a run was, which phases it had, which alerts fired, and what the books said after it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from onsale.loadtests import GeneratorUse
from onsale.report.errors import ReportError
from onsale.report.prometheus import Prometheus, Series

# A run that nobody names is looked for in this time.
_SEARCH_SECONDS = 86_400.0
# Before and after the run: what it was like before, and what was still on its way.
_MARGIN_SECONDS = 3.0
_MARGIN_SHARE = 0.05
# As many as a plot has room for.
_POINTS_MAX = 240
_EVERYTHING = ".+"
# Scrapes are 5 s apart as shipped.
_SCRAPE_SECONDS_MAX = 12.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Span:
    """Something with a name that lasted from `begin` to `end`, in Unix time."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Run:
    """What is reported: the time from `begin` to `end`, and which run of k6 it is about, if any."""

    begin: float
    end: float
    testid: str | None
    phases: tuple[Span, ...]
    alerts: tuple[Span, ...]
    events: tuple[str, ...]
    generator: GeneratorUse | None
    dropped: int
    scrape_seconds: float

    @property
    def step_seconds(self) -> float:
        """The distance of two points of a plot."""
        return max(self.scrape_seconds, round((self.end - self.begin) / _POINTS_MAX))

    @property
    def variables(self) -> dict[str, str]:
        """What Grafana's variables stand for."""
        # As in Grafana: four scrapes, so that one that is missed leaves no hole.
        rate_seconds = max(4 * self.scrape_seconds, self.step_seconds + self.scrape_seconds)
        return {
            "__rate_interval": f"{rate_seconds:.0f}s",
            "__range": f"{self.end - self.begin:.0f}s",
            "event": "|".join(self.events) or _EVERYTHING,
            "instance": _EVERYTHING,
            "testid": self.testid or _EVERYTHING,
        }


@dataclass(frozen=True)
class _Window:
    """Where to look: a run of k6, or a time without one."""

    begin: float
    end: float
    testid: str | None
    phases: tuple[Span, ...]

    @classmethod
    def of(cls, testid: str, phases: Sequence[Span]) -> Self:
        begin, end = phases[0].begin, phases[-1].end
        margin = _MARGIN_SECONDS + _MARGIN_SHARE * (end - begin)
        return cls(begin - margin, end + margin, testid, tuple(phases))


def find_run(
    prometheus: Prometheus,
    *,
    testid: str | None = None,
    minutes: float | None = None,
    between: tuple[float, float] | None = None,
) -> Run:
    """The run of k6 that is called `testid`, or the newest; or all of the last `minutes`, or all
    `between` two Unix times.

    Raises `ReportError` when there is none.
    """
    if between is not None:
        window = _Window(*between, None, ())
    elif minutes is not None:
        now = time.time()
        window = _Window(now - 60 * minutes, now, None, ())
    else:
        window = _window_of(prometheus, testid)
    scrape_seconds = prometheus.scrape_seconds(window.end, window.end - window.begin)
    return Run(
        begin=window.begin,
        end=window.end,
        testid=window.testid,
        phases=window.phases,
        alerts=_alerts(prometheus, window, scrape_seconds),
        events=_events(prometheus, window),
        generator=_generator(prometheus, window),
        dropped=_dropped(prometheus, window),
        scrape_seconds=scrape_seconds,
    )


def await_scrape(prometheus: Prometheus, at: float) -> None:
    """Wait until the service was scraped after a moment, or is not scraped any more."""
    deadline = time.monotonic() + _SCRAPE_SECONDS_MAX
    while time.monotonic() < deadline:
        found = prometheus.samples('up{job=~"onsale-.+"}', time.time(), _SCRAPE_SECONDS_MAX)
        if found and all(series.points[-1][0] >= at for series in found):
            return
        time.sleep(_POLL_SECONDS)


def _window_of(prometheus: Prometheus, testid: str | None) -> _Window:
    selector = f'k6_phase{{testid="{testid}"}}' if testid else "k6_phase"
    found = prometheus.samples(selector, time.time(), _SEARCH_SECONDS)
    if not found:
        wanted = f"run {testid}" if testid else "run"
        raise ReportError(
            f"Prometheus at {prometheus.url} knows of no {wanted} in the last"
            f" {_SEARCH_SECONDS / 3600:.0f} hours; give --minutes for a report without one"
        )
    newest = max(found, key=lambda series: series.points[-1][0]).labels["testid"]
    return _Window.of(newest, _phases([s for s in found if s.labels["testid"] == newest]))


def _phases(series: Sequence[Series]) -> list[Span]:
    """Each from its first sample to the first of the next: k6 sends one a second."""
    begun = sorted((each.points[0][0], each.points[-1][0], each.labels["phase"]) for each in series)
    ends = [begin for begin, _, _ in begun[1:]] + [max(last for _, last, _ in begun)]
    return [Span(name, begin, end) for (begin, _, name), end in zip(begun, ends, strict=True)]


def _alerts(prometheus: Prometheus, window: _Window, step_seconds: float) -> tuple[Span, ...]:
    """What fired, each time that it did, besides the watchdog, which always does."""
    query = 'max by (alertname)(ALERTS{alertstate="firing",alertname!="Watchdog"})'
    spans = [
        span
        for series in prometheus.over(query, window.begin, window.end, step_seconds)
        for span in unbroken(series, step_seconds)
    ]
    return tuple(sorted(spans, key=lambda span: span.begin))


def unbroken(series: Series, step_seconds: float) -> list[Span]:
    """The times in which a line has a point at every step."""
    name = series.labels.get("alertname", "")
    spans: list[Span] = []
    for at, _ in series.points:
        if spans and at - spans[-1].end <= 1.5 * step_seconds:
            spans[-1] = Span(name, spans[-1].begin, at)
        else:
            spans.append(Span(name, at, at))
    return spans


def _events(prometheus: Prometheus, window: _Window) -> tuple[str, ...]:
    """The events that were asked for orders; others are not about this run."""
    query = f"sum by (event)(increase(onsale_orders_total[{window.end - window.begin:.0f}s])) > 0"
    found = prometheus.over(query, window.end, window.end, 1)
    return tuple(sorted(series.labels["event"] for series in found))


def _dropped(prometheus: Prometheus, window: _Window) -> int:
    """Buyers that k6 had no virtual user free for; it may say so in a single sample."""
    selector = f'k6_dropped_iterations_total{{testid="{window.testid}"}}'
    found = prometheus.samples(selector, window.end, window.end - window.begin)
    return round(sum(series.points[-1][1] for series in found))


def _generator(prometheus: Prometheus, window: _Window) -> GeneratorUse | None:
    """What k6 used from the first buyer on; `None` where nobody watched it."""
    if window.testid is None:
        return None
    begin = window.phases[0].begin

    def used(metric: str) -> list[tuple[float, float]]:
        selector = f'{metric}{{testid="{window.testid}"}}'
        found = prometheus.samples(selector, window.end, window.end - begin)
        return list(found[0].points) if found else []

    cpu, wait = used("k6_process_cpu_seconds_total"), used("k6_process_cpu_wait_seconds_total")
    cpus = used("k6_process_cpus")
    if not (cpu and wait and cpus):
        return None
    # Over a second and more: the clock that CPU is counted by is a coarse one.
    rates = [
        (after[1] - before[1]) / (after[0] - before[0])
        for before, after in zip(cpu, cpu[2:], strict=False)
    ]
    return GeneratorUse(
        cpus=round(cpus[-1][1]),
        cpu_seconds=cpu[-1][1] - cpu[0][1],
        wait_seconds=wait[-1][1] - wait[0][1],
        peak_cpus=max(rates, default=0),
        idle_share=_idle_share(prometheus, begin, window.phases[-1].end),
    )


def _idle_share(prometheus: Prometheus, begin: float, end: float) -> float:
    """What the host had left of its cores; 0 where no exporter says so."""
    query = f'avg(rate(node_cpu_seconds_total{{mode="idle"}}[{max(end - begin, 2):.0f}s]))'
    found = prometheus.over(query, end, end, 1)
    return found[0].points[0][1] if found else 0.0

"""Runs one scenario with k6 as a child process and says how it goes meanwhile."""

import os
import re
import resource
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from onsale.embedded import EmbeddedError, find_k6, free_port, spawn_child, stop_child
from onsale.loadtests.errors import LoadTestError
from onsale.loadtests.generator import Watch, cpus
from onsale.loadtests.remote_write import RemoteWriter
from onsale.loadtests.scenarios import Scenario, scripts_dir
from onsale.loadtests.summary import (
    OUTCOME_PREFIX,
    THRESHOLDS_FAILED_EXIT_CODE,
    LoadResult,
    Run,
    read_result,
)

PROGRESS_INTERVAL_SECONDS = 0.5
# For each of the seven counters: a k6 that is starved still is watched every few seconds.
_LOOK_SECONDS_MAX = 0.25
# k6 sums up and writes its report; at the end of a long run that takes a moment.
STOP_SECONDS_MAX = 20.0
# Counters alone, one by one: k6's list of all metrics would sort every latency at each look.
PROGRESS_OUTCOMES = ("held", "confirmed", "sold_out", "unexpected")
# The collector of Go runs four times as rarely, which is where k6's own pauses come from, and
# more often again near the limit.
_K6_DEFAULTS = {"GOGC": "400", "GOMEMLIMIT": "1536MiB"}


@dataclass(frozen=True)
class Progress:
    """How far a run is. Counts are since its start; the rate is since the last look.

    `elapsed_seconds` includes the second or so in which k6 makes its VUs.
    """

    elapsed_seconds: float
    requests: int
    requests_per_second: float
    buyers: int
    dropped_iterations: int
    outcomes: dict[str, int] = field(default_factory=dict)


def run_k6(
    scenario: Scenario,
    *,
    base_url: str,
    event_id: str,
    tier_ids: Sequence[str],
    auth_secret: str,
    stock: int,
    buyers: int,
    seconds: int,
    report_dir: Path,
    prometheus_url: str | None = None,
    env: Mapping[str, str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> LoadResult:
    """Send `buyers` at an event within `seconds` and return what they met; blocks until the end.

    The event exists, is on sale, is of `scenario.payment`'s kind and has `stock` tickets left
    over all its tiers. `env` sets what `loadtest/README.md` lists, or k6's own variables.
    `report_dir` is made if need be and gets `summary.json`, `report.html` and `k6.log`.
    The Prometheus at `prometheus_url` is sent everything that k6 measures, once a second, and what
    k6 itself uses; all of it has the label `testid`, as the result has.
    `on_progress` is called about twice a second. Its exceptions, like Ctrl-C, end k6 and pass on.

    Failed thresholds are a result. Raises `LoadTestError` when k6 could not run, or gave up.
    """
    files = _Files.fresh(report_dir)
    settings = {
        "BASE_URL": base_url,
        "EVENT_ID": event_id,
        "TIER_IDS": ",".join(tier_ids),
        "ONSALE_AUTH_SECRET": auth_secret,
        "STOCK": str(stock),
        "BUYERS": str(buyers),
        "DURATION_SECONDS": str(seconds),
        "RUN_ID": secrets.token_hex(4),
        "SUMMARY_PATH": str(files.summary),
    }
    cpu_seconds_before = _children_cpu_seconds()
    with ExitStack() as exits:
        writer = None
        if prometheus_url is not None:
            labels = {"testid": settings["RUN_ID"]}
            writer = exits.enter_context(RemoteWriter(prometheus_url, labels))
            # Before k6 starts: one that takes no samples is found out now.
            writer.write({"k6_process_cpus": cpus(os.getpid())}, time.time())
            settings |= _remote_write(writer.write_url)
        run = exits.enter_context(_K6Run(scenario, settings | dict(env or {}), files, writer))
        began_at = time.time()
        exit_code = run.watch(on_progress or (lambda progress: None))
        ended_at = time.time()
    cpu_seconds = _children_cpu_seconds() - cpu_seconds_before
    if exit_code not in (0, THRESHOLDS_FAILED_EXIT_CODE):
        raise LoadTestError(
            f"k6 ended with status {exit_code}: {_last_error(files.log)} (log: {files.log})"
        )
    return read_result(
        files.summary,
        report=files.report,
        k6_exit_code=exit_code,
        k6_cpu_seconds=cpu_seconds,
        run=Run(settings["RUN_ID"], buyers, began_at, ended_at, run.generator.result()),
    )


@dataclass(frozen=True)
class _Files:
    """What a run writes; absolute, because k6 reads relative paths its own way."""

    summary: Path
    report: Path
    log: Path

    @classmethod
    def fresh(cls, folder: Path) -> Self:
        """The files' places in `folder`, empty: nothing of an earlier run is taken for ours."""
        folder = folder.resolve()
        files = cls(folder / "summary.json", folder / "report.html", folder / "k6.log")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in (files.summary, files.report, files.log):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise LoadTestError(f"{folder} cannot hold the report: {error.strerror}") from None
        return files


class _K6Run:
    """A running k6; leaving the context ends it, in good order if it still runs."""

    def __init__(
        self,
        scenario: Scenario,
        settings: dict[str, str],
        files: _Files,
        writer: RemoteWriter | None,
    ) -> None:
        api = f"127.0.0.1:{free_port()}"
        argv = ["run", "--quiet", "--no-color", "--no-usage-report", f"--address={api}"]
        argv += [f"--tag=testid={settings['RUN_ID']}", str(_script(scenario))]
        try:
            self._process = spawn_child(
                [find_k6(), *argv],
                env=_K6_DEFAULTS | os.environ | _dashboard(files.report) | settings,
                log_path=files.log,
            )
        except (EmbeddedError, OSError) as error:
            raise LoadTestError(f"k6 cannot be run: {error}") from None
        self.generator = Watch(self._process.pid)
        self._writer = writer
        # Not through a proxy that the environment may name.
        self._api = httpx.Client(
            base_url=f"http://{api}/v1/metrics", timeout=_LOOK_SECONDS_MAX, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._api.close()
        if self._process.poll() is None:
            stop_child(
                self._process,
                with_signal=signal.SIGINT,
                timeout_seconds=STOP_SECONDS_MAX,
            )

    def watch(self, on_progress: Callable[[Progress], None]) -> int:
        """Report until k6 has ended; returns its exit status."""
        started = time.monotonic()
        last = Progress(0.0, 0, 0.0, 0, 0)
        while True:
            try:
                return self._process.wait(PROGRESS_INTERVAL_SECONDS)
            except subprocess.TimeoutExpired:
                # Before k6 is asked: one that is starved, which is to be seen, answers late.
                self._watch_generator(working=last.buyers > 0)
                last = self._look(time.monotonic() - started, last)
                on_progress(last)

    def _watch_generator(self, *, working: bool) -> None:
        at_seconds = time.time()
        use = self.generator.look(at_seconds, working=working)
        if self._writer is not None:
            # What Prometheus misses of a run is no reason to break it off.
            with suppress(LoadTestError):
                self._writer.write(
                    {
                        "k6_process_cpus": self.generator.cpus,
                        "k6_process_cpu_seconds_total": use.cpu_seconds,
                        "k6_process_cpu_wait_seconds_total": use.wait_seconds,
                    },
                    at_seconds,
                )

    def _look(self, elapsed_seconds: float, last: Progress) -> Progress:
        try:
            requests = self._counter("http_reqs")
            return Progress(
                elapsed_seconds=elapsed_seconds,
                requests=requests,
                requests_per_second=(requests - last.requests)
                / (elapsed_seconds - last.elapsed_seconds),
                buyers=self._counter("buyers"),
                dropped_iterations=self._counter("dropped_iterations"),
                outcomes={name: self._counter(OUTCOME_PREFIX + name) for name in PROGRESS_OUTCOMES},
            )
        except httpx.TransportError:  # k6 is starting or summing up: nothing new
            return replace(last, elapsed_seconds=elapsed_seconds, requests_per_second=0.0)

    def _counter(self, name: str) -> int:
        answer = self._api.get(f"/{name}")
        if answer.status_code == httpx.codes.NOT_FOUND:  # nothing was added to it yet
            return 0
        return int(answer.raise_for_status().json()["data"]["attributes"]["sample"]["count"])


def _dashboard(report: Path) -> dict[str, str]:
    """k6's HTML report: no port, and a period short enough for short runs to have one."""
    return {
        "K6_WEB_DASHBOARD": "true",
        "K6_WEB_DASHBOARD_PORT": "-1",
        "K6_WEB_DASHBOARD_PERIOD": "1s",
        "K6_WEB_DASHBOARD_EXPORT": str(report),
    }


def _remote_write(url: str) -> dict[str, str]:
    """k6's own output to Prometheus: trends as native histograms, ended where the run ends."""
    return {
        "K6_OUT": "experimental-prometheus-rw",
        "K6_PROMETHEUS_RW_SERVER_URL": url,
        "K6_PROMETHEUS_RW_TREND_AS_NATIVE_HISTOGRAM": "true",
        "K6_PROMETHEUS_RW_PUSH_INTERVAL": "1s",
        "K6_PROMETHEUS_RW_STALE_MARKERS": "true",
    }


def _script(scenario: Scenario) -> Path:
    script = scripts_dir() / "scenarios" / f"{scenario.name}.js"
    if not script.is_file():
        raise LoadTestError(f"there is no script for {scenario.name} at {script}")
    return script


def _children_cpu_seconds() -> float:
    """CPU of this process's children that have ended: k6, when no other ends meanwhile."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _last_error(log: Path) -> str:
    errors = re.findall(r'level=error msg="((?:[^"\\]|\\.)*)"', log.read_text(errors="replace"))
    if not errors:
        return "it did not say why"
    return str(errors[-1]).split("\\n", maxsplit=1)[0].removeprefix("Error: ")

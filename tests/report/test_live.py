"""Every panel gets an answer from a real run, and the page about it shows what happened.

One checkout on the whole stack, watched by a real Prometheus with all of its exporters, and told by
k6: what Grafana would ask is asked here.
"""

import asyncio
import json
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from onsale.bottleneck import read_verdict
from onsale.demo.client import ServiceClient
from onsale.demo.sale import Verdict, run_sale
from onsale.demo.stack import Stack
from onsale.loadtests import SCENARIOS
from onsale.monitoring import MonitoringStack
from onsale.observability.runtime import stop
from onsale.report import Prometheus, Run, await_scrape, find_run, write_report
from onsale.report.dashboards import Dashboard, Panel, Query, read_dashboards
from onsale.report.plots import draw
from tests.monitoring.promtool import Moment, Series, case, complaints
from tests.monitoring.test_dashboards import TEXTS, filled_in, label_values

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on PATH")

# What is rightly empty in a run of seconds in which nothing is wrong, by panel and legend; and the
# series that provoke it, with the labels of what is shown then.
EMPTY_IN_CALM: dict[tuple[str, str], tuple[Series, str]] = {
    # Recorded every five minutes.
    ("Budget left of 30 days", "{{slo}}"): (
        {'onsale_http_requests_total{route="/v1/events",status="200"}': "0+60x60"},
        '{slo="availability"}',
    ),
    ("Alerts", "{{alertname}}"): (
        {'up{job="onsale-api",instance="a"}': "0x60"},
        '{alertname="OnsaleTargetDown"}',
    ),
}


@dataclass(frozen=True)
class Watched:
    """A run that is over, and the Prometheus that watched it, still there."""

    prometheus: Prometheus
    run: Run
    verdict: Verdict


@dataclass
class Watcher:
    """The service and the Prometheus beside it."""

    client: ServiceClient
    stack: Stack
    url: str

    def run(self, scenario: str, folder: Path, **env: str) -> Watched:
        """Send a scenario for a few seconds, and wait until it was scraped to its end."""
        verdict = run_sale(
            SCENARIOS[scenario],
            self.client,
            base_url=self.stack.base_url,
            auth_secret=self.stack.auth_secret,
            stock=200,
            buyers=300,
            seconds=4,
            report_dir=folder,
            env={"LATENCY_P95_MS_MAX": "10000", "LATENCY_P99_MS_MAX": "10000"} | env,
            on_progress=lambda progress: None,
            prometheus_url=self.url,
        )
        prometheus = Prometheus(self.url)
        await_scrape(prometheus, verdict.load.run.ended_at + 1)
        return Watched(prometheus, find_run(prometheus, testid=verdict.load.run.testid), verdict)


@pytest.fixture(scope="module")
def watcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watcher]:
    """The stack and its Prometheus."""
    folder = tmp_path_factory.mktemp("watched")
    with (
        Stack(folder / "stack", secrets.token_hex(32)) as stack,
        MonitoringStack(folder / "monitoring", stack.service, scrape_seconds=1) as monitoring,
    ):
        # Prometheus looks for its targets five seconds after its start.
        await_scrape(Prometheus(monitoring.prometheus.url), time.time())
        client = ServiceClient(stack.base_url, stack.auth_secret)
        yield Watcher(client, stack, monitoring.prometheus.url)


@asynccontextmanager
async def session_at_work(database_url: str) -> AsyncIterator[None]:
    """A session that every scrape meets at work; whether one meets any of the sale's is chance."""
    engine = create_async_engine(database_url, poolclass=NullPool)
    async with engine.connect() as connection:
        work = asyncio.create_task(connection.execute(text("SELECT pg_sleep(3600)")))
        try:
            yield
        finally:
            await stop(work)


@pytest.fixture(scope="module")
async def watched(watcher: Watcher, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A checkout: holds, payments, declined cards, holds given back; and a session at work."""
    folder = tmp_path_factory.mktemp("checkout")
    async with session_at_work(watcher.stack.database_url):
        return await asyncio.to_thread(watcher.run, "checkout", folder)


def answers(watched: Watched, query: Query) -> list[dict[str, str]]:
    """The labels of each line that a query yields over the run."""
    run = watched.run
    expression = query.filled_in(run.variables)
    found = watched.prometheus.over(expression, run.begin, run.end, run.step_seconds)
    return [dict(series.labels) for series in found]


def panels(board: Dashboard) -> list[Panel]:
    """Every panel of a dashboard."""
    return [panel for row in board.rows for panel in row.panels]


@pytest.mark.parametrize("name", TEXTS)
def test_every_query_of_every_panel_is_answered(watched: Watched, name: str) -> None:
    found = {
        (panel.title, query.legend): answers(watched, query)
        for panel in panels(read_dashboards()[name])
        for query in panel.queries
    }
    assert {which for which, lines in found.items() if not lines} <= EMPTY_IN_CALM.keys()
    for (title, legend), lines in found.items():
        for labels in lines:
            assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= labels.keys(), title


@pytest.mark.parametrize("provoked", [True, False])
@pytest.mark.parametrize("which", EMPTY_IN_CALM)
def test_what_is_empty_in_calm_is_shown_when_it_has_to_be(
    tmp_path: Path, which: tuple[str, str], provoked: bool
) -> None:
    series, shown = EMPTY_IN_CALM[which]
    (panel,) = read_dashboards()["service"].row(which[0]).panels
    (query,) = (query for query in panel.queries if query.legend == which[1])
    expected = {shown: 1.0} if provoked else {}
    test = case(series if provoked else {}, [Moment("10m", query.expression, expected)], "20s")
    assert complaints(tmp_path, [test], evaluation_interval="1m") == ""


def test_what_nothing_reports_is_seen_to_be_empty(watched: Watched) -> None:
    # The guard's own test.
    assert answers(watched, Query('onsale_http_requests_total{status="teapot"}', "")) == []


def test_every_variable_has_values(watched: Watched) -> None:
    wanted = label_values(json.loads(TEXTS["flash-sale"]))
    assert len(wanted) == 3
    for selector, label in wanted:
        lines = answers(watched, Query(f"count by ({label})({selector})", ""))
        assert [line[label] for line in lines], label


def test_every_annotation_marks_something(watched: Watched) -> None:
    listed = json.loads(TEXTS["flash-sale"])["annotations"]["list"]
    marks = {each["name"]: answers(watched, Query(filled_in(each["expr"]), "")) for each in listed}
    assert {line["phase"] for line in marks["Phases of the load test"]} == {"steady"}
    assert marks["Alerts"] == []  # nothing is wrong


def test_a_start_is_marked_for_a_quarter_of_a_minute(tmp_path: Path) -> None:
    listed = json.loads(TEXTS["flash-sale"])["annotations"]["list"]
    (deployments,) = (each["expr"] for each in listed if each["name"] == "Deployments")
    process = 'process_start_time_seconds{job="onsale-api", instance="a"}'
    moments = [Moment("10s", deployments, {'{job="onsale-api", instance="a"}': 10})]
    moments.append(Moment("20s", deployments, {}))
    test = case({process: "0x30"}, moments, "1s")
    assert complaints(tmp_path, [test], evaluation_interval="1s") == ""


def test_every_counter_of_time_counts(watched: Watched) -> None:
    """Figures that are 0 when a setting is missing, and look like good news then."""
    boards = read_dashboards()
    for name, title in (
        ("bottleneck", "Postgres: WAL sync, utilisation"),
        ("bottleneck", "Gate: utilisation"),
        ("bottleneck", "Ledger: utilisation"),
        ("bottleneck", "Payment: under way"),
        ("flash-sale", "k6's CPU"),
        ("infrastructure", "Main thread"),
    ):
        (panel,) = (panel for panel in panels(boards[name]) if panel.title == title)
        plot = draw(panel, watched.run, watched.prometheus)
        assert any(value for line in plot.lines for value in line.values), title


def test_every_figure_of_the_verdict_is_answered(watched: Watched) -> None:
    found = read_verdict(watched.prometheus, watched.run)
    read = [reading for each in found.findings for reading in each.observed.readings]
    assert [reading.signal.name for reading in read if not reading.points] == []
    shares = {each.stage.name: each.share for each in found.findings}
    assert 0 < shares["gate"] < 1
    assert 0 < shares["ledger"] <= 1


def test_a_run_is_found_with_its_phases_events_and_generator(watched: Watched) -> None:
    run = watched.run
    assert run.testid == watched.verdict.load.run.testid
    assert [phase.name for phase in run.phases] == ["steady"]
    assert len(run.events) == 1
    assert run.scrape_seconds == 1
    assert run.generator is not None
    assert 0 < run.generator.cpu_seconds <= watched.verdict.load.run.generator.cpu_seconds + 1
    assert run.dropped == watched.verdict.load.dropped_iterations


def test_dropped_arrivals_are_shown(
    watcher: Watcher, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Provoked: one virtual user cannot be three hundred buyers."""
    starved = watcher.run("checkout", tmp_path_factory.mktemp("starved"), VUS_MAX="1")
    assert starved.run.dropped == starved.verdict.load.dropped_iterations > 0
    boards = read_dashboards()
    (panel,) = boards["flash-sale"].row("Arrivals dropped").panels
    (line,) = draw(panel, starved.run, starved.prometheus).lines
    assert line.values[-1] or max(value or 0 for value in line.values) > 0


@pytest.fixture(scope="module")
def page(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about the checkout."""
    path = tmp_path_factory.mktemp("page") / "run.html"
    write_report(path, watched.prometheus, watched.run, books=watched.verdict.audit)
    return path


def test_the_page_needs_no_other_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!#|data:,)""", text)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|<link(?! rel=\"icon\")", text)


def test_the_page_has_every_panel_and_the_books(page: Path, watched: Watched) -> None:
    text = page.read_text(encoding="utf-8").replace("&#39;", "'").replace("&amp;", "&")
    for board in read_dashboards().values():
        for panel in panels(board):
            assert panel.title in text, panel.title
    assert f"<code>{watched.run.testid}</code>" in text
    assert "<b>steady</b>" in text
    assert "Gate and ledger balance." in text


@dataclass(frozen=True)
class Fact:
    """A piece of evidence."""

    says: str
    query: str


@dataclass(frozen=True)
class Finding:
    """A verdict, as whoever names the bottleneck gives it."""

    headline: str = "The <ledger> pool was the limit"
    level: Literal["good", "warning", "bad"] = "bad"
    explanation: str = "From second 4 on."
    evidence: tuple[Fact, ...] = (Fact("All connections in use", "max(up)"),)
    advice: tuple[str, ...] = ("Give it more connections.",)


def test_a_verdict_is_shown_with_its_evidence(watched: Watched, tmp_path: Path) -> None:
    path = tmp_path / "run.html"
    write_report(path, watched.prometheus, watched.run, verdict=Finding())
    text = path.read_text("utf-8")
    for shown in (
        '<section class="verdict bad"',
        "The &lt;ledger&gt; pool was the limit",
        "From second 4 on.",
        "All connections in use",
        "<code>max(up)</code>",
        "Give it more connections.",
        "No audit was given",
    ):
        assert shown in text


@pytest.mark.parametrize(("testid", "status"), [("", 0), ("nobody", 1)])
def test_the_command_writes_the_page_or_says_in_one_line_why_not(
    watched: Watched, tmp_path: Path, testid: str, status: int
) -> None:
    out = tmp_path / "report.html"
    command = subprocess.run(
        [
            *(sys.executable, "-m", "onsale", "report", "--prometheus", watched.prometheus.url),
            *("--out", str(out), "--testid", testid or str(watched.run.testid)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert command.returncode == status, command.stderr
    assert out.exists() is (status == 0)
    lines = (command.stdout + command.stderr).splitlines()
    assert len(lines) == 1
    assert lines[0] == str(out) or "knows of no run nobody" in lines[0]


HEARD = "<script>onerror = (message) => { document.title = message; };</script><script>"


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on PATH")
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_browser_runs_the_page_without_a_complaint(
    page: Path, tmp_path: Path, is_whole: bool
) -> None:
    # The second case is the guard's own test: a script that fails is heard.
    text = page.read_text("utf-8").replace("<script>", HEARD, 1)
    copy = tmp_path / "page.html"
    copy.write_text(text if is_whole else text.replace("const body =", "const nobody ="), "utf-8")
    drawn = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={tmp_path}/profile", "--dump-dom", copy.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    ).stdout
    assert drawn.count("<svg") > 100
    assert ("<title>Uncaught" in drawn) is not is_whole

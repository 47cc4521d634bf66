"""The dashboards ask only for what the service reports, and every panel gets an answer."""

import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from onsale.observability import metrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
DASHBOARD_TEXT = (MONITORING / "grafana/dashboards/flash-sale.json").read_text(encoding="utf-8")

assert metrics.build_info  # importing the catalogue is what fills the registry

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
TYPE_OF_SERIES = {"up": "gauge"} | {
    family.name + suffix: family.type
    for family in REGISTRY.collect()
    for suffix in SUFFIXES[family.type]
}

# Strings, matchers, ranges and groupings: what an expression has besides metrics and functions.
NOT_METRICS = re.compile(
    r'"(?:[^"\\]|\\.)*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)'
)
METRIC = re.compile(r"\b(?!(?:and|or|unless|bool|offset)\b)[a-zA-Z_][\w:]*\b(?!\s*\()")
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Every panel but the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def targets(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Every query of every panel."""
    return [target for panel in panels(dashboard) for target in panel["targets"]]


def label_values(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """(selector, label) of every variable that is filled from Prometheus."""
    variables = (v for v in dashboard["templating"]["list"] if v["type"] == "query")
    matches = (LABEL_VALUES.fullmatch(variable["query"]["query"]) for variable in variables)
    return [(match["selector"], match["label"]) for match in matches if match]


def filled_in(expression: str) -> str:
    """An expression as Grafana sends it when everything is chosen."""
    for variable, value in {"__rate_interval": "20s", "event": ".+", "instance": ".+"}.items():
        expression = expression.replace(f"${variable}", value)
    return expression


def series_faults(expression: str) -> Iterator[str]:
    """Series that nothing reports, or that are read in a way that their type does not bear."""
    for name in METRIC.findall(NOT_METRICS.sub(" ", expression)):
        kind = TYPE_OF_SERIES.get(name)
        in_rate = f"rate({name}" in expression
        if kind is None:
            yield f"nothing reports {name}: {expression}"
        elif in_rate != (kind != "gauge"):
            yield f"a {kind} wants {'no ' if in_rate else 'a '}rate: {expression}"
    if "histogram_quantile" in expression and not re.search(
        r"histogram_quantile\([\d.]+, sum by \(le\b[^)]*\) \(rate\(\w+_bucket\b", expression
    ):
        yield f"a quantile needs buckets by le: {expression}"


def panel_faults(panel: dict[str, Any], variables: set[str]) -> Iterator[str]:
    """What one panel lacks of what every panel has."""
    if not panel["fieldConfig"]["defaults"].get("unit"):
        yield f"no unit: {panel['title']}"
    # Shorter than this it cannot say what good looks like.
    if len(panel.get("description", "")) < 30:
        yield f"no description: {panel['title']}"
    for target in panel["targets"]:
        if target["datasource"]["uid"] != "${datasource}":
            yield f"a fixed data source: {panel['title']}"
        for name in re.findall(r"\$(\w+)", target["expr"]):
            if name not in variables:
                yield f"no variable {name}: {panel['title']}"
        yield from series_faults(target["expr"])


def dashboard_faults(text: str) -> list[str]:
    """Everything wrong with a dashboard; none when it is in order."""
    dashboard = json.loads(text)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    faults = [
        fault
        for panel in panels(dashboard)
        for fault in panel_faults(panel, variables | {"__rate_interval"})
    ]
    faults += [f for selector, _ in label_values(dashboard) for f in series_faults(selector)]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        cells = {
            (grid["x"] + column, grid["y"] + line)
            for column in range(grid["w"])
            for line in range(grid["h"])
        }
        if taken & cells or grid["x"] + grid["w"] > 24:
            faults.append(f"not on a place of its own: {panel['title']}")
        taken |= cells
    return faults


def test_the_dashboard_is_in_order() -> None:
    assert dashboard_faults(DASHBOARD_TEXT) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("onsale_oversold_tickets{", "onsale_oversold_ticket{", "nothing reports"),
        ("label_values(onsale_stock_capacity", "label_values(onsale_stock", "nothing reports"),
        ("_seconds_bucket{", "_seconds_sum{", "needs buckets"),
        ("sum by (le, stage)", "sum by (stage)", "needs buckets"),
        ("(rate(onsale_admissions_total", "(max(onsale_admissions_total", "wants a rate"),
        ("sum(onsale_db_pool_waiters", "rate(onsale_db_pool_waiters", "wants no rate"),
        ('"unit": "bytes"', '"unit": ""', "no unit"),
        ('"description": "By the gate. ', '"description": "", "was": "', "no description"),
        ("$event", "$show", "no variable show"),
        ('"uid": "${datasource}"', '"uid": "prometheus"', "a fixed data source"),
        ('"x": 8,', '"x": 0,', "a place of its own"),
    ],
)
def test_each_dashboard_guard_can_fail(old: str, new: str, fault: str) -> None:
    assert old in DASHBOARD_TEXT
    assert any(fault in found for found in dashboard_faults(DASHBOARD_TEXT.replace(old, new)))


def test_the_committed_json_is_what_the_generator_writes() -> None:
    generator = runpy.run_path(str(MONITORING / "grafana/generate.py"))
    assert json.dumps(generator["dashboard_json"](), indent=2) + "\n" == DASHBOARD_TEXT


def rules_file(folder: Path, dashboard: dict[str, Any]) -> Path:
    """Every expression of a dashboard as a recording rule, so that promtool parses it."""
    rules = [
        {"record": f"panel:query:{number}", "expr": filled_in(target["expr"])}
        for number, target in enumerate(targets(dashboard))
    ]
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    return path


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
@pytest.mark.parametrize(("text", "parses"), [(DASHBOARD_TEXT, True), ("", False)])
def test_promtool_parses_every_query(tmp_path: Path, text: str, parses: bool) -> None:
    # The second case is the guard's own test: one closing bracket is missing.
    dashboard = json.loads(
        text or DASHBOARD_TEXT.replace("[$__rate_interval]", "[$__rate_interval")
    )
    check = subprocess.run(
        ["promtool", "check", "rules", rules_file(tmp_path, dashboard)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (check.returncode == 0) is parses, check.stderr


@contextmanager
def running_exporter() -> Iterator[int]:
    """The port of the stand-in for the service's processes."""
    command = [sys.executable, str(Path(__file__).with_name("exporter.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(timeout=10)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; `None` while there is no good answer yet."""
        url = f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return json.load(response)["data"]
        except urllib.error.URLError:
            return None

    def lines(self, expression: str) -> list[dict[str, str]]:
        """The labels of every line that a query yields now."""
        data = self.get("query", query=filled_in(expression)) or {"result": []}
        return [line["metric"] for line in data["result"]]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus on the committed configuration, its jobs pointed at the stand-in."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not on PATH")
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    with running_exporter() as exporter_port:
        config = yaml.safe_load((MONITORING / "prometheus/prometheus.yml").read_text())
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
        for job in config["scrape_configs"]:
            own = job["job_name"] == "prometheus"
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port if own else exporter_port}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stderr=log,
            )
            try:
                server = Prometheus(port)
                await_answers(server)
                yield server
            finally:
                process.terminate()
                process.wait(timeout=10)


def unanswered(prometheus: Prometheus) -> list[str]:
    """The queries of panels that would be empty."""
    wanted = (target["expr"] for target in targets(json.loads(DASHBOARD_TEXT)))
    return [expression for expression in wanted if not prometheus.lines(expression)]


def await_answers(prometheus: Prometheus, timeout_seconds: float = 30) -> None:
    """Returns when every panel has an answer (a rate wants two scrapes), or when time is up."""
    deadline = time.monotonic() + timeout_seconds
    while unanswered(prometheus) and time.monotonic() < deadline:
        time.sleep(0.1)


def test_every_panel_gets_an_answer(prometheus: Prometheus) -> None:
    assert unanswered(prometheus) == []
    assert prometheus.lines('onsale_http_requests_total{status="teapot"}') == []


def test_every_label_in_a_legend_is_there(prometheus: Prometheus) -> None:
    for target in targets(json.loads(DASHBOARD_TEXT)):
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for labels in prometheus.lines(target["expr"]):
            assert wanted <= labels.keys(), target["expr"]


def test_every_variable_has_values(prometheus: Prometheus) -> None:
    wanted = label_values(json.loads(DASHBOARD_TEXT))
    assert len(wanted) == 2
    for selector, label in wanted:
        assert prometheus.get(f"label/{label}/values", **{"match[]": selector})


def test_creation_times_are_not_kept(prometheus: Prometheus) -> None:
    names = prometheus.get("label/__name__/values")
    assert "onsale_orders_total" in names
    assert not [name for name in names if name.startswith("onsale") and name.endswith("_created")]

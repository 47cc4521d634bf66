"""The dashboards are what the generator writes, and ask only for what is reported.

Whether every panel gets an answer from a real run is seen in `tests/report/test_live.py`.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import REGISTRY

from monitoring.grafana.generate.__main__ import FOLDER
from monitoring.grafana.generate.catalogue import DASHBOARDS
from monitoring.grafana.generate.grafana import dashboard_text
from onsale.observability import metrics
from onsale.report.dashboards import NAMES

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}

assert metrics.build_info  # importing the catalogue is what fills the registry

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
TYPE_OF_SERIES = {"up": "gauge", "ALERTS": "gauge"} | {
    family.name + suffix: family.type
    for family in REGISTRY.collect()
    for suffix in SUFFIXES.get(family.type, ())
}
# Of k6 and the exporters: what they really report is seen in a real run.
OTHERS = re.compile(r"(k6|node|redis|pg|postgres)_")
RECORDED = re.compile(r"(onsale|stage|route|instance):")

# Strings, matchers, ranges and groupings: what an expression has besides metrics and functions.
NOT_METRICS = re.compile(
    r'\{(?:[^}"]|"[^"]*")*\}|"[^"]*"|\[[^\]]*\]|\b(?:by|without|on|ignoring)\s*\([^)]*\)'
)
METRIC = re.compile(r"\b(?!(?:and|or|unless|bool|offset)\b)[a-zA-Z_][\w:]*\b(?!\s*\()")
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Every panel but the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def label_values(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    """(selector, label) of every variable that is filled from Prometheus."""
    variables = (v for v in dashboard["templating"]["list"] if v["type"] == "query")
    matches = (LABEL_VALUES.fullmatch(variable["query"]["query"]) for variable in variables)
    return [(match["selector"], match["label"]) for match in matches if match]


def expressions(dashboard: dict[str, Any]) -> list[str]:
    """Every query: of panels and of annotations."""
    return [
        *(target["expr"] for panel in panels(dashboard) for target in panel["targets"]),
        *(each["expr"] for each in dashboard["annotations"]["list"]),
    ]


def unseen(texts: Iterable[str]) -> set[str]:
    """Metrics of the catalogue that no dashboard asks for."""
    asked = " ".join(texts)
    return {
        family.name
        for family in REGISTRY.collect()
        if family.name.startswith("onsale_") and not re.search(rf"\b{family.name}(_|\b)", asked)
    }


def test_every_metric_is_on_a_panel() -> None:
    assert unseen(TEXTS.values()) == set()
    without = [text.replace("onsale_gate_aof_ok", "") for text in TEXTS.values()]
    assert unseen(without) == {"onsale_gate_aof_ok"}


def filled_in(expression: str) -> str:
    """An expression as Grafana sends it when everything is chosen."""
    values = {
        "__rate_interval": "20s",
        "__range": "900s",
        "event": ".+",
        "instance": ".+",
        "testid": ".+",
    }
    for variable, value in values.items():
        expression = expression.replace(f"${variable}", value)
    return expression


def series_faults(expression: str) -> Iterator[str]:
    """Series that nothing reports, or that are read in a way that their type does not bear."""
    for name in METRIC.findall(NOT_METRICS.sub(" ", expression)):
        if OTHERS.match(name) or RECORDED.match(name):
            continue
        kind = TYPE_OF_SERIES.get(name)
        in_rate = bool(re.search(rf"\b(rate|increase)\({name}\b", expression))
        if kind is None:
            yield f"nothing reports {name}: {expression}"
        elif in_rate != (kind != "gauge"):
            yield f"a {kind} wants {'no ' if in_rate else 'a '}rate: {expression}"
    for _ in re.findall(r"histogram_quantile\((?!0\.\d+, sum\(rate\(k6_)", expression):
        if not re.search(
            r"histogram_quantile\([\d.]+, sum by \(le\b[^)]*\) \(rate\(\w+_bucket\b", expression
        ):
            yield f"a quantile needs buckets by le: {expression}"


def panel_faults(panel: dict[str, Any], variables: set[str]) -> Iterator[str]:
    """What one panel lacks of what every panel has."""
    defaults = panel["fieldConfig"]["defaults"]
    if not defaults.get("unit"):
        yield f"no unit: {panel['title']}"
    if not defaults.get("thresholds", {}).get("steps"):
        yield f"no thresholds: {panel['title']}"
    # Shorter than this it cannot say what good looks like.
    if len(panel.get("description", "")) < 30:
        yield f"no description: {panel['title']}"
    for target in panel["targets"]:
        if target["datasource"]["uid"] != "${datasource}":
            yield f"a fixed data source: {panel['title']}"
        for name in re.findall(r"\$(\w+)", target["expr"]):
            if name not in variables:
                yield f"no variable {name}: {panel['title']}"


def place_faults(dashboard: dict[str, Any]) -> Iterator[str]:
    """Panels that lie on each other, or beyond the edge."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        grid = panel["gridPos"]
        columns = range(grid["x"], grid["x"] + grid["w"])
        lines = range(grid["y"], grid["y"] + grid["h"])
        cells = {(column, line) for column in columns for line in lines}
        if taken & cells or columns.stop > 24:
            yield f"not on a place of its own: {panel['title']}"
        taken |= cells


def dashboard_faults(text: str) -> list[str]:
    """Everything wrong with a dashboard; none when it is in order."""
    dashboard = json.loads(text)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    titles = [panel["title"] for panel in panels(dashboard)]
    faults = [f"two panels of one name: {t}" for t in set(titles) if titles.count(t) > 1]
    if not {"datasource", "event", "instance", "testid"} <= variables:
        faults.append(f"not every variable: {variables}")
    for panel in panels(dashboard):
        faults += panel_faults(panel, variables | {"__rate_interval", "__range"})
    for expression in expressions(dashboard):
        faults += series_faults(expression)
    for selector, _ in label_values(dashboard):
        faults += series_faults(selector)
    return [*faults, *place_faults(dashboard)]


@pytest.mark.parametrize("name", TEXTS)
def test_a_dashboard_is_in_order(name: str) -> None:
    assert dashboard_faults(TEXTS[name]) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("flash-sale", "onsale_oversold_tickets{", "onsale_oversold_ticket{", "nothing reports"),
        ("flash-sale", "label_values(onsale_stock_capacity", "label_values(onsale_stock", "report"),
        ("flash-sale", "_seconds_bucket{", "_seconds_sum{", "needs buckets"),
        ("flash-sale", "sum by (le, stage)", "sum by (stage)", "needs buckets"),
        ("flash-sale", "(rate(onsale_admissions_total", "(max(onsale_admissions_total", "a rate"),
        ("workers", "max(onsale_outbox_backlog", "rate(onsale_outbox_backlog", "wants no rate"),
        ("workers", '"unit": "bytes"', '"unit": ""', "no unit"),
        ("workers", '"steps": [', '"rungs": [', "no thresholds"),
        ("sale", '"description": "By the gate. ', '"description": "", "was": "', "no description"),
        ("sale", "$event", "$show", "no variable show"),
        ("service", '"name": "testid"', '"name": "test"', "not every variable"),
        ("service", '"uid": "${datasource}"', '"uid": "prometheus"', "a fixed data source"),
        ("bottleneck", '"x": 8,', '"x": 0,', "a place of its own"),
        ("bottleneck", "Gate: errors", "Redis: errors", "two panels of one name"),
    ],
)
def test_each_dashboard_guard_can_fail(name: str, old: str, new: str, fault: str) -> None:
    assert old in TEXTS[name]
    assert any(fault in found for found in dashboard_faults(TEXTS[name].replace(old, new)))


def test_the_committed_json_is_what_the_generator_writes() -> None:
    # Byte by byte, and nothing besides.
    assert {dashboard.name: dashboard_text(dashboard) for dashboard in DASHBOARDS} == TEXTS
    assert tuple(dashboard.name for dashboard in DASHBOARDS) == NAMES


@pytest.mark.parametrize("name", TEXTS)
def test_grafanas_own_types_read_it(name: str) -> None:
    """The SDK reads every panel back into its own types, and loses nothing that a panel has."""
    read = json.loads(json.dumps(Dashboard.from_json(json.loads(TEXTS[name])), cls=JSONEncoder))
    assert read["panels"] == json.loads(TEXTS[name])["panels"]
    assert read["templating"] == json.loads(TEXTS[name])["templating"]


def rules_file(folder: Path, found: list[str]) -> Path:
    """Every expression as a recording rule, so that promtool parses it."""
    rules = [
        {"record": f"panel:query:{number}", "expr": filled_in(expression)}
        for number, expression in enumerate(found)
    ]
    path = folder / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    return path


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH")
@pytest.mark.parametrize("parses", [True, False])
def test_promtool_parses_every_query(tmp_path: Path, parses: bool) -> None:
    # The second case is the guard's own test: one closing bracket is missing.
    found = [each for text in TEXTS.values() for each in expressions(json.loads(text))]
    if not parses:
        found[0] = found[0].removesuffix(")")
    check = subprocess.run(
        ["promtool", "check", "rules", rules_file(tmp_path, found)],
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

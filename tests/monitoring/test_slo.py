"""docs/slo.md says what the rules do: every number there that can be computed is."""

import re
from pathlib import Path

import pytest
import yaml

from monitoring.prometheus.objectives import (
    BURN_WINDOWS,
    ERROR_RATIO_MAX,
    OBJECTIVES,
    P95_SECONDS_MAX,
    P99_SECONDS_MAX,
    WINDOW_DAYS,
)
from tests.monitoring.test_alertmanager import RECEIVERS
from tests.monitoring.test_runbooks import rules

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/slo.md").read_text("utf-8")
PROMETHEUS = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text("utf-8"))


def wanted() -> list[str]:
    """Every line, or part of one, that follows from the rules."""
    minutes = WINDOW_DAYS * 24 * 60
    down = next(rule for rule in rules("alert") if rule["alert"] == "OnsaleTargetDown")
    return [
        *(
            f"| {it.name} | {it.ratio * 100:g} % | {it.meaning} |"
            f" {round(it.budget * 1e6):,} | {round(it.budget * minutes, 1):g} min |"
            for it in OBJECTIVES
        ),
        *(
            f"| {burn.factor:g} × | {burn.long} | {burn.short} | {burn.pending} |"
            f" {burn.budget_share() * 100:.0f} % | {burn.severity} |"
            for burn in BURN_WINDOWS
        ),
        f"Over {WINDOW_DAYS} days",
        f"p95 at most {P95_SECONDS_MAX:g} s, p99 at most {P99_SECONDS_MAX:g} s, 5xx\n"
        f"under {ERROR_RATIO_MAX * 100:g} %",
        f"A scrape every {PROMETHEUS['global']['scrape_interval'][:-1]} s,"
        f" rules every {PROMETHEUS['global']['evaluation_interval'][:-1]} s,"
        f" and {down['for'][:-1]} s of patience",
        *(
            f"| {severity} | {RECEIVERS[severity]} |"
            for severity in ("critical", "warning", "info")
        ),
    ]


def missing(text: str) -> list[str]:
    """What a page does not say."""
    return [line for line in wanted() if line not in text]


def test_the_page_says_what_the_rules_do() -> None:
    assert missing(TEXT) == []


@pytest.mark.parametrize(
    "old", ["99.95 %", "14.4 ×", "| 10 % | warning", "p99 at most 1 s", "10 s of"]
)
def test_a_number_that_is_wrong_is_found(old: str) -> None:
    assert old in TEXT
    assert missing(TEXT.replace(old, old.replace("1", "2").replace("9", "8"))) != []


def test_the_page_names_what_there_is() -> None:
    """Alerts, and recorded series."""
    alerts = {rule["alert"] for rule in rules("alert")}
    records = {rule["record"] for rule in rules("record")}
    named = set(re.findall(r"\b(?:Onsale|Postgres|Redis|Host|EventLoop|DbPool)[A-Z]\w+", TEXT))
    assert named - alerts == set()
    assert set(re.findall(r"onsale:\w+:\w+", TEXT)) - records == set()

"""Every rule is right: promtool reads it, every alert fires when it must and only then.

Planted faults (`test_a_rule_that_is_wrong_is_found`) show that promtool's word can be no.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.prometheus import generate
from monitoring.prometheus.objectives import OBJECTIVES
from tests.monitoring.alert_cases import CASES, AlertCase
from tests.monitoring.promtool import RULES, Firing, Moment, Series, case, complaints, firing

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH")

ALERTS: list[dict[str, Any]] = [
    rule
    for path in sorted(RULES.glob("*.yml"))
    for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
# Without the windows of days, which cost most of the time and are tried below.
WITHOUT_OBJECTIVES = "[!o]*.yml"
BUDGET_ALERTS = {objective.alert for objective in OBJECTIVES}


def test_the_committed_rules_are_what_the_generator_writes() -> None:
    written = {path.name: path.read_text("utf-8") for path in RULES.glob("*.yml")}
    assert written == {name: generate.text(groups) for name, groups in generate.files().items()}


def promtool(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *words], capture_output=True, text=True, timeout=60, check=False
    )


def test_promtool_reads_every_rule() -> None:
    checked = promtool("check", "rules", "--lint-fatal", *sorted(RULES.glob("*.yml")))
    assert checked.returncode == 0, checked.stderr


# -- each alert, one by one


@pytest.mark.parametrize("tried", CASES, ids=lambda tried: tried.name)
def test_it_fires_when_it_must_and_only_then(tried: AlertCase, tmp_path: Path) -> None:
    tests = [
        case(tried.firing, [firing(tried.at, tried.fires(), tried.name)], "5s"),
        case(tried.silent, [firing(tried.at, {}, tried.name)], "5s"),
    ]
    interval = tried.evaluation_interval()
    assert complaints(tmp_path, tests, evaluation_interval=interval, files=WITHOUT_OBJECTIVES) == ""


def test_every_alert_is_tried() -> None:
    assert {alert["alert"] for alert in ALERTS} - BUDGET_ALERTS - {"Watchdog"} == {
        tried.name for tried in CASES
    }


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("min(pg_up) == 0", "min(pg_up) < 0", "PostgresDown"),
        ("redis_memory_max_bytes > 0", "redis_memory_max_bytes", "RedisMemoryHigh"),
        ("max(onsale_sales_open) > 0", "max(onsale_sales_open) >= 0", "NoOrdersWhileOnSale"),
        ("for: 10s", "for: 0s", "OnsaleTargetDown"),
        ("_timestamp_seconds > 0) or", "_timestamp_seconds) or", "ReconcilerStalled"),
        ("min(onsale_gate_aof_ok and", "min(onsale_gate_aof_ok unless", "RedisFileFailing"),
        ("min_over_time(onsale_outbox", "max_over_time(onsale_outbox", "OutboxBacklog"),
    ],
)
def test_a_rule_that_is_wrong_is_found(old: str, new: str, name: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    shutil.copytree(RULES, rules)
    text = (rules / "alerts.yml").read_text("utf-8")
    # The YAML breaks lines within expressions.
    planted = re.sub(re.escape(old).replace(r"\ ", r"\s+"), new, text)
    assert planted != text
    (rules / "alerts.yml").write_text(planted, "utf-8")
    tests = [
        case(series, [firing(tried.at, expected, name)], "5s")
        for tried in CASES
        if tried.name == name
        for series, expected in ((tried.firing, tried.fires()), (tried.silent, {}))
    ]
    found = complaints(
        tmp_path, tests, evaluation_interval="5s", rules=rules, files=WITHOUT_OBJECTIVES
    )
    assert "FAILED" in found


def test_the_watchdog_always_fires(tmp_path: Path) -> None:
    tests = [case({}, [firing("1m", {("Watchdog", "none"): 1}, "Watchdog")], "1m")]
    assert complaints(tmp_path, tests, evaluation_interval="1m") == ""


# -- the objectives, over whole situations: exactly these alerts fire, and no others

# Of samples 30 s apart, so that a minute has more than its two ends.
Phase = tuple[float, float]  # events a minute, minutes
DAY = 24 * 60


def counter(*phases: Phase) -> str:
    """A counter through phases."""
    parts, value = [], 0.0
    for per_minute, minutes in phases:
        steps = round(minutes * 2) - 1
        parts.append(f"{value:g}+{per_minute / 2:g}x{steps}")
        value += per_minute / 2 * (steps + 1)
    return " ".join(parts)


def traffic(status: int, outcome: str, *phases: Phase, seconds: float = 0.1) -> Series:
    """Orders that are all answered alike: both of the service's counters, and its histogram."""
    values = counter(*phases)
    # The slow ones by a process of their own, for their histogram is one of its own.
    process = f'job="onsale-api",instance="{seconds}"'
    labels = f'{process},method="POST",route="/v1/events/{{event_id}}/orders"'
    duration = (
        f'onsale_http_request_duration_seconds_%s{{{labels},status_class="{status // 100}xx"%s}}'
    )
    series = {
        f'onsale_http_requests_total{{{labels},status="{status}"}}': values,
        f'onsale_orders_total{{{process},event="e",outcome="{outcome}"}}': values,
        duration % ("count", ""): values,
    }
    for bound in ("0.25", "0.5", "1.0", "2.0", "+Inf"):
        within = bound == "+Inf" or seconds <= float(bound)
        series[duration % ("bucket", f',le="{bound}"')] = (
            values if within else counter((0, _minutes(phases)))
        )
    return series


def _minutes(phases: tuple[Phase, ...]) -> float:
    return sum(minutes for _, minutes in phases)


def sold(*phases: Phase) -> Series:
    return traffic(201, "confirmed", *phases)


def failed(*phases: Phase) -> Series:
    return traffic(503, "error", *phases)


SITUATIONS: dict[str, tuple[Series, str, Firing]] = {
    "10 % errors": (
        sold((5_400, 10)) | failed((600, 10)),
        "9m",
        {
            ("OnsaleErrorBudgetBurn", "critical"): 1,
            ("OnsalePurchaseBudgetBurn", "critical"): 1,
            ("OnsaleHighErrorRate", "warning"): 1,
            ("PurchaseFailureRatioHigh", "critical"): 1,
        },
    ),
    "10 % errors, half an hour later": (
        sold((5_400, 40)) | failed((600, 40)),
        "39m",
        {
            ("OnsaleErrorBudgetBurn", "critical"): 2,
            ("OnsaleLatencyBudgetBurn", "critical"): 1,
            ("OnsalePurchaseBudgetBurn", "critical"): 2,
            ("OnsaleHighErrorRate", "warning"): 1,
            ("PurchaseFailureRatioHigh", "critical"): 1,
        },
    ),
    "no series of 5xx at all": (sold((6_000, 60)), "59m", {}),
    "a storm of 409": (
        sold((600, 60)) | traffic(409, "sold_out", (600_000, 60)),
        "59m",
        {},
    ),
    "an idle night": (sold((6_000, 30), (0, 9 * 60)), "9h", {}),
    "errors of one visitor in an idle night": (
        sold((0, 60), (1, 120)) | failed((0, 180)),
        "170m",
        {},
    ),
    "30 % slow": (
        sold((4_200, 20)) | traffic(202, "held", (1_800, 20), seconds=0.7),
        "14m",
        {("OnsaleLatencyBudgetBurn", "critical"): 1, ("OnsaleP95High", "warning"): 1},
    ),
    "0.2 % errors for a day": (
        sold((5_988, 26 * 60)) | failed((12, 26 * 60)),
        "25h",
        {("OnsaleErrorBudgetBurn", "warning"): 2, ("OnsaleHighErrorRate", "warning"): 1},
    ),
    "0.08 % errors for three days": (
        sold((59_952, 4 * DAY)) | failed((48, 4 * DAY)),
        "80h",
        {("OnsaleErrorBudgetBurn", "warning"): 1},
    ),
    "1.5 % slow for three days": (
        sold((5_910, 4 * DAY)) | traffic(202, "held", (90, 4 * DAY), seconds=0.7),
        "80h",
        {("OnsaleLatencyBudgetBurn", "warning"): 1},
    ),
    "4 % slow for a day": (
        sold((5_760, 26 * 60)) | traffic(202, "held", (240, 26 * 60), seconds=0.7),
        "25h",
        {("OnsaleLatencyBudgetBurn", "warning"): 2},
    ),
    "0.03 % errors for three days": (
        sold((59_982, 4 * DAY)) | failed((18, 4 * DAY)),
        "80h",
        {},
    ),
    "an hour of errors, seven hours ago": (
        sold((5_400, 60), (6_000, 480)) | failed((600, 60), (0, 480)),
        "8h",
        {},
    ),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_exactly_these_alerts_fire(name: str, tmp_path: Path) -> None:
    series, at, expected = SITUATIONS[name]
    # Over days every fifth minute will do: a ratio is the same.
    interval = "5m" if at.endswith("h") else "1m"
    tests = [case(series, [firing(at, expected)], "30s")]
    assert complaints(tmp_path, tests, evaluation_interval=interval) == ""


RATIO = 'onsale:slo_bad_events:ratio_%s{slo="availability"}'


@pytest.mark.parametrize(
    ("series", "at", "expression", "expected"),
    [
        pytest.param(
            sold((6_000, 60)), "50m", f"sum({RATIO % '5m'})", {"{}": 0.0}, id="no errors are 0"
        ),
        pytest.param(
            sold((6_000, 10), (0, 60)),
            "60m",
            f"sum({RATIO % '30m'})",
            {},
            id="no events are nothing",
        ),
        # Ten minutes with 1 % bad, then a night of one good request a minute: still 1 %.
        pytest.param(
            sold((99_000, 10), (1, 480)) | failed((1_000, 10), (0, 480)),
            "480m",
            f"round(sum({RATIO % '1d'}), 0.0005)",
            {"{}": 0.01},
            id="each event counts the same",
        ),
        # 0.1 % bad is twice what may be: the budget is spent once over.
        pytest.param(
            sold((5_994, 60)) | failed((6, 60)),
            "59m",
            'round(sum(onsale:slo_budget_left:ratio{slo="availability"}), 0.01)',
            {"{}": -1.0},
            id="the budget is spent",
        ),
    ],
)
def test_the_ratio_is_the_share_of_events(
    series: Series, at: str, expression: str, expected: dict[str, float], tmp_path: Path
) -> None:
    tests = [case(series, [Moment(at, expression, expected)], "30s")]
    assert complaints(tmp_path, tests, evaluation_interval="1m") == ""

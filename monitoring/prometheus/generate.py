"""Writes the recording and alerting rules: `uv run python -m monitoring.prometheus.generate`.

The YAML is committed, and a test holds it against this file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitoring.prometheus.alerts import GROUPS, Alert, budget_alerts, ratio
from monitoring.prometheus.objectives import (
    BUYERS,
    OBJECTIVES,
    REQUESTS,
    SECONDS,
    WINDOW_DAYS,
    Objective,
    hours,
    ratio_windows,
)

RULES = Path(__file__).parent / "rules"
# Prometheus itself serves the pages (--web.user-assets), where --web.external-url says that people
# reach it: the links of Alertmanager and Grafana, and of whom they call, lead there.
RUNBOOKS = "{{ $externalURL }}/user/runbooks"
HEADER = "# Written by monitoring/prometheus/generate.py; change it there.\n"

Rule = dict[str, Any]
Group = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """One recording rule."""

    name: str
    expression: str
    slo: str = ""

    def as_rule(self) -> Rule:
        labels = {"labels": {"slo": self.slo}} if self.slo else {}
        return {"record": self.name, "expr": self.expression} | labels


def quantile(rank: float, metric: str, window: str, *by: str, labels: str = "") -> str:
    """A quantile of a histogram over a window."""
    groups = ", ".join(("le", *by))
    rates = f"rate({metric}_bucket{{{labels}}}[{window}])"
    return f"histogram_quantile({rank}, sum by ({groups}) ({rates}))"


def mean(metric: str, by: str) -> str:
    """The mean of a histogram over a minute; nothing while nothing is observed."""
    total, count = (f"sum by ({by}) (rate({metric}_{part}[1m]))" for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


# Rate, errors and duration of the buyers' calls, over all and by route.
RED = [
    Record("onsale:http_requests:rate1m", f"sum(rate({REQUESTS}{{{BUYERS}}}[1m]))"),
    Record("route:onsale_http_requests:rate1m", f"sum by (route) (rate({REQUESTS}[1m]))"),
    Record(
        "onsale:http_errors:ratio_rate5m",
        ratio(
            f'rate({REQUESTS}{{{BUYERS},status=~"5.."}}[5m])', f"rate({REQUESTS}{{{BUYERS}}}[5m])"
        ),
    ),
    Record(
        "route:onsale_http_errors:rate1m",
        f'sum by (route) (rate({REQUESTS}{{status=~"5.."}}[1m]))',
    ),
    *(
        Record(
            f"onsale:http_request_duration_seconds:p{rank * 100:.0f}_5m",
            quantile(rank, SECONDS, "5m", labels=BUYERS),
        )
        for rank in (0.5, 0.95, 0.99)
    ),
    Record(
        "route:onsale_http_request_duration_seconds:p99_1m",
        quantile(0.99, SECONDS, "1m", "route"),
    ),
]

# Each stage that a request meets: how long, how full, how busy.
STAGES = [
    Record(
        "instance:onsale_event_loop_lag_seconds:p99_1m",
        quantile(0.99, "onsale_event_loop_lag_seconds", "1m", "job", "instance"),
    ),
    Record(
        "instance:onsale_process_cpu:rate1m",
        'sum by (job, instance) (rate(process_cpu_seconds_total{job=~"onsale-.+"}[1m]))',
    ),
    Record("stage:onsale_batch_size:mean_1m", mean("onsale_batch_size", "stage")),
    Record(
        "stage:onsale_batch_duration_seconds:mean_1m",
        mean("onsale_batch_duration_seconds", "stage"),
    ),
    Record(
        "stage:onsale_batch_duration_seconds:p99_1m",
        quantile(0.99, "onsale_batch_duration_seconds", "1m", "stage"),
    ),
    Record("stage:onsale_batch_queue_depth:max", "max by (stage) (onsale_batch_queue_depth)"),
    Record(
        "onsale:redis_operation_duration_seconds:p99_1m",
        quantile(0.99, "onsale_redis_operation_duration_seconds", "1m"),
    ),
    Record(
        "onsale:db_pool_acquire_seconds:p99_1m",
        quantile(0.99, "onsale_db_pool_acquire_seconds", "1m"),
    ),
    Record(
        "onsale:db_pool:used_ratio",
        'sum(onsale_db_pool_connections{state="in_use"}) / sum(onsale_db_pool_size_max)',
    ),
    Record(
        "onsale:db_query_duration_seconds:p99_1m",
        quantile(0.99, "onsale_db_query_duration_seconds", "1m"),
    ),
    Record(
        "instance:node_cpu:ratio_1m",
        '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[1m]))',
    ),
]


def slo_events(objective: Objective) -> Iterator[Record]:
    """What a minute had in events, and in bad ones; 0 bad where there are events and none is."""
    everything = f"sum(increase({objective.all_events}[1m]))"
    yield Record("onsale:slo_events:increase1m", everything, objective.name)
    if objective.bad_events:
        bad = f"sum(increase({objective.bad_events}[1m])) or 0 * {everything}"
    else:
        good = f"sum(increase({objective.good_events}[1m]))"
        bad = f"{everything} - ({good} or 0 * {everything})"
    yield Record("onsale:slo_bad_events:increase1m", bad, objective.name)


def slo_ratio(window: str) -> Record:
    """The bad share of a window: the sum of its minutes, so that each event counts the same.

    A mean of the minutes' ratios would let an idle night outvote the sale. A window without events
    has no ratio.
    """
    bad, every = (
        f"sum_over_time(onsale:slo_{what}:increase1m[{window}])"
        for what in ("bad_events", "events")
    )
    return Record(f"onsale:slo_bad_events:ratio_{window}", f"{bad} / ({every} > 0)")


def slo_records() -> list[Record]:
    """Events, objectives, ratios of the windows that alerts look at, burn rates."""
    ratios = [slo_ratio(window) for window in ratio_windows() if hours(window) <= 24 * 3]
    return [
        *(record for objective in OBJECTIVES for record in slo_events(objective)),
        *(
            Record("onsale:slo_objective:ratio", f"vector({objective.ratio:g})", objective.name)
            for objective in OBJECTIVES
        ),
        *ratios,
        *(
            Record(
                f"onsale:slo_burn:rate_{window}",
                f"onsale:slo_bad_events:ratio_{window} / on (slo) (1 - onsale:slo_objective:ratio)",
            )
            for window in ("1h", "6h")
        ),
    ]


def budget_records() -> list[Record]:
    """The budget of the whole window: 1 is untouched, 0 is spent, less is overspent."""
    whole = slo_ratio(f"{WINDOW_DAYS}d")
    left = f"1 - {whole.name} / on (slo) (1 - onsale:slo_objective:ratio)"
    return [whole, Record("onsale:slo_budget_left:ratio", left)]


def alert_rule(alert: Alert) -> Rule:
    """An alert as Prometheus reads it."""
    rule: Rule = {"alert": alert.name, "expr": alert.expression}
    if alert.pending != "0s":
        rule["for"] = alert.pending
    if alert.keep_firing:
        rule["keep_firing_for"] = alert.keep_firing
    labels = {
        "severity": alert.severity,
        "dependency": alert.dependency,
        "symptom_of": "_".join(alert.symptom_of),
        "slo": alert.slo,
        "window": alert.window,
    }
    rule["labels"] = {name: value for name, value in labels.items() if value}
    rule["annotations"] = {
        "summary": alert.summary,
        "runbook_url": f"{RUNBOOKS}/{alert.name}.md",
    }
    return rule


def records(name: str, found: list[Record], interval: str = "") -> Group:
    """A group of recording rules."""
    spacing = {"interval": interval} if interval else {}
    return {"name": name} | spacing | {"rules": [record.as_rule() for record in found]}


def alerts(name: str, found: Iterable[Alert]) -> Group:
    """A group of alerting rules."""
    return {"name": name, "rules": [alert_rule(alert) for alert in found]}


def files() -> dict[str, list[Group]]:
    """The groups of each file by its name."""
    return {
        "recording.yml": [records("onsale-red", RED), records("onsale-stages", STAGES)],
        "alerts.yml": [alerts(name, found) for name, found in GROUPS.items()],
        "objectives.yml": [
            # The interval is the minute of `increase1m`: each event is in one of them.
            records("onsale-slo", slo_records(), "1m"),
            records("onsale-budget", budget_records(), "5m"),
            alerts("onsale-budget-burn", budget_alerts()),
        ],
    }


def text(groups: list[Group]) -> str:
    """A rule file."""
    return HEADER + yaml.safe_dump(
        {"groups": groups}, sort_keys=False, width=100, allow_unicode=True
    )


def main() -> None:
    for name, groups in files().items():
        (RULES / name).write_text(text(groups), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Writes the Grafana dashboards: `uv run python monitoring/grafana/generate.py`.

A dashboard is a list of rows, a row a list of panels; what all panels have in common is said once,
in `panel_json`. The JSON is committed, and a test holds it against this file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DASHBOARDS = Path(__file__).parent / "dashboards"
GRID_WIDTH = 24

# The buyers' calls: no probes, and no streams, which last as long as somebody looks.
BUYERS = 'instance=~"$instance",route=~"/v1/.+",route!~".+/stream"'
PROCESS = 'instance=~"$instance"'
EVENT = 'event=~"$event"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Query:
    """One PromQL expression and the name of its lines (`{{label}}` is replaced)."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel; `description` says what good looks like, `limits` where it ends being good.

    `limits` are one value (red from there on) or two (yellow, then red), in the panel's unit.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    limits: tuple[float, ...] = ()
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    stacked: bool = False


@dataclass(frozen=True)
class Row:
    """Panels under one heading, laid out from left to right and wrapped at the grid's width."""

    title: str
    panels: tuple[Panel, ...]
    height: int = 8


def quantile(rank: float, metric: str, labels: str, *by: str) -> str:
    """The `rank` quantile of a histogram's last few scrapes, one line per label in `by`."""
    groups = ", ".join(("le", *by))
    return (
        f"histogram_quantile({rank}, sum by ({groups}) (rate({metric}_bucket{{{labels}}}{RATE})))"
    )


def mean(metric: str, labels: str, by: str) -> str:
    """The mean of a histogram's last few scrapes; no line while nothing is observed."""
    total, count = (
        f"sum by ({by}) (rate({metric}_{part}{{{labels}}}{RATE}))" for part in ("sum", "count")
    )
    return f"{total} / ({count} > 0)"


def stock(metric: str) -> str:
    """Stock by tier. Every process reports the same books, so the highest report, not the sum."""
    return f"max by (event, tier) ({metric}{{{EVENT}}})"


def stock_panel(title: str, description: str, metric: str) -> Panel:
    """One line per tier of the chosen events."""
    return Panel(title, description, "none", (Query(stock(metric), "{{event}} {{tier}}"),))


def total_panel(title: str, description: str, metric: str) -> Panel:
    """One number over all tiers of the chosen events."""
    query = Query(f"sum({stock(metric)})", title)
    return Panel(title, description, "none", (query,), kind="stat", width=4)


SERVER_ERRORS = (
    f'(sum(rate(onsale_http_requests_total{{{BUYERS},status=~"5.."}}{RATE})) or vector(0))'
    f" / (sum(rate(onsale_http_requests_total{{{BUYERS}}}{RATE})) > 0)"
)
LATENCY = "onsale_http_request_duration_seconds"

AT_A_GLANCE = Row(
    "At a glance",
    (
        Panel(
            "Oversold tickets",
            "Must be 0, always. No value at all means that no worker reports its books.",
            "none",
            (Query(f"sum(max by (event) (onsale_oversold_tickets{{{EVENT}}}))", "oversold"),),
            limits=(1,),
            kind="stat",
            width=4,
        ),
        total_panel(
            "Tickets left",
            "Falls to 0 during a sale-out and rises only when holds end unpaid.",
            "onsale_stock_available",
        ),
        total_panel(
            "Tickets held",
            "Reserved and unpaid. Back near 0 once the hold time is over.",
            "onsale_stock_held",
        ),
        total_panel(
            "Tickets sold",
            "Confirmed. Never falls, except by a refund; ends at the capacity of a sold-out event.",
            "onsale_stock_sold",
        ),
        Panel(
            "Server errors",
            "Answers with 5xx among all answers to buyers. Good: under 0.05 %. A sold-out answer"
            " (409) is no error. No value means no traffic.",
            "percentunit",
            (Query(SERVER_ERRORS, "5xx"),),
            limits=(0.0005, 0.001),
            kind="stat",
            width=4,
        ),
        Panel(
            "Slowest 1 % of answers",
            "p99 as the server sees it. Good: under 500 ms. No value means no traffic.",
            "s",
            (Query(quantile(0.99, LATENCY, BUYERS), "p99"),),
            limits=(0.5, 1),
            kind="stat",
            width=4,
        ),
    ),
    height=4,
)

CROWD = Row(
    "The crowd",
    (
        Panel(
            "Orders offered and served",
            "Good: served follows offered with no gap. Served is every order that got its proper"
            " answer, and that includes sold out; taken is what became a hold or a ticket.",
            "reqps",
            (
                Query(f"sum(rate(onsale_orders_total{{{EVENT},{PROCESS}}}{RATE}))", "offered"),
                Query(
                    f'sum(rate(onsale_orders_total{{{EVENT},{PROCESS},outcome!="error"}}{RATE}))',
                    "served",
                ),
                Query(
                    f"sum(rate(onsale_orders_total{{{EVENT},{PROCESS},"
                    f'outcome=~"held|confirmed"}}{RATE}))',
                    "taken",
                ),
            ),
        ),
        Panel(
            "Orders by outcome",
            "Good: held or confirmed while there is stock, then sold_out. The outcome error should"
            " not appear.",
            "reqps",
            (
                Query(
                    f"sum by (outcome) (rate(onsale_orders_total{{{EVENT},{PROCESS}}}{RATE}))",
                    "{{outcome}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Errors that clients see",
            "429 and 5xx by status. Good: empty, or 429 and 503 while load is shed on purpose.",
            "reqps",
            (
                Query(
                    "sum by (status)"
                    f' (rate(onsale_http_requests_total{{{BUYERS},status=~"429|5.."}}{RATE}))',
                    "{{status}}",
                ),
            ),
            stacked=True,
        ),
    ),
)

LATENCIES = Row(
    "How long it takes",
    (
        Panel(
            "Answer time",
            "Server side, of all buyers' calls. Good: p95 under 500 ms and p99 under 1 s. What a"
            " request waits before the application sees it is not in here: compare k6's p99.",
            "s",
            tuple(
                Query(quantile(rank, LATENCY, BUYERS), f"p{rank * 100:.0f}")
                for rank in (0.5, 0.95, 0.99)
            ),
            limits=(0.5, 1),
        ),
        Panel(
            "Event loop lag",
            "p99 by process: how late a sleeper wakes. Good: under 10 ms; above 50 ms the process"
            " has more to compute than it has CPU.",
            "s",
            (
                Query(
                    quantile(0.99, "onsale_event_loop_lag_seconds", PROCESS, "instance"),
                    "{{instance}}",
                ),
            ),
            limits=(0.01, 0.05),
        ),
        Panel(
            "Requests in flight",
            "By process. Good: level under steady load. What keeps climbing is a queue.",
            "none",
            (
                Query(
                    f"sum by (instance) (onsale_http_requests_in_flight{{{PROCESS}}})",
                    "{{instance}}",
                ),
            ),
        ),
    ),
)

STOCK = Row(
    "Stock by tier",
    (
        stock_panel(
            "On sale",
            "By the gate. Good: falls to 0 and stays there, but for holds that end unpaid.",
            "onsale_stock_available",
        ),
        stock_panel(
            "Held",
            "By the ledger. Good: drains within the hold time after the last order.",
            "onsale_stock_held",
        ),
        stock_panel(
            "Sold", "By the ledger. Good: ends at the tier's capacity.", "onsale_stock_sold"
        ),
    ),
)

GROUP_COMMIT = Row(
    "Group commit",
    (
        Panel(
            "Orders in a batch",
            "Mean and p95 by stage. Good: near 1 when idle and growing with the crowd; at 512 a"
            " batch is full, and orders wait for the next.",
            "none",
            (
                Query(mean("onsale_batch_size", PROCESS, "stage"), "{{stage}} mean"),
                Query(quantile(0.95, "onsale_batch_size", PROCESS, "stage"), "{{stage}} p95"),
            ),
            limits=(512,),
        ),
        Panel(
            "Batch duration",
            "p50 and p99 by stage. Good: the gate within 5 ms, the ledger within 50 ms, which is"
            " what its disk needs to sync.",
            "s",
            tuple(
                Query(
                    quantile(rank, "onsale_batch_duration_seconds", PROCESS, "stage"),
                    f"{{{{stage}}}} p{rank * 100:.0f}",
                )
                for rank in (0.5, 0.99)
            ),
        ),
        Panel(
            "Orders waiting for a batch",
            "The longest queue of any process, by stage. Good: under a batch of 512. At 10,000 an"
            " order would wait for seconds, and further ones are refused.",
            "none",
            (
                Query(
                    f"max by (stage) (onsale_batch_queue_depth{{{PROCESS}}})",
                    "{{stage}}",
                ),
            ),
            limits=(512, 10_000),
        ),
    ),
)

STORES = Row(
    "The two stores",
    (
        Panel(
            "Ledger connections",
            "Of all chosen processes. Good: in use stays below the most there may be, and nobody"
            " waits.",
            "none",
            (
                Query(
                    f'sum(onsale_db_pool_connections{{{PROCESS},state="in_use"}})',
                    "in use",
                ),
                Query(f"sum(onsale_db_pool_size_max{{{PROCESS}}})", "at most"),
                Query(f"sum(onsale_db_pool_waiters{{{PROCESS}}})", "waiting"),
            ),
        ),
        Panel(
            "Waiting for a ledger connection",
            "p99 by process. Good: under 1 ms. More means that the pool is the bottleneck.",
            "s",
            (
                Query(
                    quantile(0.99, "onsale_db_pool_acquire_seconds", PROCESS, "instance"),
                    "{{instance}}",
                ),
            ),
            limits=(0.01, 0.1),
        ),
        Panel(
            "Store errors",
            "Failed operations by store and kind. Good: empty.",
            "ops",
            (
                Query(
                    f"sum by (operation, error) (rate(onsale_db_errors_total{{{PROCESS}}}{RATE}))",
                    "ledger {{operation}}: {{error}}",
                ),
                Query(
                    "sum by (operation, error)"
                    f" (rate(onsale_redis_errors_total{{{PROCESS}}}{RATE}))",
                    "gate {{operation}}: {{error}}",
                ),
            ),
        ),
        Panel(
            "Ledger operations",
            "p99 by operation, without the wait for a connection. Good: under 50 ms.",
            "s",
            (
                Query(
                    quantile(0.99, "onsale_db_query_duration_seconds", PROCESS, "operation"),
                    "{{operation}}",
                ),
            ),
            limits=(0.05, 0.5),
        ),
        Panel(
            "Gate operations",
            "p99 by operation. Good: under 5 ms. Redis runs one script at a time, so one slow"
            " script delays all.",
            "s",
            (
                Query(
                    quantile(0.99, "onsale_redis_operation_duration_seconds", PROCESS, "operation"),
                    "{{operation}}",
                ),
            ),
            limits=(0.005, 0.05),
        ),
        Panel(
            "Stores reachable",
            "1 when every process reached the store at its last check, 0 when one did not.",
            "bool_on_off",
            (
                Query(
                    f"min by (dependency) (onsale_dependency_up{{{PROCESS}}})",
                    "{{dependency}}",
                ),
            ),
        ),
    ),
)

PROCESSES = Row(
    "Admission and processes",
    (
        Panel(
            "Admission decisions",
            "Good: all accepted. Shed and rate_limited are orders turned away to protect the rest.",
            "reqps",
            (
                Query(
                    f"sum by (decision) (rate(onsale_admissions_total{{{PROCESS}}}{RATE}))",
                    "{{decision}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "CPU by process",
            "1 is a whole core, and one process cannot use more. Good: under 0.8 at the peak.",
            "percentunit",
            (
                Query(
                    f'rate(process_cpu_seconds_total{{job=~"onsale-.+",{PROCESS}}}{RATE})',
                    "{{instance}}",
                ),
            ),
            limits=(0.8, 0.95),
        ),
        Panel(
            "Memory by process",
            "Resident. Good: level after the first minutes; what climbs with every sale is a leak.",
            "bytes",
            (
                Query(
                    f'process_resident_memory_bytes{{job=~"onsale-.+",{PROCESS}}}',
                    "{{instance}}",
                ),
            ),
        ),
    ),
)

BOOKS = Row(
    "The books",
    (
        Panel(
            "Orders in one store only",
            "Past the grace period, at the last full comparison. Good: 0; the reconciler mends the"
            " rest within its next passes.",
            "none",
            (
                Query(
                    f"max by (event) (onsale_gate_drift_orders{{{EVENT}}})",
                    "{{event}}",
                ),
            ),
            limits=(1,),
        ),
        Panel(
            "Repairs",
            "What the reconciler mended, by kind. Good: none without a crash or a lost connection.",
            "ops",
            (
                Query(
                    f"sum by (kind) (rate(onsale_reconciler_repairs_total{RATE}))",
                    "{{kind}}",
                ),
            ),
        ),
        Panel(
            "Longest overdue hold",
            "Good: under 2 s, within which an expired hold has to be back on sale.",
            "s",
            (Query("max(onsale_sweeper_lag_seconds)", "overdue"),),
            limits=(1, 2),
        ),
    ),
)

FLASH_SALE = (AT_A_GLANCE, CROWD, LATENCIES, STOCK, GROUP_COMMIT, STORES, PROCESSES, BOOKS)


def thresholds_json(limits: tuple[float, ...]) -> dict[str, Any]:
    """Green up to the first limit, red from the last one on, yellow between two."""
    colours = ("red",) if len(limits) == 1 else ("yellow", "red")
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": c, "value": v} for c, v in zip(colours, limits, strict=False)]
    return {"mode": "absolute", "steps": steps}


def panel_json(panel: Panel, panel_id: int, grid: dict[str, int]) -> dict[str, Any]:
    """One panel at its place, in Grafana's classic schema."""
    datasource = {"type": "prometheus", "uid": "${datasource}"}
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": thresholds_json(panel.limits)}
    options: dict[str, Any]
    if panel.kind == "stat":
        defaults["color"] = {"mode": "thresholds"}
        options = {
            "colorMode": "value" if panel.limits else "none",
            "graphMode": "area",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    else:
        defaults["min"] = 0
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 25 if panel.stacked else 0,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"group": "A", "mode": "normal" if panel.stacked else "none"},
            "thresholdsStyle": {"mode": "dashed" if panel.limits else "off"},
        }
        options = {
            "legend": {
                "calcs": ["max", "lastNotNull"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": panel_id,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": datasource,
        "gridPos": grid,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": datasource,
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def rows_json(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """The rows and their panels from top to bottom, each with its place on the grid."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        heading = {"h": 1, "w": GRID_WIDTH, "x": 0, "y": y}
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": heading,
                "panels": [],
            }
        )
        x, y = 0, y + 1
        for panel in row.panels:
            if x + panel.width > GRID_WIDTH:
                x, y = 0, y + row.height
            grid = {"h": row.height, "w": panel.width, "x": x, "y": y}
            panels.append(panel_json(panel, len(panels) + 1, grid))
            x += panel.width
        y += row.height
    return panels


def variable_json(name: str, label: str, query: str) -> dict[str, Any]:
    """A choice of label values, all of them unless some are picked."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        # 2: asked again when the time range changes, so that a new event appears.
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard_json() -> dict[str, Any]:
    """The dashboard "Flash sale run"."""
    return {
        "uid": "onsale-flash-sale",
        "title": "Flash sale run",
        "description": "One sale, or one load test, at a glance: from the crowd to the books.",
        "tags": ["onsale"],
        "schemaVersion": 39,
        "editable": False,
        # One crosshair for all panels: cause and symptom line up.
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {
                    "type": "datasource",
                    "name": "datasource",
                    "label": "Data source",
                    "query": "prometheus",
                    "current": {"text": "Prometheus", "value": "prometheus"},
                },
                variable_json("event", "Event", "label_values(onsale_stock_capacity, event)"),
                variable_json(
                    "instance", "Process", 'label_values(up{job=~"onsale-.+"}, instance)'
                ),
            ]
        },
        "panels": rows_json(FLASH_SALE),
    }


def main() -> None:
    """Writes every dashboard below `dashboards/`."""
    text = json.dumps(dashboard_json(), indent=2) + "\n"
    (DASHBOARDS / "flash-sale.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

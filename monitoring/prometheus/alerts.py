"""Every alert: what it looks at, how long, how bad it is, and of what it may be a symptom."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from monitoring.prometheus.objectives import (
    BURN_WINDOWS,
    BUYERS,
    ERROR_RATIO_MAX,
    OBJECTIVES,
    P95_SECONDS_MAX,
    P99_SECONDS_MAX,
    BurnWindow,
    Objective,
)

Severity = Literal["critical", "warning", "info", "none"]

# Every alert of the stores' own says which one; Alertmanager keeps its symptoms quiet meanwhile.
POSTGRES = "postgres"
REDIS = "redis"
# The API processes themselves.
API = "api"

# Warn at the first share, page at the second.
TAKEN_LIMITS: tuple[tuple[float, Severity], ...] = ((0.8, "warning"), (0.95, "critical"))
LEFT_LIMITS: tuple[tuple[float, Severity], ...] = ((0.15, "warning"), (0.05, "critical"))

HELD_OR_CONFIRMED = 'outcome=~"held|confirmed"'
ON_SALE = "max(onsale_sales_open) > 0 and sum(max by (event, tier) (onsale_stock_available)) > 0"


@dataclass(frozen=True)
class Alert:
    """One alerting rule.

    `symptom_of` names what, when it is down, explains this one; `dependency` says that this one is
    that explanation.
    """

    name: str
    expression: str
    severity: Severity
    summary: str
    pending: str = "0s"
    keep_firing: str = ""
    symptom_of: tuple[str, ...] = ()
    dependency: str = ""
    slo: str = ""
    window: str = ""


def ratio(part: str, whole: str) -> str:
    """One rate over another: 0 where only the part is missing, nothing where the whole is."""
    return f"(sum({part}) or vector(0)) / (sum({whole}) > 0)"


def burn_alert(objective: Objective, burn: BurnWindow) -> Alert:
    """The long window says that it matters, the short one that it still goes on."""
    limit = f"({burn.factor:g} * {objective.budget:g})"
    over = " and ".join(
        f'onsale:slo_bad_events:ratio_{window}{{slo="{objective.name}"}} > {limit}'
        for window in (burn.long, burn.short)
    )
    return Alert(
        objective.alert,
        over,
        burn.severity,
        f"The {objective.name} budget of 30 days burns {burn.factor:g} times too fast"
        f" ({{{{ $value | humanizePercentage }}}} bad in {burn.long}).",
        pending=burn.pending,
        keep_firing="5m",
        symptom_of=(POSTGRES, API),
        slo=objective.name,
        window=burn.long,
    )


def budget_alerts() -> Iterator[Alert]:
    """Each objective over each pair of windows."""
    for objective in OBJECTIVES:
        for burn in BURN_WINDOWS:
            yield burn_alert(objective, burn)


SERVICE = (
    Alert(
        "OnsaleP95High",
        f"onsale:http_request_duration_seconds:p95_5m > {P95_SECONDS_MAX:g}",
        "warning",
        "One answer in twenty takes more than {{ $value | humanizeDuration }}.",
        pending="5m",
        symptom_of=(POSTGRES, API),
    ),
    Alert(
        "OnsaleP99High",
        f"onsale:http_request_duration_seconds:p99_5m > {P99_SECONDS_MAX:g}",
        "warning",
        "One answer in a hundred takes more than {{ $value | humanizeDuration }}.",
        pending="5m",
        symptom_of=(POSTGRES, API),
    ),
    Alert(
        "OnsaleHighErrorRate",
        f"onsale:http_errors:ratio_rate5m > {ERROR_RATIO_MAX:g}",
        "warning",
        "{{ $value | humanizePercentage }} of the answers are 5xx.",
        pending="1m",
        symptom_of=(POSTGRES, API),
    ),
    Alert(
        "OnsaleTargetDown",
        'up{job=~"onsale-.+"} == 0',
        "critical",
        "{{ $labels.job }} at {{ $labels.instance }} does not answer.",
        # Two scrapes in a row, for one alone may be a busy second.
        pending="10s",
        dependency=API,
    ),
    Alert(
        "OnsaleProcessRestarted",
        'changes(process_start_time_seconds{job=~"onsale-.+"}[5m]) > 0',
        "warning",
        "{{ $labels.job }} at {{ $labels.instance }} started anew within five minutes.",
    ),
    Alert(
        "OnsaleMonitoringDown",
        'up{job!~"onsale-.+"} == 0',
        "warning",
        "{{ $labels.job }} at {{ $labels.instance }} cannot be scraped: we are half blind.",
        pending="1m",
    ),
    Alert(
        "EventLoopLagHigh",
        "instance:onsale_event_loop_lag_seconds:p99_1m > 0.1",
        "warning",
        "The event loop of {{ $labels.instance }} wakes {{ $value | humanizeDuration }} late.",
        pending="1m",
    ),
)

POSTGRES_ALERTS = (
    Alert(
        "PostgresDown",
        f'min(pg_up) == 0 or max(onsale_dependency_up{{dependency="{POSTGRES}"}}) == 0',
        "critical",
        "Postgres does not answer: nothing can be sold.",
        pending="10s",
        dependency=POSTGRES,
    ),
    Alert(
        "DbPoolSaturated",
        "onsale_db_pool_waiters > 0 and on (job, instance)"
        ' onsale_db_pool_connections{state="in_use"}'
        " >= on (job, instance) group_left () onsale_db_pool_size_max",
        "warning",
        "{{ $value }} tasks of {{ $labels.instance }} wait for a connection.",
        pending="30s",
        symptom_of=(POSTGRES,),
    ),
    *(
        Alert(
            "PostgresConnectionsHigh",
            f"postgres_connections_used / postgres_connections_max > {limit:g}",
            severity,
            "{{ $value | humanizePercentage }} of Postgres' connections are taken.",
            pending="1m",
        )
        for limit, severity in TAKEN_LIMITS
    ),
    Alert(
        "PostgresLongTransaction",
        "max(postgres_transactions_longest_seconds) > 60",
        "warning",
        "A transaction has been under way for {{ $value | humanizeDuration }}.",
        pending="30s",
    ),
    Alert(
        "PostgresLockWaits",
        "max(postgres_lock_waits_longest_seconds) > 1",
        "warning",
        "A session has waited {{ $value | humanizeDuration }} for a lock.",
        pending="10s",
    ),
)

REDIS_ALERTS = (
    Alert(
        "RedisDown",
        f'min(redis_up) == 0 or max(onsale_dependency_up{{dependency="{REDIS}"}}) == 0',
        "critical",
        "Redis does not answer: the ledger admits alone, slower.",
        pending="10s",
        dependency=REDIS,
    ),
    *(
        Alert(
            "RedisMemoryHigh",
            f"redis_memory_used_bytes / (redis_memory_max_bytes > 0) > {limit:g}",
            severity,
            "{{ $value | humanizePercentage }} of Redis' memory is taken.",
            pending="1m",
        )
        for limit, severity in TAKEN_LIMITS
    ),
    Alert(
        "RedisEvicting",
        "increase(redis_evicted_keys_total[5m]) > 0",
        "critical",
        "Redis evicted {{ $value }} keys: who has a seat is being forgotten.",
    ),
    Alert(
        "RedisMayEvict",
        "max(onsale_gate_evicts) > 0",
        "critical",
        "Redis would let keys go when it is full, and forget who has a seat.",
    ),
    Alert(
        "RedisFileFailing",
        # Every process has the gauge; those that look have made a pass.
        "min(onsale_gate_aof_ok and on (job, instance)"
        " onsale_reconciler_last_success_timestamp_seconds > 0) == 0",
        "warning",
        "Redis cannot write its append-only file: a crash would lose more than a second.",
        pending="30s",
        symptom_of=(REDIS,),
    ),
    Alert(
        "RedisSlow",
        "onsale:redis_operation_duration_seconds:p99_1m > 0.05",
        "warning",
        "One gate operation in a hundred takes more than {{ $value | humanizeDuration }}.",
        pending="1m",
        symptom_of=(REDIS,),
    ),
)

BOOKS = (
    Alert(
        "Oversold",
        "max by (event) (onsale_oversold_tickets) > 0",
        "critical",
        "{{ $value }} tickets of {{ $labels.event }} are sold that do not exist.",
    ),
    Alert(
        "GateDrift",
        "max by (event) (onsale_gate_drift_orders) > 0",
        "warning",
        "{{ $value }} orders of {{ $labels.event }} are in one store only.",
        # The pass that sees it repairs it: what is seen again was not.
        pending="2m",
        symptom_of=(POSTGRES, REDIS),
    ),
    Alert(
        "SweeperLagging",
        "max(onsale_sweeper_lag_seconds) > 10",
        "warning",
        "A hold is {{ $value | humanizeDuration }} overdue and not back on sale.",
        pending="30s",
        symptom_of=(POSTGRES,),
    ),
    Alert(
        "ReconcilerStalled",
        # Every process has the gauge, at 0 until a pass of its own has ended. Where none has, the
        # time since the start counts, of the worker that has been there longest.
        "time() - (max(onsale_reconciler_last_success_timestamp_seconds > 0)"
        ' or min(process_start_time_seconds{job="onsale-worker"})) > 60',
        "warning",
        "No pass of the reconciler has ended well for {{ $value | humanizeDuration }}.",
        symptom_of=(POSTGRES, REDIS),
    ),
    Alert(
        "OutboxBacklog",
        "max(min_over_time(onsale_outbox_backlog[5m])) > 100",
        "warning",
        "{{ $value }} payments have waited for minutes for their capture or void.",
        symptom_of=(POSTGRES,),
    ),
)

SALE = (
    Alert(
        "PurchaseFailureRatioHigh",
        ratio('rate(onsale_orders_total{outcome="error"}[1m])', "rate(onsale_orders_total[1m])")
        + " > 0.05",
        "critical",
        "{{ $value | humanizePercentage }} of the orders fail for a reason of ours.",
        pending="30s",
        symptom_of=(POSTGRES, API),
    ),
    Alert(
        "PaymentFailureRatioHigh",
        ratio('rate(onsale_payments_total{outcome!="ok"}[5m])', "rate(onsale_payments_total[5m])")
        + " > 0.2",
        "warning",
        "{{ $value | humanizePercentage }} of the payments do not succeed.",
        pending="2m",
    ),
    Alert(
        "NoOrdersWhileOnSale",
        f"({ON_SALE}) and sum(rate(onsale_http_requests_total{{{BUYERS}}}[5m])) > 0.1"
        f" and (sum(rate(onsale_orders_total{{{HELD_OR_CONFIRMED}}}[5m])) or vector(0)) == 0",
        "critical",
        "There are seats and people, the sale is open, and nobody gets an order.",
        pending="2m",
        symptom_of=(POSTGRES, API),
    ),
    Alert(
        "OrderVolumeDrop",
        f"({ON_SALE}) and sum(rate(onsale_orders_total[10m]))"
        " < 0.1 * sum(rate(onsale_orders_total[10m] offset 30m))"
        " and sum(rate(onsale_orders_total[10m] offset 30m)) > 1",
        "info",
        "A tenth of the orders of half an hour ago, while there are seats left.",
        pending="5m",
        symptom_of=(POSTGRES, API),
    ),
    Alert(
        "GateLedgerOnly",
        'max(onsale_gate_mode{mode="ledger_only"}) > 0',
        "warning",
        "The ledger admits orders without the gate: right, and slower.",
        pending="15s",
        symptom_of=(REDIS,),
    ),
    Alert(
        "CircuitOpen",
        'min by (dependency) (onsale_circuit_breaker_state{state="closed"}) == 0',
        "warning",
        "Calls to {{ $labels.dependency }} are not even tried.",
        pending="15s",
        symptom_of=(REDIS,),
    ),
)

HOST = (
    Alert(
        "HostCpuSaturated",
        "instance:node_cpu:ratio_1m > 0.9",
        "warning",
        "{{ $value | humanizePercentage }} of the CPU of {{ $labels.instance }} is busy.",
        pending="2m",
    ),
    Alert(
        "HostMemoryHigh",
        "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes > 0.9",
        "warning",
        "{{ $value | humanizePercentage }} of the memory of {{ $labels.instance }} is taken.",
        pending="2m",
    ),
    *(
        Alert(
            "HostDiskFull",
            'min by (instance) (node_filesystem_avail_bytes{fstype!="tmpfs"}'
            f" / node_filesystem_size_bytes) < {limit:g}",
            severity,
            "{{ $value | humanizePercentage }} of a disk of {{ $labels.instance }} is left.",
            pending="1m",
        )
        for limit, severity in LEFT_LIMITS
    ),
)

WATCHDOG = (
    Alert(
        "Watchdog",
        "vector(1)",
        "none",
        "Always fires: when it does not arrive, nothing would.",
    ),
)

GROUPS: dict[str, tuple[Alert, ...]] = {
    "onsale-service": SERVICE,
    "onsale-postgres": POSTGRES_ALERTS,
    "onsale-redis": REDIS_ALERTS,
    "onsale-books": BOOKS,
    "onsale-sale": SALE,
    "onsale-host": HOST,
    "onsale-watchdog": WATCHDOG,
}

"""For each alert, series that make it fire and series that it must keep silent on."""

from dataclasses import dataclass

from tests.monitoring.promtool import Firing, Series

# Half an hour and more of samples, five seconds apart.
STEPS = 480
API = 'job="onsale-api",instance="api:9100"'
ORDERS_ROUTE = 'method="POST",route="/v1/events/{event_id}/orders"'


@dataclass(frozen=True)
class AlertCase:
    """`firing` must make the alert fire, so often by severity; `silent` must not at all."""

    name: str
    firing: Series
    expected: dict[str, int]
    silent: Series
    at: str = "8m"

    def evaluation_interval(self) -> str:
        """As it is shipped; every half minute where it takes long."""
        return "5s" if self.at == AlertCase.at else "30s"

    def fires(self) -> Firing:
        """As `promtool.firing` takes it."""
        return {(self.name, severity): count for severity, count in self.expected.items()}


def flat(value: float) -> str:
    """The same at every sample."""
    return f"{value}x{STEPS}"


def rising(per_second: float) -> str:
    """A counter."""
    return f"0+{per_second * 5}x{STEPS}"


def histogram(name: str, labels: str, per_second: float, seconds: float, bounds: str) -> Series:
    """A histogram whose every observation falls below the first of `bounds` that holds it."""
    counts = {bound: per_second * (seconds <= float(bound)) for bound in bounds.split()}
    counts["+Inf"] = per_second
    series = {
        f'{name}_bucket{{{labels}{"," if labels else ""}le="{bound}"}}': rising(rate)
        for bound, rate in counts.items()
    }
    return series | {f"{name}_count{{{labels}}}": rising(per_second)}


def answers(seconds: float) -> Series:
    """A service whose every answer takes so long."""
    labels = f'{API},{ORDERS_ROUTE},status_class="2xx"'
    return histogram(
        "onsale_http_request_duration_seconds", labels, 50, seconds, "0.1 0.25 0.5 0.8 1.0 2.0"
    )


def requests(per_second: float, status: int = 201) -> Series:
    """Answers of one status."""
    return {
        f'onsale_http_requests_total{{{API},{ORDERS_ROUTE},status="{status}"}}': rising(per_second)
    }


def orders(per_second: float, outcome: str) -> Series:
    """Orders of one outcome."""
    return {f'onsale_orders_total{{{API},event="e",outcome="{outcome}"}}': rising(per_second)}


def keeping(well: int) -> Series:
    """How well the gate keeps what it is told; an API process has the gauges and never looks."""
    worker = 'job="onsale-worker",instance="worker:9200"'
    return {
        f"onsale_gate_aof_ok{{{API}}}": flat(0),
        f"onsale_reconciler_last_success_timestamp_seconds{{{API}}}": flat(0),
        f"onsale_gate_aof_ok{{{worker}}}": flat(well),
        f"onsale_reconciler_last_success_timestamp_seconds{{{worker}}}": f"0+5x{STEPS}",
    }


def never_reconciled(since: int) -> Series:
    """A worker that has been there since a time, beside an API that has been there for ever."""
    worker = 'job="onsale-worker",instance="worker:9200"'
    return {
        f"onsale_reconciler_last_success_timestamp_seconds{{{API}}}": flat(0),
        f"process_start_time_seconds{{{API}}}": flat(0),
        f"onsale_reconciler_last_success_timestamp_seconds{{{worker}}}": flat(0),
        f"process_start_time_seconds{{{worker}}}": flat(since),
    }


def stage(*, open_sales: int = 1, available: int = 100) -> Series:
    """What the reconciler says of the sales."""
    return {
        "onsale_sales_open": flat(open_sales),
        'onsale_stock_available{event="e",tier="ga"}': flat(available),
    }


def one(name: str, series: str, bad: float, good: float, severity: str = "warning") -> AlertCase:
    """An alert on the value of one series."""
    return AlertCase(name, {series: flat(bad)}, {severity: 1}, {series: flat(good)})


def shares(name: str, part: str, whole: str) -> list[AlertCase]:
    """An alert on a share of something, with a warning at 80 % and a page at 95 %."""
    return [
        AlertCase(
            name,
            {part: flat(share), whole: flat(100)},
            expected,
            {part: flat(79), whole: flat(100)},
        )
        for share, expected in ((90, {"warning": 1}), (96, {"warning": 1, "critical": 1}))
    ]


FILESYSTEM = 'instance="node",mountpoint="/",fstype="ext4"'
CASES = [
    AlertCase("OnsaleP95High", answers(0.7), {"warning": 1}, answers(0.3)),
    AlertCase("OnsaleP99High", answers(1.5), {"warning": 1}, answers(0.9)),
    AlertCase(
        "OnsaleHighErrorRate",
        requests(100) | requests(0.2, 503),
        {"warning": 1},
        requests(100) | requests(0.05, 503) | requests(100, 409),
    ),
    one("OnsaleTargetDown", f"up{{{API}}}", 0, 1, "critical"),
    # One scrape that failed is no outage.
    AlertCase(
        "OnsaleTargetDown",
        {f"up{{{API}}}": f"1x60 0x{STEPS}", 'up{job="onsale-worker",instance="w"}': flat(1)},
        {"critical": 1},
        {f"up{{{API}}}": f"1x95 0x0 1x{STEPS}"},
    ),
    AlertCase(
        "OnsaleProcessRestarted",
        {f"process_start_time_seconds{{{API}}}": f"1000x60 1300x{STEPS}"},
        {"warning": 1},
        {f"process_start_time_seconds{{{API}}}": f"1000x20 1100x{STEPS}"},
    ),
    one("OnsaleMonitoringDown", 'up{job="redis",instance="exporter"}', 0, 1),
    AlertCase(
        "EventLoopLagHigh",
        histogram("onsale_event_loop_lag_seconds", API, 10, 0.2, "0.05 0.1 0.25"),
        {"warning": 1},
        histogram("onsale_event_loop_lag_seconds", API, 10, 0.02, "0.05 0.1 0.25"),
    ),
    one("PostgresDown", "pg_up", 0, 1, "critical"),
    # By the processes' own word, where there is no exporter; one of two may lag behind.
    AlertCase(
        "PostgresDown",
        {f'onsale_dependency_up{{instance="{i}",dependency="postgres"}}': flat(0) for i in "ab"},
        {"critical": 1},
        {
            f'onsale_dependency_up{{instance="{i}",dependency="postgres"}}': flat(int(i == "a"))
            for i in "ab"
        },
    ),
    AlertCase(
        "DbPoolSaturated",
        {
            f"onsale_db_pool_waiters{{{API}}}": flat(3),
            f'onsale_db_pool_connections{{{API},state="in_use"}}': flat(10),
            f"onsale_db_pool_size_max{{{API}}}": flat(10),
        },
        {"warning": 1},
        {
            f"onsale_db_pool_waiters{{{API}}}": flat(0),
            f'onsale_db_pool_connections{{{API},state="in_use"}}': flat(10),
            f"onsale_db_pool_size_max{{{API}}}": flat(10),
        },
    ),
    *shares("PostgresConnectionsHigh", "postgres_connections_used", "postgres_connections_max"),
    one("PostgresLongTransaction", "postgres_transactions_longest_seconds", 61, 59),
    one("PostgresLockWaits", "postgres_lock_waits_longest_seconds", 1.5, 0.5),
    one("RedisDown", "redis_up", 0, 1, "critical"),
    AlertCase(
        "RedisDown",
        {'onsale_dependency_up{instance="a",dependency="redis"}': flat(0)},
        {"critical": 1},
        {'onsale_dependency_up{instance="a",dependency="postgres"}': flat(0)},
    ),
    *shares("RedisMemoryHigh", "redis_memory_used_bytes", "redis_memory_max_bytes"),
    # Without a limit there is no share.
    AlertCase(
        "RedisMemoryHigh",
        {"redis_memory_used_bytes": flat(85), "redis_memory_max_bytes": flat(100)},
        {"warning": 1},
        {"redis_memory_used_bytes": flat(85), "redis_memory_max_bytes": flat(0)},
    ),
    AlertCase(
        "RedisEvicting",
        {"redis_evicted_keys_total": f"0x60 1x{STEPS}"},
        {"critical": 1},
        {"redis_evicted_keys_total": flat(7)},
    ),
    one("RedisMayEvict", "onsale_gate_evicts", 1, 0, "critical"),
    AlertCase(
        "RedisFileFailing",
        keeping(0),
        {"warning": 1},
        keeping(1),
    ),
    AlertCase(
        "RedisSlow",
        histogram(
            "onsale_redis_operation_duration_seconds", 'operation="admit"', 10, 0.08, "0.05 0.1"
        ),
        {"warning": 1},
        histogram(
            "onsale_redis_operation_duration_seconds", 'operation="admit"', 10, 0.01, "0.05 0.1"
        ),
    ),
    AlertCase(
        "Oversold",
        {'onsale_oversold_tickets{event="e"}': f"0x95 1x{STEPS}"},
        {"critical": 1},
        {'onsale_oversold_tickets{event="e"}': flat(0)},
    ),
    one("GateDrift", 'onsale_gate_drift_orders{event="e"}', 4, 0),
    # Seen by one pass and mended by it.
    AlertCase(
        "GateDrift",
        {'onsale_gate_drift_orders{event="e"}': flat(1)},
        {"warning": 1},
        {'onsale_gate_drift_orders{event="e"}': f"0x91 9x2 0x{STEPS}"},
    ),
    one("SweeperLagging", "onsale_sweeper_lag_seconds", 12, 3),
    AlertCase(
        "ReconcilerStalled",
        {"onsale_reconciler_last_success_timestamp_seconds": flat(400)},
        {"warning": 1},
        {"onsale_reconciler_last_success_timestamp_seconds": f"0+5x{STEPS}"},
    ),
    # None has ended well yet: for three minutes; for half of one.
    AlertCase(
        "ReconcilerStalled",
        never_reconciled(since=300),
        {"warning": 1},
        never_reconciled(since=450),
    ),
    # A backlog that is worked off is none.
    AlertCase(
        "OutboxBacklog",
        {"onsale_outbox_backlog": flat(500)},
        {"warning": 1},
        {"onsale_outbox_backlog": f"0x40 5000-100x50 0x{STEPS}"},
    ),
    AlertCase(
        "PurchaseFailureRatioHigh",
        orders(90, "confirmed") | orders(10, "error"),
        {"critical": 1},
        orders(1, "confirmed") | orders(1_000, "sold_out") | orders(10, "error"),
    ),
    AlertCase(
        "PaymentFailureRatioHigh",
        {
            'onsale_payments_total{outcome="ok"}': rising(7),
            'onsale_payments_total{outcome="timeout"}': rising(3),
        },
        {"warning": 1},
        {
            'onsale_payments_total{outcome="ok"}': rising(9),
            'onsale_payments_total{outcome="declined"}': rising(1),
        },
    ),
    AlertCase(
        "NoOrdersWhileOnSale",
        stage() | requests(5, 503),
        {"critical": 1},
        stage(available=0) | requests(5, 409),
    ),
    AlertCase(
        "NoOrdersWhileOnSale",
        stage() | requests(5, 409) | orders(5, "limit"),
        {"critical": 1},
        stage() | requests(5) | orders(5, "held"),
    ),
    # An idle night; a sale that is not open.
    AlertCase("NoOrdersWhileOnSale", stage() | requests(1), {"critical": 1}, stage()),
    AlertCase(
        "NoOrdersWhileOnSale",
        stage() | requests(1),
        {"critical": 1},
        stage(open_sales=0) | requests(5, 409),
    ),
    AlertCase(
        "OrderVolumeDrop",
        stage() | {f'onsale_orders_total{{{API},outcome="held"}}': f"0+25x240 6000x{STEPS}"},
        {"info": 1},
        stage() | {f'onsale_orders_total{{{API},outcome="held"}}': f"0+25x240 6000+10x{STEPS}"},
        at="38m",
    ),
    # Sold out: nobody is missing.
    AlertCase(
        "OrderVolumeDrop",
        stage() | {f'onsale_orders_total{{{API},outcome="held"}}': f"0+25x240 6000x{STEPS}"},
        {"info": 1},
        stage(available=0)
        | {f'onsale_orders_total{{{API},outcome="held"}}': f"0+25x240 6000x{STEPS}"},
        at="38m",
    ),
    one("GateLedgerOnly", 'onsale_gate_mode{mode="ledger_only"}', 1, 0),
    one("CircuitOpen", 'onsale_circuit_breaker_state{dependency="redis",state="closed"}', 0, 1),
    AlertCase(
        "HostCpuSaturated",
        {'node_cpu_seconds_total{instance="node",cpu="0",mode="idle"}': rising(0.05)},
        {"warning": 1},
        {'node_cpu_seconds_total{instance="node",cpu="0",mode="idle"}': rising(0.5)},
    ),
    AlertCase(
        "HostMemoryHigh",
        {"node_memory_MemAvailable_bytes": flat(5), "node_memory_MemTotal_bytes": flat(100)},
        {"warning": 1},
        {"node_memory_MemAvailable_bytes": flat(50), "node_memory_MemTotal_bytes": flat(100)},
    ),
    *(
        AlertCase(
            "HostDiskFull",
            {
                f"node_filesystem_avail_bytes{{{FILESYSTEM}}}": flat(left),
                f"node_filesystem_size_bytes{{{FILESYSTEM}}}": flat(100),
            },
            expected,
            {
                f"node_filesystem_avail_bytes{{{FILESYSTEM}}}": flat(16),
                f"node_filesystem_size_bytes{{{FILESYSTEM}}}": flat(100),
            },
        )
        for left, expected in ((10, {"warning": 1}), (4, {"warning": 1, "critical": 1}))
    ),
]

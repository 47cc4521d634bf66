"""What limited the service: each stage in the order in which a request meets them.

The first row is one number a stage: the figure by which `onsale bottleneck` decides, from the same
source, against the same knee. Below, each stage has its utilisation, its saturation (what queues or
waits there) and its errors.
"""

from monitoring.grafana.generate.panels import (
    NEUTRAL,
    Dashboard,
    Panel,
    Query,
    Row,
    Steps,
    above,
    stat,
)
from monitoring.grafana.generate.queries import (
    API,
    BUYERS,
    PROCESS,
    RATE,
    RUN,
    busy,
    or_zero,
    quantile,
    rate,
)
from onsale.bottleneck.stages import (
    GATE_USE,
    GENERATOR_USE,
    HOST_USE,
    LEDGER_BATCHES,
    LEDGER_USE,
    PAYMENT_TIMEOUT_SECONDS,
    POOL_USE,
    PROCESS_CPU,
    REDIS_CPU,
    STAGES,
    WAL_USE,
    Stage,
)

ACTIVE = 'sum(postgres_sessions_count{state="active"})'
# From this share of its knee on a stage is close to it.
CLOSE_SHARE = 0.75


def stage_panel(number: int, stage: Stage) -> Panel:
    """One stage's number: the signal that decides whether it is saturated, against its knee."""
    signal = stage.decisive
    assert signal.knee is not None
    steps = above(CLOSE_SHARE * signal.knee, signal.knee)
    return stat(f"{number} {stage.title}", stage.good, signal.unit, steps, signal.query)


FIRST_ROW = Row(
    "Which stage is at its knee: the verdict's own figures, in the order of a request",
    tuple(stage_panel(number, stage) for number, stage in enumerate(STAGES, start=1)),
    height=4,
)


def line(title: str, description: str, unit: str, steps: Steps, *queries: tuple[str, str]) -> Panel:
    """A plot of (expression, legend) pairs."""
    return Panel(title, description, unit, steps, tuple(Query(*query) for query in queries))


GENERATOR = Row(
    "1 Load generator",
    (
        line(
            "Generator: utilisation",
            "k6's CPU, of what the machine has. Good: under 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (GENERATOR_USE, "k6"),
        ),
        line(
            "Generator: saturation",
            "For how long k6's threads could have run and got no core, in seconds a second. Good:"
            " under 0.2; above, arrivals come late.",
            "none",
            above(0.2, 1),
            (rate("k6_process_cpu_wait_seconds_total", RUN), "waited for a core"),
        ),
        line(
            "Generator: errors",
            "Buyers that k6 had no virtual user free for, since the run began. Good: 0.",
            "none",
            above(1),
            (f"sum(k6_dropped_iterations_total{{{RUN}}}) or 0 * sum(k6_vus{{{RUN}}})", "dropped"),
        ),
    ),
)

HOST = Row(
    "2 Host",
    (
        line(
            "Host: utilisation",
            "All cores together, without those that wait for a disk. Good: under 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (HOST_USE, "CPU"),
        ),
        line(
            "Host: saturation",
            "The share of time in which something that could run waited (PSI). Good: under 20 %.",
            "percentunit",
            above(0.2, 0.6),
            (f"max(rate(node_pressure_cpu_waiting_seconds_total{RATE}))", "for a core"),
            (f"max(rate(node_pressure_io_waiting_seconds_total{RATE}))", "for a disk"),
            (f"max(rate(node_pressure_memory_waiting_seconds_total{RATE}))", "for memory"),
        ),
        line(
            "Host: errors",
            "Connections that the kernel turned away because nobody accepted them in time."
            " Good: 0.",
            "ops",
            above(1),
            (f"sum(rate(node_netstat_TcpExt_ListenDrops{RATE}))", "refused"),
        ),
    ),
)

WORKER = Row(
    "3 to 6 API processes and their event loops",
    (
        line(
            "API: utilisation",
            "CPU by process; one cannot use more than a core. Good: under 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (PROCESS_CPU, "{{instance}}"),
        ),
        line(
            "API: saturation",
            "p99 of how late the event loop wakes a sleeper, by process. Good: under 10 ms; above"
            " 50 ms the process has more to do than it has time, or something blocks it.",
            "s",
            above(0.01, 0.05),
            (quantile(0.99, "onsale_event_loop_lag_seconds", API, "instance"), "{{instance}}"),
        ),
        line(
            "API: requests in flight",
            "By process. Good: level under steady load. What keeps climbing is a queue, and the"
            " stage that it waits for is one of those below.",
            "none",
            above(1_000, 10_000),
            (f"sum by (instance)(onsale_http_requests_in_flight{{{PROCESS}}})", "{{instance}}"),
        ),
        line(
            "API: orders taken on at once",
            "The most that a process takes on, by measure; it turns the rest away. Good: level. It"
            " falls while the ledger is slow, so that who is let in is served.",
            "none",
            NEUTRAL,
            (f"min by (instance)(onsale_orders_in_flight_limit{{{API}}})", "{{instance}}"),
        ),
        line(
            "API: errors",
            "Answers with 5xx, and orders that were shed. Good: 0.",
            "reqps",
            above(1, 10),
            (or_zero(rate("onsale_http_requests_total", f'{BUYERS},status=~"5.."')), "5xx"),
            (or_zero(rate("onsale_admissions_total", f'{PROCESS},decision!="accepted"')), "shed"),
        ),
    ),
)

GATE = Row(
    "7 Gate batches",
    (
        line(
            "Gate: utilisation",
            "Batches under way on average, by process. Good: under 0.7 for one event; each event"
            " has its own.",
            "percentunit",
            above(0.7, 0.9),
            (GATE_USE, "{{instance}}"),
        ),
        line(
            "Gate: saturation",
            "Orders that wait for a gate batch, by process. Good: under 512, which is one batch.",
            "none",
            above(512, 10_000),
            (
                f'max by (instance)(onsale_batch_queue_depth{{{PROCESS},stage="gate"}})',
                "{{instance}}",
            ),
        ),
        line(
            "Gate: errors",
            "Gate operations that failed, breakers that opened, and orders that no rate limit was"
            " held against for want of an answer. Good: 0.",
            "ops",
            above(0.1, 1),
            (or_zero(rate("onsale_redis_errors_total", PROCESS)), "errors"),
            (
                or_zero(rate("onsale_circuit_breaker_transitions_total", f'{PROCESS},to="open"')),
                "breakers opened",
            ),
            (or_zero(rate("onsale_rate_limits_skipped_total", PROCESS)), "rate limits skipped"),
        ),
    ),
)

REDIS = Row(
    "8 Redis",
    (
        line(
            "Redis: utilisation",
            "The main thread's CPU, of one core. Good: under 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (REDIS_CPU, "main thread"),
        ),
        line(
            "Redis: saturation",
            "p99 of gate operations as the service sees them, and what Redis itself says that a"
            " command takes on average. Good: under 5 ms and close together; a gap is the way"
            " there, or a queue before the main thread.",
            "s",
            above(0.005, 0.05),
            (
                quantile(0.99, "onsale_redis_operation_duration_seconds", PROCESS, "operation"),
                "{{operation}}, seen by the service",
            ),
            (
                f'sum(rate(redis_commands_duration_seconds_total{{cmd=~"eval.*|fcall.*"}}{RATE}))'
                f' / sum(rate(redis_commands_total{{cmd=~"eval.*|fcall.*"}}{RATE}))',
                "a script, seen by Redis (mean)",
            ),
        ),
        line(
            "Redis: errors",
            "Keys evicted (each would be lost stock) and connections refused. Good: 0.",
            "ops",
            above(0.1, 1),
            (f"sum(rate(redis_evicted_keys_total{RATE}))", "evicted"),
            (f"sum(rate(redis_rejected_connections_total{RATE}))", "refused"),
        ),
    ),
)

LEDGER = Row(
    "9 Ledger batches",
    (
        line(
            "Ledger: utilisation",
            f"Batches under way on average, of the {LEDGER_BATCHES:.0f} that a process may have."
            " Good: under 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (LEDGER_USE, "{{instance}}"),
        ),
        line(
            "Ledger: saturation",
            "Orders that wait for a ledger batch, by process. Good: under 512, which is one batch.",
            "none",
            above(512, 10_000),
            (
                f'max by (instance)(onsale_batch_queue_depth{{{PROCESS},stage=~"ledger.*"}})',
                "{{instance}}",
            ),
        ),
        line(
            "Gate and ledger: orders at each stage",
            "On average, waiting for their batch or in it: the seconds that buyers wait there, a"
            " second. Good: follows the load; the one that is far above the others is the limit.",
            "none",
            NEUTRAL,
            (rate("onsale_batch_job_seconds_total", PROCESS, "stage"), "{{stage}}"),
        ),
        line(
            "Ledger: errors",
            "Ledger operations that failed, and batches that were split to find an order at fault."
            " Good: 0.",
            "ops",
            above(0.1, 1),
            (or_zero(rate("onsale_db_errors_total", PROCESS)), "errors"),
            (or_zero(rate("onsale_batch_splits_total", PROCESS)), "batches split"),
        ),
    ),
)

POOL = Row(
    "10 Ledger pool",
    (
        line(
            "Pool: utilisation",
            "Connections in use, by process, of those it may open. Good: under 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (POOL_USE, "{{instance}}"),
        ),
        line(
            "Pool: saturation",
            "p99 of the wait for a connection, by process. Good: under 1 ms; above 10 ms the pool"
            " is too small, or its connections are held for too long.",
            "s",
            above(0.01, 0.1),
            (quantile(0.99, "onsale_db_pool_acquire_seconds", PROCESS, "instance"), "{{instance}}"),
        ),
        line(
            "Pool: who waits",
            "Tasks that wait for a connection, by process. Good: 0.",
            "none",
            above(1, 10),
            (f"sum by (instance)(onsale_db_pool_waiters{{{PROCESS}}})", "{{instance}}"),
        ),
    ),
)

POSTGRES = Row(
    "11 and 12 Postgres",
    (
        Panel(
            "Postgres: what working sessions wait for",
            "Sessions at work, by what they wait for at the moment of the scrape (CPU: nothing)."
            " Good: few, and none with Lock.",
            "none",
            above(10, 50),
            (
                Query(
                    'sum by (wait_type)(postgres_sessions_count{state="active"})', "{{wait_type}}"
                ),
                Query(f"0 * {or_zero(ACTIVE)}", "none"),
            ),
            stacked=True,
        ),
        line(
            "Postgres: locks",
            "Locks asked for and not granted, and for how long the first of them has waited."
            " Good: 0, save for a moment.",
            "none",
            above(1, 10),
            ("sum(postgres_lock_waits_sessions)", "sessions that wait"),
            ("max(postgres_lock_waits_longest_seconds)", "seconds, the longest"),
        ),
        line(
            "Postgres: WAL sync, utilisation",
            "Share of time in which a session waits for the disk to sync the log. Good: under"
            " 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (WAL_USE, "sync"),
        ),
        line(
            "Postgres: one WAL sync",
            "Mean. Good: under 5 ms, as of a local disk; every commit waits for one.",
            "s",
            above(0.005, 0.02),
            (
                f"sum(rate(postgres_wal_sync_seconds_total{RATE}))"
                f" / (sum(rate(postgres_wal_syncs_total{RATE})) > 0)",
                "one sync",
            ),
        ),
        line(
            "Postgres: operations",
            "p99 by operation, without the wait for a connection. Good: under 50 ms.",
            "s",
            above(0.05, 0.5),
            (
                quantile(0.99, "onsale_db_query_duration_seconds", PROCESS, "operation"),
                "{{operation}}",
            ),
        ),
        line(
            "Postgres: errors",
            "Transactions rolled back, and deadlocks. Good: 0.",
            "ops",
            above(1, 10),
            (f"sum(rate(postgres_database_rollbacks_total{RATE}))", "rolled back"),
            (f"sum(rate(postgres_database_deadlocks_total{RATE}))", "deadlocks"),
        ),
    ),
)

PAYMENT = Row(
    "13 Payment provider",
    (
        line(
            "Payment: under way",
            "Authorisations that the provider has not answered yet, on average. Good: follows the"
            " payments; each keeps a buyer waiting and nothing else.",
            "none",
            NEUTRAL,
            (busy("onsale_payment_duration_seconds", PROCESS), "under way"),
        ),
        line(
            "Payment: saturation",
            "p50 and p95 of an authorisation. Good: under a second.",
            "s",
            above(1, PAYMENT_TIMEOUT_SECONDS),
            (quantile(0.5, "onsale_payment_duration_seconds", PROCESS), "p50"),
            (quantile(0.95, "onsale_payment_duration_seconds", PROCESS), "p95"),
        ),
        line(
            "Payment: outcomes",
            "Good: nearly all authorised; declined is the buyer's card, everything else is the"
            " provider.",
            "ops",
            NEUTRAL,
            (rate("onsale_payments_total", PROCESS, "outcome"), "{{outcome}}"),
        ),
    ),
)

BOTTLENECK = Dashboard(
    "bottleneck",
    "Bottleneck",
    "Utilisation, saturation and errors of each stage, in the order in which a request meets them.",
    (FIRST_ROW, GENERATOR, HOST, WORKER, GATE, REDIS, LEDGER, POOL, POSTGRES, PAYMENT),
)

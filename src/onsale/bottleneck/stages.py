"""The stages in the order in which a request meets them: what is asked of each, knees, advice.

A stage has up to three signals: how much of it is used, what queues or waits there, what fails. One
of them, the first with a knee, decides whether it is saturated. Knees are shares of what there is,
or of what an answer may take; none is a time that one machine needs and another does not.

Stages push back. A ledger that waits for a lock fills its batches, then the valve, and that is what
one sees first. So each stage names those that it waits for: while one of these is saturated, the
stage is a symptom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from onsale.bottleneck.promql import API, RATE, RUN, mean, or_zero, rate
from onsale.settings import Settings

Unit = Literal["percentunit", "s", "none", "ops"]

# An answer may take this long: the bound of the service's latency objective.
OBJECTIVE_SECONDS = 0.5
# A stage that takes a tenth of that is where the time goes; a request passes the event loop, and
# most others, more than once.
_TENTH = OBJECTIVE_SECONDS / 10


def default(setting: str) -> float:
    """What a process has when nobody set it."""
    return float(Settings.model_fields[setting].default)


LEDGER_BATCHES = default("ledger_batches_in_flight_max")
PAYMENT_TIMEOUT_SECONDS = default("payment_timeout_seconds")


@dataclass(frozen=True)
class Signal:
    """One figure of a stage. `query` yields one line; from `knee` on (if it has one) it is bad."""

    name: str
    query: str
    unit: Unit
    knee: float | None = None


@dataclass(frozen=True)
class Stage:
    """One place where requests may wait, and what is known of it.

    `lost` yields the seconds that buyers wait there, a second, all of them together; `None` where
    that is what they wait for the process itself, of which `part` yields the stage's. `waits_for`
    are the names of stages that may explain it. One that `refuses` lets nobody wait, and turns
    buyers away.
    """

    name: str
    title: str
    good: str
    signals: tuple[Signal, ...]
    lost: str | None
    waits_for: tuple[str, ...]
    advice: tuple[str, ...]
    part: str | None = None
    refuses: bool = False

    @property
    def decisive(self) -> Signal:
        """The signal whose knee is the stage's."""
        return next(signal for signal in self.signals if signal.knee is not None)


GENERATOR_USE = f"{rate('k6_process_cpu_seconds_total', RUN)} / max(k6_process_cpus{{{RUN}}})"
_GENERATOR_WAIT = rate("k6_process_cpu_wait_seconds_total", RUN)
_CPU = "node_cpu_seconds_total"
HOST_USE = f'1 - sum(rate({_CPU}{{mode=~"idle|iowait"}}{RATE})) / sum(rate({_CPU}{RATE}))'
PROCESS_CPU = f"rate(process_cpu_seconds_total{{{API}}}{RATE})"
CPU_WAIT = f"rate(onsale_cpu_wait_seconds_total{{{API}}}{RATE})"
# Of a process that does little it says little how long it waits: hence the 0.6 of a core.
STARVED = f"max({CPU_WAIT} / clamp_min({CPU_WAIT} + {PROCESS_CPU}, 0.6))"
LOG_USE = f"rate(onsale_log_write_seconds_total{{{API}}}{RATE})"
# What it used and what it would have used: on a machine that is shared it is the same limit.
WORKER_USE = f"{PROCESS_CPU} + {CPU_WAIT}"
# Of the time in which a process could not go on: for want of a core, writing its log, computing.
_HELD_UP = f"{CPU_WAIT} + {LOG_USE} + {PROCESS_CPU}"
_STARVED_PART = f"max({CPU_WAIT} / ({_HELD_UP}))"
_LOG_PART = f"max({LOG_USE} / ({_HELD_UP}))"
_WORKER_PART = f"max(({WORKER_USE}) / ({_HELD_UP}))"
LOOP_LAG = mean("onsale_event_loop_lag_seconds", API, "instance")
_ORDERS = f"sum(rate(onsale_admissions_total{{{API}}}{RATE}))"
_TURNED_AWAY = f'{API},decision="shed"'
SHED = f"{or_zero(rate('onsale_admissions_total', _TURNED_AWAY))} / ({_ORDERS} > 0)"

_BATCH = "onsale_batch_duration_seconds"
_GATE = f'{API},stage="gate"'
_LEDGER = f'{API},stage=~"ledger.*"'
GATE_USE = rate(f"{_BATCH}_sum", _GATE, "instance")
GATE_SECONDS = mean(_BATCH, _GATE)
REDIS_USE = f"sum(rate(redis_commands_duration_seconds_total{RATE}))"
REDIS_CPU = (
    f"sum(rate(redis_cpu_user_main_thread_seconds_total{RATE}))"
    f" + sum(rate(redis_cpu_sys_main_thread_seconds_total{RATE}))"
)
LEDGER_USE = f"{rate(f'{_BATCH}_sum', _LEDGER, 'instance')} / {LEDGER_BATCHES:.0f}"
LEDGER_SECONDS = mean(_BATCH, _LEDGER)
POOL_USE = (
    f'sum by (instance)(onsale_db_pool_connections{{{API},state="in_use"}})'
    f" / sum by (instance)(onsale_db_pool_size_max{{{API}}})"
)
_ACQUIRED = rate("onsale_db_pool_acquire_seconds_sum", API)
_QUERIED = rate("onsale_db_query_duration_seconds_sum", API)
POOL_SECONDS = mean("onsale_db_pool_acquire_seconds", API)


def _sessions(labels: str, among: str) -> str:
    """Of the sessions at work that were met `among` the scrapes, the share that waited for that.

    Summed over time, for a state that no session is in has no sample.
    """
    waiting, working = (
        or_zero(f'sum(sum_over_time(postgres_sessions_count{{state="active",{each}}}{RATE}))')
        for each in (labels, among)
    )
    return f"{waiting} / clamp_min({working}, 1)"


LOCKED = _sessions('wait_type="Lock"', 'wait_type!=""')
LOCK_SECONDS = f"max(max_over_time(postgres_lock_waits_longest_seconds{RATE})) * ({LOCKED})"
# Of those that hold the locks: who waits for one waits for what its holder waits for.
WAL_WAITING = _sessions('wait=~"(?i)walsync|walwrite|commitdelay|syncrep"', 'wait_type!="Lock"')
# Without the wait for a connection, which a batch contains and the log has no part in.
QUERY_SECONDS = mean("onsale_db_query_duration_seconds", API)
WAL_SECONDS = f"{QUERY_SECONDS} * ({WAL_WAITING})"
WAL_USE = f"sum(rate(postgres_wal_sync_seconds_total{RATE}))"
_PAYMENT = "onsale_payment_duration_seconds"
PAYMENT_USE = f"{mean(_PAYMENT, API)} / {PAYMENT_TIMEOUT_SECONDS:.0f}"


_JOBS = "onsale_batch_job_seconds_total"
_GATE_LOST = or_zero(rate(_JOBS, _GATE))
# Orders and payments wait in batches, and releases and reads by themselves: what was asked of the
# ledger and was no batch.
_BATCHED = f'{API},stage=~"(ledger|payment).*"'
_LEDGER_LOST = (
    f"({or_zero(rate(_JOBS, _BATCHED))}"
    f" + clamp_min({_QUERIED} + {_ACQUIRED} - {or_zero(rate(f'{_BATCH}_sum', _BATCHED))}, 0))"
)
_STORES = ("redis", "gate", "pool", "locks", "wal", "ledger")

STAGES: Sequence[Stage] = (
    Stage(
        "generator",
        "Load generator",
        "k6's CPU of what the machine has. Good: under 70 %; above, the generator is the limit"
        " and nothing to the right of it counts.",
        (
            Signal("CPU", GENERATOR_USE, "percentunit", 0.8),
            Signal("waits for a core, s/s", _GENERATOR_WAIT, "none"),
            Signal("dropped", or_zero(f"sum(k6_dropped_iterations_total{{{RUN}}})"), "none"),
        ),
        None,
        (),
        (
            "Give k6 cores of its own: another machine, or fewer things beside it.",
            "Lower --buyers or lengthen --seconds until k6 keeps up, and judge the service then.",
        ),
    ),
    Stage(
        "host",
        "Host CPU",
        "Of the time in which an API process could run, the share in which it got no core. Good:"
        " under 30 %; from 50 % on, everything below waits for a core.",
        (
            Signal("no core", STARVED, "percentunit", 0.5),
            Signal("CPU", HOST_USE, "percentunit"),
        ),
        None,
        ("logs",),
        (
            "Take whatever else runs off the machine, the load generator first.",
            "Add cores, or lift the CPU quota: more API processes would share what is short.",
        ),
        _STARVED_PART,
    ),
    Stage(
        "logs",
        "Log writes",
        "Share of time that the busiest API process spends writing log lines. Good: under 5 %;"
        " while a line is written, nothing else runs.",
        (Signal("writing", f"max({LOG_USE})", "percentunit", 0.25),),
        None,
        (),
        (
            "Log less: ONSALE_LOG_LEVEL=INFO writes no line for a request that goes well.",
            "Send standard error to a faster disk, or through a buffer that does not block.",
        ),
        _LOG_PART,
    ),
    Stage(
        "worker",
        "API process",
        "CPU that the busiest API process used or waited for, of the one core it can use. Good:"
        " under 70 %; above, start more of them (`--workers`).",
        (
            Signal("CPU wanted", f"max({WORKER_USE})", "percentunit", 0.85),
            Signal("CPU", f"max({PROCESS_CPU})", "percentunit"),
            Signal("in flight", f"sum(onsale_http_requests_in_flight{{{API}}})", "none"),
        ),
        None,
        ("host", "logs"),
        (
            "Start more API processes (--workers), one for each core that is left.",
            "If a request costs more than it did, profile it: `onsale bench` says what is usual.",
        ),
        _WORKER_PART,
    ),
    Stage(
        "loop",
        "Event loop",
        "How late the loop wakes a sleeper, on average. Good: under 5 ms; above 25 ms with CPU"
        " left, something blocks it.",
        (Signal("lag", f"max({LOOP_LAG})", "s", _TENTH / 2),),
        None,
        ("host", "logs", "worker"),
        (
            "Something computes or waits within the event loop: look for it with `py-spy dump`.",
            "Move it to a thread or another process, or cut it into pieces.",
        ),
    ),
    Stage(
        "valve",
        "In-flight limit",
        "Share of the orders that were turned away at the door. Good: 0 %; above, some stage below"
        " is full, or the limit is too small.",
        (
            Signal("shed", SHED, "percentunit", 0.01),
            Signal("limit", f"min(onsale_orders_in_flight_limit{{{API}}})", "none"),
        ),
        None,
        ("host", "logs", "worker", "loop", *_STORES),
        ("No stage behind it is full: raise ONSALE_ORDERS_IN_FLIGHT_MAX and …_BUSY_MAX.",),
        refuses=True,
    ),
    Stage(
        "gate",
        "Gate batches, the way to Redis",
        "How long a gate batch takes, on average. Good: under 5 ms; far more than Redis needs for"
        " it is spent on the way there.",
        (
            Signal("one batch", GATE_SECONDS, "s", _TENTH),
            Signal("under way", f"max({GATE_USE})", "percentunit"),
            Signal("errors", or_zero(rate("onsale_redis_errors_total", API)), "ops"),
        ),
        _GATE_LOST,
        ("redis", "worker", "loop", "logs"),
        (
            "Redis itself answers fast: look at the network between it and the API (ping, MTU,"
            " proxies, TLS), and bring the two closer.",
        ),
    ),
    Stage(
        "redis",
        "Redis main thread",
        "Share of time in which it runs commands. Good: under 70 %; one event cannot have more"
        " than this.",
        (
            Signal("running commands", REDIS_USE, "percentunit", 0.7),
            Signal("CPU", REDIS_CPU, "percentunit"),
            Signal("evicted", f"sum(rate(redis_evicted_keys_total{RATE}))", "ops"),
        ),
        _GATE_LOST,
        (),
        (
            "See who else uses this Redis: SLOWLOG GET, INFO commandstats, CLIENT LIST.",
            "Give the gate a Redis of its own; many events scale over a cluster.",
        ),
    ),
    Stage(
        "ledger",
        "Ledger batches",
        "How long a ledger batch takes, on average. Good: under 20 ms; above, orders queue for the"
        " ledger.",
        (
            Signal("one batch", LEDGER_SECONDS, "s", _TENTH),
            Signal("under way", f"max({LEDGER_USE})", "percentunit"),
            Signal("errors", or_zero(rate("onsale_db_errors_total", API)), "ops"),
        ),
        _LEDGER_LOST,
        ("pool", "locks", "wal", "host", "worker", "loop", "logs"),
        ("Postgres itself is slow: look at pg_stat_statements, its CPU and its checkpoints.",),
    ),
    Stage(
        "pool",
        "Ledger pool",
        "How long a transaction waits for a connection, on average. Good: under 1 ms; above 10 ms"
        " the pool is too small, or its connections are held for too long.",
        (
            Signal("wait", POOL_SECONDS, "s", _TENTH / 5),
            Signal("in use", f"max({POOL_USE})", "percentunit"),
            Signal("waiters", f"max(onsale_db_pool_waiters{{{API}}})", "none"),
        ),
        f"{_LEDGER_LOST} * {_ACQUIRED} / ({_ACQUIRED} + {_QUERIED} > 0)",
        ("locks", "wal", "host", "loop", "logs"),
        ("Raise ONSALE_DB_POOL_SIZE_MAX; all processes' together fit Postgres' max_connections.",),
    ),
    Stage(
        "locks",
        "Locks in Postgres",
        "The longest wait for a lock, by the share of working sessions that wait for one. Good: 0,"
        " save for a moment.",
        (
            Signal("wait", LOCK_SECONDS, "s", _TENTH),
            Signal("sessions", LOCKED, "percentunit"),
        ),
        f"{_LEDGER_LOST} * ({LOCKED})",
        # Who holds one may be in the midst of a transaction, and wait for the loop to go on.
        ("wal", "host", "worker", "loop", "logs"),
        (
            "Find who holds it: SELECT pid, pg_blocking_pids(pid), query FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock'.",
            "End a session that was left in a transaction (pg_terminate_backend), and keep batch"
            " jobs off the tiers' rows during a sale.",
        ),
    ),
    Stage(
        "wal",
        "WAL sync",
        "How long a transaction waits for the log to be on disk. Good: under 10 ms; above 50 ms the"
        " disk is the limit, and only bigger batches or a faster one help.",
        (
            Signal("of a transaction", WAL_SECONDS, "s", _TENTH),
            Signal("sessions", WAL_WAITING, "percentunit"),
            Signal("syncing", WAL_USE, "percentunit"),
        ),
        f"{_LEDGER_LOST} * ({WAL_WAITING})",
        # The service measures a transaction from within its loop.
        ("loop", "logs"),
        (
            "Put pg_wal on a faster disk, and other writers elsewhere.",
            "Look at commit_delay, synchronous_standby_names and wal_sync_method.",
        ),
    ),
    Stage(
        "payment",
        "Payment provider",
        "How long an authorisation takes, of the time it may. Good: under 25 %. No value means"
        " that nobody paid.",
        (
            Signal("of its time-out", PAYMENT_USE, "percentunit", 0.25),
            Signal("under way", rate(f"{_PAYMENT}_sum", API), "none"),
        ),
        rate(f"{_PAYMENT}_sum", API),
        ("host", "worker", "loop", "logs"),
        (
            "Ask the provider; each slow authorisation keeps one buyer waiting and nobody else.",
            "Let buyers hold first and pay after (a `card` event): the sale goes on meanwhile.",
        ),
    ),
)

# What buyers waited in all, a second: as k6 saw it, or as the service did where k6 was not told of.
CLIENT_SECONDS = f"histogram_sum(sum(rate(k6_http_req_duration_seconds{{{RUN}}}{RATE})))"
CLIENT_MEAN = (
    f"{CLIENT_SECONDS} / histogram_count(sum(rate(k6_http_req_duration_seconds{{{RUN}}}{RATE})))"
)
_SERVED = "onsale_http_request_duration_seconds"
_PURCHASES = f'{API},route=~"/v1/.+",route!~".+/stream"'
SERVER_SECONDS = rate(f"{_SERVED}_sum", _PURCHASES)
SERVER_MEAN = mean(_SERVED, _PURCHASES)
# Without those that were turned away, who are answered at once.
SERVED_MEAN = mean(_SERVED, f'{_PURCHASES},status_class="2xx"')
# What buyers waited for the event loop, a second: a request passes it when it comes, for its place
# in a batch, with each answer of gate and ledger, and when it is answered. Where the loop was all
# that was short, planted, requests took 5 to 10 times its lag.
_PASSES = 6
LOOP_SECONDS = (
    f"{_PASSES} * {rate(f'{_SERVED}_count', _PURCHASES)}"
    f" * ({mean('onsale_event_loop_lag_seconds', API)})"
)

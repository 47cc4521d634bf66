"""Each process of the service by itself: what it costs, and whether its loop keeps up."""

from monitoring.grafana.generate.panels import (
    NEUTRAL,
    Dashboard,
    Panel,
    Query,
    Row,
    above,
    below,
    stat,
)
from monitoring.grafana.generate.queries import PROCESS, RATE, mean, or_zero, quantile, rate

OURS = f'job=~"onsale-.+",{PROCESS}'

STATES = Row(
    "At a glance",
    (
        stat(
            "Processes",
            "That answer Prometheus. Good: as many as were started.",
            "none",
            below(1),
            f"count(up{{{OURS}}} == 1)",
            width=6,
        ),
        stat(
            "Youngest process",
            "Since its start. Good: as old as the last deployment; younger, one died and came"
            " back.",
            "s",
            below(5, 30),
            f"time() - max(process_start_time_seconds{{{OURS}}})",
            width=6,
        ),
        stat(
            "Builds that run",
            "Good: 1; more than one while a deployment rolls through.",
            "none",
            above(2, 3),
            f"count(count by (version)(onsale_build_info{{{PROCESS}}}))",
            width=6,
        ),
        stat(
            "Last pass of the reconciler",
            "How long ago one ended well. Good: under 10 s; it runs every second.",
            "s",
            above(10, 60),
            "time() - max(onsale_reconciler_last_success_timestamp_seconds > 0)",
            width=6,
        ),
    ),
    height=4,
)

COST = Row(
    "CPU and memory",
    (
        Panel(
            "CPU by process",
            "1 is a whole core, and one process cannot use more. Good: under 70 % at the peak.",
            "percentunit",
            above(0.7, 0.9),
            (
                Query(
                    f"sum by (job, instance)(rate(process_cpu_seconds_total{{{OURS}}}{RATE}))",
                    "{{job}} {{instance}}",
                ),
            ),
        ),
        Panel(
            "Memory by process",
            "Resident. Good: level after the first minutes; what climbs with every sale is a leak.",
            "bytes",
            above(1_073_741_824, 2_147_483_648),
            (
                Query(
                    f"sum by (job, instance)(process_resident_memory_bytes{{{OURS}}})",
                    "{{job}} {{instance}}",
                ),
            ),
        ),
        Panel(
            "File descriptors",
            "Open, of those that a process may have. Good: under 70 %; a buyer's connection is"
            " one.",
            "percentunit",
            above(0.7, 0.9),
            (
                Query(
                    f"process_open_fds{{{OURS}}} / process_max_fds{{{OURS}}}",
                    "{{job}} {{instance}}",
                ),
            ),
        ),
    ),
)

LOOP = Row(
    "Event loop and garbage",
    (
        Panel(
            "Loop lag, slowest 1 %",
            "How late the loop wakes a sleeper, by process. Good: under 10 ms; above 50 ms it is"
            " overloaded, or something blocks it.",
            "s",
            above(0.01, 0.05),
            (
                Query(
                    quantile(0.99, "onsale_event_loop_lag_seconds", PROCESS, "instance"),
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Loop lag, mean",
            "By process. Good: under 2 ms. A high p99 over a low mean is a pause now and then; both"
            " high is too much work.",
            "s",
            above(0.002, 0.02),
            (Query(mean("onsale_event_loop_lag_seconds", PROCESS, "instance"), "{{instance}}"),),
        ),
        Panel(
            "Requests in flight",
            "By process. Good: level under steady load, and about the same in each; what keeps"
            " climbing is a queue.",
            "none",
            above(1_000, 10_000),
            (
                Query(
                    f"sum by (instance)(onsale_http_requests_in_flight{{{PROCESS}}})",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Collections of garbage",
            "A second, by generation. Good: under 1 for generation 2; each walks over all objects.",
            "ops",
            above(1, 10),
            (
                Query(
                    f"sum by (job, generation)(rate(python_gc_collections_total{{{OURS}}}{RATE}))",
                    "{{job}} generation {{generation}}",
                ),
            ),
        ),
        Panel(
            "Requests by process",
            "A second. Good: about the same in each API process; one that has more is where the"
            " slow answers are.",
            "reqps",
            NEUTRAL,
            (
                Query(
                    f"sum by (instance)(rate(onsale_http_requests_total{{{PROCESS}}}{RATE}))",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Bytes answered",
            "A second, by process: bodies alone. Good: a few hundred bytes an order.",
            "Bps",
            NEUTRAL,
            (
                Query(
                    f"sum by (instance)(rate(onsale_http_response_bytes_total{{{PROCESS}}}{RATE}))",
                    "{{instance}}",
                ),
            ),
        ),
    ),
)

BACKGROUND = Row(
    "Sweeper, reconciler, outbox, webhooks",
    (
        Panel(
            "Age of the reconciler's last good pass",
            "Good: under 10 s. While it grows nothing mends what a crash left.",
            "s",
            above(10, 60),
            (
                Query(
                    "time() - max(onsale_reconciler_last_success_timestamp_seconds > 0)",
                    "last pass",
                ),
            ),
        ),
        Panel(
            "Lags",
            "The longest overdue hold, and the longest that a webhook message has waited. Good:"
            " under 2 s.",
            "s",
            above(1, 2),
            (
                Query("max(onsale_sweeper_lag_seconds)", "expiring holds"),
                Query("max(onsale_webhook_lag_seconds)", "webhooks"),
            ),
        ),
        Panel(
            "Backlogs",
            "Captures and voids to be made, and messages to be sent. Good: back at 0 within"
            " seconds.",
            "none",
            above(100, 1_000),
            (
                Query("max(onsale_outbox_backlog)", "outbox"),
                Query("max(onsale_webhook_backlog)", "webhooks"),
            ),
        ),
        Panel(
            "Webhooks by outcome",
            "Attempts a second. Good: delivered; anything else is tried again, by and by.",
            "ops",
            NEUTRAL,
            (
                Query(
                    or_zero(rate("onsale_webhook_attempts_total", 'outcome="delivered"')),
                    "delivered",
                ),
                Query(
                    or_zero(rate("onsale_webhook_attempts_total", 'outcome!="delivered"')),
                    "not delivered",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "One webhook attempt",
            "Mean, sent and answered. Good: under a second; a receiver that is slow holds up its"
            " own messages alone.",
            "s",
            above(1, 5),
            (
                Query(
                    or_zero(mean("onsale_webhook_attempt_duration_seconds", 'job=~".+"')),
                    "attempt",
                ),
            ),
        ),
    ),
)

WORKERS = Dashboard(
    "workers",
    "Worker runtime",
    "Each process of the service by itself: CPU, memory, event loop, garbage, background work.",
    (STATES, COST, LOOP, BACKGROUND),
)

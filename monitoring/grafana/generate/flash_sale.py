"""One load test at a glance: the client beside the server, the stock, and who was served."""

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
from monitoring.grafana.generate.queries import (
    API,
    BUYERS,
    EVENT,
    LATENCY,
    PLACE,
    PLACE_AT_SERVER,
    PROCESS,
    RUN,
    client_quantile,
    errors,
    mean,
    or_zero,
    quantile,
    rate,
    share,
    stock,
)

CLIENT_LATENCY = "k6_http_req_duration_seconds"
# What an objective of 99.95 % leaves for errors.
ERROR_BUDGET = 0.0005

FAILED_REQUESTS = share(
    f'sum(k6_http_reqs_total{{{RUN},expected_response="false"}})',
    f"sum(k6_http_reqs_total{{{RUN}}})",
)


def stock_panel(title: str, description: str, metric: str) -> Panel:
    """One line per tier of the chosen events."""
    queries = (Query(stock(metric), "{{event}} {{tier}}"),)
    return Panel(title, description, "none", NEUTRAL, queries)


AT_A_GLANCE = Row(
    "At a glance",
    (
        stat(
            "Oversold tickets",
            "Must be 0, always. No value at all means that no worker reports its books.",
            "none",
            above(1),
            f"sum(max by (event)(onsale_oversold_tickets{{{EVENT}}}))",
            width=3,
        ),
        stat(
            "Tickets left",
            "Falls to 0 when a sale sells out, and rises only when holds end unpaid.",
            "none",
            NEUTRAL,
            f"sum({stock('onsale_stock_available')})",
            width=3,
        ),
        stat(
            "Tickets sold",
            "Confirmed. Falls by refunds alone; ends at the capacity of a sold-out event.",
            "none",
            NEUTRAL,
            f"sum({stock('onsale_stock_sold')})",
            width=3,
        ),
        stat(
            "Buyers served",
            "k6's buyers who got an order, or the true answer that nothing is left. Good: 99.5 %"
            " and more.",
            "percentunit",
            below(0.995, 0.999),
            f"avg(k6_buyers_served_rate{{{RUN}}})",
            width=3,
        ),
        stat(
            "Client's p99",
            "The slowest 1 % of purchase requests as k6 saw them, with every queue on the way."
            " Good: under 500 ms.",
            "s",
            above(0.5, 1),
            client_quantile(0.99, CLIENT_LATENCY, PLACE),
            width=3,
        ),
        stat(
            "Server's p99",
            "The same by the service's own clock, which starts when the application sees a request."
            " Good: under 500 ms.",
            "s",
            above(0.5, 1),
            quantile(0.99, LATENCY, PLACE_AT_SERVER),
            width=3,
        ),
        stat(
            "Server errors",
            "Answers with 5xx among all answers to buyers. Good: under 0.05 %. A sold-out answer"
            " (409) is no error.",
            "percentunit",
            above(0.0005, 0.001),
            errors(),
            width=3,
        ),
        stat(
            "Error budget of the run",
            "How much of what 99.95 % availability allows for this many requests the run used up."
            " Good: under 50 %; from 100 % on the run alone broke the objective.",
            "percentunit",
            above(0.5, 1),
            f"{FAILED_REQUESTS} / {ERROR_BUDGET}",
            width=3,
        ),
    ),
    height=4,
)

CLIENT_AND_SERVER = Row(
    "Client against server",
    (
        Panel(
            "Requests offered and served",
            "Good: the server's line lies on the client's. A gap is what waits before the"
            " application sees it, or is lost.",
            "reqps",
            NEUTRAL,
            (
                Query(rate("k6_http_reqs_total", RUN), "sent by k6"),
                Query(rate("onsale_http_requests_total", BUYERS), "answered by the API"),
                Query(rate("k6_buyers_total", RUN), "buyers arrived"),
            ),
            width=6,
        ),
        Panel(
            "Arrivals dropped",
            "Buyers that k6 had no virtual user free for, since the run began. Good: 0. Otherwise"
            " the crowd was smaller than was asked for, and the figures flatter the service.",
            "none",
            above(1),
            (
                Query(
                    f"sum(k6_dropped_iterations_total{{{RUN}}}) or 0 * sum(k6_vus{{{RUN}}})",
                    "dropped",
                ),
            ),
            width=6,
        ),
        Panel(
            "The slowest 1 %, on both sides",
            "Good: close together and under 500 ms. A client far above the server waits where the"
            " server does not look: in the socket's queue, because the event loop is busy.",
            "s",
            above(0.5, 1),
            (
                Query(client_quantile(0.99, CLIENT_LATENCY, PLACE), "client p99"),
                Query(quantile(0.99, LATENCY, PLACE_AT_SERVER), "server p99"),
                Query(quantile(0.99, "onsale_event_loop_lag_seconds", API), "loop lag p99"),
            ),
            width=6,
        ),
        Panel(
            "Pressure of the host",
            "The share of time in which something that could run waited for CPU or disk (PSI)."
            " Good: under 20 %. On a machine shared with k6 the generator itself waits.",
            "percentunit",
            above(0.2, 0.6),
            (
                Query(
                    "max(rate(node_pressure_cpu_waiting_seconds_total[$__rate_interval]))", "CPU"
                ),
                Query(
                    "max(rate(node_pressure_io_waiting_seconds_total[$__rate_interval]))", "disk"
                ),
                Query(
                    "max(rate(node_pressure_memory_waiting_seconds_total[$__rate_interval]))",
                    "memory",
                ),
            ),
            width=6,
        ),
    ),
)

GENERATOR = Row(
    "The load generator",
    (
        Panel(
            "k6's CPU",
            "In cores. Good: well below what there is; at the line, arrivals come late and what is"
            " measured is the generator.",
            "none",
            NEUTRAL,
            (
                Query(rate("k6_process_cpu_seconds_total", RUN), "used"),
                Query(rate("k6_process_cpu_wait_seconds_total", RUN), "waited for"),
                Query(f"max(k6_process_cpus{{{RUN}}})", "there are"),
            ),
        ),
        Panel(
            "Virtual users",
            "Each is a buyer in flight. Good: far below the most there may be.",
            "none",
            NEUTRAL,
            (
                Query(f"sum(k6_vus{{{RUN}}})", "in use or waiting"),
                Query(f"sum(k6_vus_max{{{RUN}}})", "made"),
            ),
        ),
        Panel(
            "Answers by status, as k6 saw them",
            "Good: 201 while there is stock and 409 after it. Status 0 is a request without an"
            " answer.",
            "reqps",
            NEUTRAL,
            (Query(rate("k6_http_reqs_total", RUN, "status"), "{{status}}"),),
            stacked=True,
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

ORDERS = Row(
    "What became of the orders",
    (
        Panel(
            "Orders by outcome",
            "Good: held or confirmed while there is stock, then sold_out. The outcome error should"
            " not appear.",
            "reqps",
            NEUTRAL,
            (
                Query(
                    rate("onsale_orders_total", f"{EVENT},{PROCESS}", "outcome"),
                    "{{outcome}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Errors that clients see",
            "429 and 5xx by status. Good: 0, or 429 and 503 while load is shed on purpose.",
            "reqps",
            above(1, 10),
            (
                Query(
                    or_zero(rate("onsale_http_requests_total", f'{BUYERS},status="429"')),
                    "429 come again later",
                ),
                Query(
                    or_zero(rate("onsale_http_requests_total", f'{BUYERS},status="503"')),
                    "503 overloaded or a store away",
                ),
                Query(
                    or_zero(
                        rate("onsale_http_requests_total", f'{BUYERS},status=~"5..",status!="503"')
                    ),
                    "other 5xx",
                ),
            ),
        ),
        Panel(
            "Admission decisions",
            "Good: all accepted. Shed and rate_limited are orders turned away to protect the rest.",
            "reqps",
            NEUTRAL,
            (
                Query(
                    rate("onsale_admissions_total", PROCESS, "decision"),
                    "{{decision}}",
                ),
            ),
            stacked=True,
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
            above(256, 512),
            (
                Query(mean("onsale_batch_size", PROCESS, "stage"), "{{stage}} mean"),
                Query(quantile(0.95, "onsale_batch_size", PROCESS, "stage"), "{{stage}} p95"),
            ),
        ),
        Panel(
            "Batch duration",
            "p50 and p99 by stage. Good: the gate within 5 ms, the ledger within 50 ms, which is"
            " what its disk needs to sync.",
            "s",
            above(0.05, 0.5),
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
            above(512, 10_000),
            (Query(f"max by (stage)(onsale_batch_queue_depth{{{PROCESS}}})", "{{stage}}"),),
        ),
    ),
)

FLASH_SALE = Dashboard(
    "flash-sale",
    "Flash sale run",
    "One sale, or one load test, at a glance: from the crowd to the stock.",
    (AT_A_GLANCE, CLIENT_AND_SERVER, GENERATOR, STOCK, ORDERS, GROUP_COMMIT),
)

"""The golden signals of the service, its objectives, and the alerts that fire."""

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
    LATENCY,
    PROCESS,
    RATE,
    errors,
    quantile,
    rate,
    share,
)
from monitoring.prometheus.objectives import BURN_WINDOWS, OBJECTIVES, WINDOW_DAYS

OBJECTIVE = {objective.name: objective.ratio for objective in OBJECTIVES}
AVAILABILITY, FAST_ENOUGH = OBJECTIVE["availability"], OBJECTIVE["latency"]
PURCHASE = OBJECTIVE["purchase"]
FACTORS = [window.factor for window in BURN_WINDOWS]
# At the first somebody is told, at the second woken.
WARNING_FACTOR, PAGE_FACTOR = min(FACTORS), max(FACTORS)


def within(seconds: str, window: str) -> str:
    """The share of answers that came in time and were no server errors."""
    good = f'{BUYERS},status_class!="5xx",le="{seconds}"'
    return share(
        f"sum(rate({LATENCY}_bucket{{{good}}}{window}))",
        f"sum(rate({LATENCY}_count{{{BUYERS}}}{window}))",
    )


def burn(window: str) -> str:
    """How many times faster than allowed the availability budget is spent within a window."""
    return f"{errors(window=window)} / {1 - AVAILABILITY:.4f}"


def slow_burn(window: str) -> str:
    """The same of the latency budget."""
    return f"(1 - {within('0.5', window)}) / {1 - FAST_ENOUGH:.2f}"


RANGE = "[$__range]"

ATTAINMENT = Row(
    "Objectives, over the time that is shown",
    (
        stat(
            "Availability",
            "Answers without 5xx. Good: 99.95 % and more.",
            "percentunit",
            below(0.999, AVAILABILITY),
            f"1 - {errors(window=RANGE)}",
        ),
        stat(
            "Fast enough",
            "Answered within 500 ms and not 5xx. Good: 99 % and more.",
            "percentunit",
            below(0.98, FAST_ENOUGH),
            within("0.5", RANGE),
        ),
        stat(
            "Good purchases",
            "Admitted orders that were held, confirmed or properly refused. Good: 99.5 % and more.",
            "percentunit",
            below(0.99, PURCHASE),
            "1 - "
            + share(
                f'sum(rate(onsale_orders_total{{{PROCESS},outcome="error"}}{RANGE}))',
                f"sum(rate(onsale_orders_total{{{PROCESS}}}{RANGE}))",
            ),
        ),
        stat(
            "Availability budget left",
            "Of what 99.95 % allow for the time that is shown. Good: more than half; at 0 no more"
            " risks are taken.",
            "percentunit",
            below(0, 0.5),
            f"1 - {burn(RANGE)}",
        ),
        stat(
            "Latency budget left",
            "Of what 99 % allow for the time that is shown. Good: more than half.",
            "percentunit",
            below(0, 0.5),
            f"1 - {slow_burn(RANGE)}",
        ),
        stat(
            "Alerts that fire",
            "Besides the watchdog, which always does. Good: 0.",
            "none",
            above(1),
            'sum(ALERTS{alertstate="firing",alertname!="Watchdog"}) or vector(0)',
        ),
    ),
    height=4,
)

SIGNALS = Row(
    "Golden signals",
    (
        Panel(
            "Traffic",
            "Buyers' requests by route. Good: what the crowd sends; a fall to 0 while a sale is"
            " open is an outage.",
            "reqps",
            NEUTRAL,
            (Query(rate("onsale_http_requests_total", BUYERS, "route"), "{{route}}"),),
            width=6,
            stacked=True,
        ),
        Panel(
            "Errors",
            "The share of 5xx. Good: under 0.05 %, which is all that the objective allows.",
            "percentunit",
            above(0.0005, 0.001),
            (Query(errors(), "5xx"),),
            width=6,
        ),
        Panel(
            "Latency",
            "Of all buyers' calls, by the server's clock. Good: p95 under 500 ms, p99 under 1 s.",
            "s",
            above(0.5, 1),
            tuple(
                # The points are the histogram's, whichever quantile is asked: once is enough.
                Query(quantile(rank, LATENCY, BUYERS), f"p{rank * 100:.0f}", exemplars=rank == 0.99)
                for rank in (0.5, 0.95, 0.99)
            ),
            width=6,
        ),
        Panel(
            "Saturation",
            "CPU of the busiest API process, and p99 of loop lag as a share of 100 ms. Good: under"
            " 70 %.",
            "percentunit",
            above(0.7, 0.9),
            (
                Query(f"max(rate(process_cpu_seconds_total{{{API}}}{RATE}))", "CPU"),
                Query(f"{quantile(0.99, 'onsale_event_loop_lag_seconds', API)} / 0.1", "loop lag"),
            ),
            width=6,
        ),
    ),
)

BURN = Row(
    "How fast the budgets are spent",
    (
        Panel(
            "Availability burn rate",
            "1 spends the budget of 30 days in 30 days. Good: under 1. At 14.4 over an hour and"
            " five minutes somebody is paged.",
            "none",
            above(WARNING_FACTOR, PAGE_FACTOR),
            tuple(Query(burn(f"[{window}]"), window) for window in ("5m", "1h", "6h")),
        ),
        Panel(
            "Latency burn rate",
            "The same of the budget for slow answers. Good: under 1.",
            "none",
            above(WARNING_FACTOR, PAGE_FACTOR),
            tuple(Query(slow_burn(f"[{window}]"), window) for window in ("5m", "1h", "6h")),
        ),
        Panel(
            f"Budget left of {WINDOW_DAYS} days",
            "By objective, recorded every five minutes. Good: more than half; at 0 no more risks"
            " are taken until it has grown again.",
            "percentunit",
            below(0, 0.5),
            (Query("max by (slo)(onsale:slo_budget_left:ratio)", "{{slo}}"),),
        ),
    ),
)

HEALTH = Row(
    "Alerts and health",
    (
        Panel(
            "Alerts",
            "Which alert fired when. Good: the watchdog alone, which always does, and so shows that"
            " alerting works.",
            "none",
            above(1),
            (
                Query(
                    'max by (alertname)(ALERTS{alertstate="firing",alertname!="Watchdog"})',
                    "{{alertname}}",
                ),
                Query(
                    'max(ALERTS{alertstate="firing",alertname="Watchdog"}) - 1',
                    "the watchdog: alerts work",
                ),
            ),
            "state-timeline",
            width=12,
        ),
        Panel(
            "Everything that is scraped",
            "1 while a process or exporter answers Prometheus. Good: 1 everywhere.",
            "bool_on_off",
            below(1),
            (Query("min by (job, instance)(up)", "{{job}} {{instance}}"),),
            "state-timeline",
            width=12,
        ),
        Panel(
            "Stores reachable",
            "1 when every process reached the store at its last check, 0 when one did not."
            " Good: 1.",
            "bool_on_off",
            below(1),
            (Query(f"min by (dependency)(onsale_dependency_up{{{PROCESS}}})", "{{dependency}}"),),
            "state-timeline",
            width=12,
        ),
        Panel(
            "How the gate decides",
            "1 for the mode in force in any process. Good: redis alone; ledger_only is slower and"
            " just as exact.",
            "bool_on_off",
            NEUTRAL,
            (Query(f"max by (mode)(onsale_gate_mode{{{PROCESS}}})", "{{mode}}"),),
            "state-timeline",
            width=12,
        ),
        Panel(
            "Circuit breakers",
            "1 while every process calls the store, 0 while one does not even try. Good: 1.",
            "bool_on_off",
            below(1),
            (
                Query(
                    "min by (dependency)"
                    f'(onsale_circuit_breaker_state{{{PROCESS},state="closed"}})',
                    "{{dependency}}",
                ),
            ),
            "state-timeline",
            width=12,
        ),
    ),
)

SERVICE = Dashboard(
    "service",
    "Service and objectives",
    "The golden signals, what is left of the error budgets, and the alerts that fire.",
    (ATTAINMENT, SIGNALS, BURN, HEALTH),
)

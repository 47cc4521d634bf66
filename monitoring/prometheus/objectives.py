"""The service's objectives, said once: the rules, their tests and docs/slo.md follow from them."""

from dataclasses import dataclass
from typing import Literal

WINDOW_DAYS = 30

# The buyers' calls: no probes, and no streams, which last as long as somebody looks.
BUYERS = 'route=~"/v1/.+",route!~".+/stream"'
REQUESTS = "onsale_http_requests_total"
SECONDS = "onsale_http_request_duration_seconds"
ORDERS = "onsale_orders_total"

LATENCY_SECONDS = 0.5
P95_SECONDS_MAX = 0.5
P99_SECONDS_MAX = 1.0
ERROR_RATIO_MAX = 0.001


@dataclass(frozen=True)
class Objective:
    """One objective: the share of events that are to be good.

    `all_events` and `good_events` are selectors of counters; where it is easier said, `bad_events`
    takes the place of `good_events`.
    """

    name: str
    alert: str
    ratio: float
    meaning: str
    all_events: str
    bad_events: str = ""
    good_events: str = ""

    @property
    def budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.ratio, 6)


@dataclass(frozen=True)
class BurnWindow:
    """Alert when the budget burns `factor` times too fast over both windows."""

    long: str
    short: str
    factor: float
    pending: str
    severity: Literal["critical", "warning"]

    def budget_share(self) -> float:
        """How much of the whole budget is gone when the long window is full."""
        return self.factor * hours(self.long) / (WINDOW_DAYS * 24)


OBJECTIVES = (
    Objective(
        "availability",
        "OnsaleErrorBudgetBurn",
        0.9995,
        "answered, and not with 5xx",
        all_events=f"{REQUESTS}{{{BUYERS}}}",
        bad_events=f'{REQUESTS}{{{BUYERS},status=~"5.."}}',
    ),
    Objective(
        "latency",
        "OnsaleLatencyBudgetBurn",
        0.99,
        "answered within 500 ms, and not with 5xx",
        all_events=f"{SECONDS}_count{{{BUYERS}}}",
        # Python writes the bucket like this.
        good_events=f'{SECONDS}_bucket{{{BUYERS},le="{LATENCY_SECONDS}",status_class!="5xx"}}',
    ),
    Objective(
        "purchase",
        "OnsalePurchaseBudgetBurn",
        0.995,
        "an order is held or confirmed, or gets the refusal that is due to it",
        all_events=f"{ORDERS}",
        bad_events=f'{ORDERS}{{outcome="error"}}',
    ),
)

# Google's SRE workbook, chapter 5, table 5-8, with the further window of kubernetes-mixin.
BURN_WINDOWS = (
    BurnWindow("1h", "5m", 14.4, "2m", "critical"),
    BurnWindow("6h", "30m", 6, "15m", "critical"),
    BurnWindow("1d", "2h", 3, "1h", "warning"),
    BurnWindow("3d", "6h", 1, "3h", "warning"),
)


def hours(duration: str) -> float:
    """The hours of a duration as Prometheus writes it."""
    return float(duration[:-1]) * {"s": 1 / 3600, "m": 1 / 60, "h": 1, "d": 24}[duration[-1]]


def ratio_windows() -> list[str]:
    """Every window that a ratio is recorded for, the shortest first."""
    wanted = {window for burn in BURN_WINDOWS for window in (burn.long, burn.short)}
    return sorted({*wanted, f"{WINDOW_DAYS}d"}, key=hours)

"""How the metrics are asked: the selectors and the shapes that dashboards and verdict share.

Grafana replaces `$instance` and `$testid` by what was chosen, everything (`.+`) by default, and
`$__rate_interval` by four scrapes or more; the verdict does the same for the run that it reads.
"""

RATE = "[$__rate_interval]"

# A process of the service; its exporters and stores have no variable, there is one of each.
PROCESS = 'instance=~"$instance"'
API = f'job="onsale-api",{PROCESS}'
# The buyers' calls: no probes, and no streams, which last as long as somebody looks.
BUYERS = f'{PROCESS},route=~"/v1/.+",route!~".+/stream"'
# One run of k6.
RUN = 'testid=~"$testid"'


def rate(metric: str, labels: str = "", *by: str) -> str:
    """How fast a counter grows, a second, over all series or one line per label in `by`."""
    groups = f" by ({', '.join(by)})" if by else ""
    selector = f"{metric}{{{labels}}}" if labels else metric
    return f"sum{groups}(rate({selector}{RATE}))"


def quantile(rank: float, metric: str, labels: str, *by: str) -> str:
    """The `rank` quantile of a histogram's last few scrapes, one line per label in `by`."""
    groups = ", ".join(("le", *by))
    return (
        f"histogram_quantile({rank}, sum by ({groups}) (rate({metric}_bucket{{{labels}}}{RATE})))"
    )


def mean(metric: str, labels: str, *by: str) -> str:
    """The mean of a histogram's last few scrapes; no line while nothing is observed."""
    total, count = (rate(f"{metric}_{part}", labels, *by) for part in ("sum", "count"))
    return f"{total} / ({count} > 0)"


def busy(metric: str, labels: str, *by: str) -> str:
    """How many of what a histogram times were under way on average: 1 is one all the time."""
    return rate(f"{metric}_sum", labels, *by)


def or_zero(expression: str) -> str:
    """An aggregation that is 0, not nothing, where there is no series yet."""
    return f"({expression} or vector(0))"

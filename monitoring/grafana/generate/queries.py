"""How the metrics are asked: the selectors, and the shapes that many panels share.

What the verdict of `onsale bottleneck` asks as well is `onsale.bottleneck.promql`'s. Grafana
replaces `$event` as it does the variables there.
"""

from onsale.bottleneck.promql import API as API
from onsale.bottleneck.promql import BUYERS as BUYERS
from onsale.bottleneck.promql import PROCESS as PROCESS
from onsale.bottleneck.promql import RATE as RATE
from onsale.bottleneck.promql import RUN as RUN
from onsale.bottleneck.promql import busy as busy
from onsale.bottleneck.promql import mean as mean
from onsale.bottleneck.promql import or_zero as or_zero
from onsale.bottleneck.promql import quantile as quantile
from onsale.bottleneck.promql import rate as rate

EVENT = 'event=~"$event"'
PLACE = f'{RUN},name="POST /v1/events/{{event_id}}/orders"'
# The same requests as each side counts them: those that place an order.
PLACE_AT_SERVER = f'{PROCESS},method="POST",route="/v1/events/{{event_id}}/orders"'

LATENCY = "onsale_http_request_duration_seconds"


def client_quantile(rank: float, metric: str, labels: str) -> str:
    """The same of what k6 saw: its histograms are native, and have no buckets to name."""
    return f"histogram_quantile({rank}, sum(rate({metric}{{{labels}}}{RATE})))"


def share(part: str, whole: str) -> str:
    """What part of `whole` is `part`; no value where there is no whole, for 0/0 is no answer."""
    return f"{or_zero(part)} / ({whole} > 0)"


def stock(metric: str) -> str:
    """Stock by tier. Every process reports the same books, so the highest report, not the sum."""
    return f"max by (event, tier)({metric}{{{EVENT}}})"


def errors(status: str = "5..", window: str = RATE) -> str:
    """The share of buyers' answers that have such a status."""
    requests = "onsale_http_requests_total"
    return share(
        f'sum(rate({requests}{{{BUYERS},status=~"{status}"}}{window}))',
        f"sum(rate({requests}{{{BUYERS}}}{window}))",
    )

"""The sweeper: expires holds that were not paid in time.

The ledger decides, by its own clock, in batches that two sweepers share without waiting for each
other; then the gate gets the seats back. Where the gate does not answer, the reconciler gives the
same ids back later.
"""

from collections import defaultdict

from onsale.ledger.ledger import OrderKey
from onsale.observability import metrics
from onsale.sales import meters
from onsale.sales.service import Service

# A batch of this size is a few milliseconds of the tiers' locks.
BATCH_ORDERS_MAX = 500


async def run_once(service: Service) -> int:
    """Expire every hold that is overdue now; how many that were.

    Raises `LedgerUnavailable`. Doing it again, or elsewhere at the same time, expires none twice.
    """
    metrics.sweeper_lag_seconds.set(await service.ledger.oldest_overdue_seconds())
    expired = 0
    while True:
        keys = await service.ledger.expire(BATCH_ORDERS_MAX)
        await _give_back(service, keys)
        expired += len(keys)
        if len(keys) < BATCH_ORDERS_MAX:
            return expired


async def _give_back(service: Service, keys: list[OrderKey]) -> None:
    by_event: dict[str, list[OrderKey]] = defaultdict(list)
    for key in keys:
        by_event[key.event_id].append(key)
    for event_id, ended in by_event.items():
        meters.ended(ended[0], "expired", len(ended))
        sale = await service.catalog.reload(event_id)
        await service.give_back(sale, [key.order_id for key in ended])

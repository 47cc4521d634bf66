"""Every key of the gate.

All keys of an event share its id as hash tag, so that they live in one slot of a Redis Cluster and
one script may touch them all:

    onsale:{event}:sale      hash    epoch, loading, switch, version (of switch and capacities),
                                     opens_ms, closes_ms, limit
    onsale:{event}:avail     hash    tier number → units left
    onsale:{event}:capacity  hash    tier number → units there are
    onsale:{event}:orders    hash    order id (16 bytes) → what it took (see `codec`)
    onsale:{event}:buyers    hash    buyer ref (8 bytes) → units; kept only where there is a limit
    onsale:{event}:seen      string  log of the orders that were ever admitted: of each the first
                                     8 bytes of its id

Rate limits are nobody's event. Their buckets share one slot, so that one call decides a batch; a
node does many times as many as processes ask for.

    onsale:{limits}:{lane}:{who}  string  when the bucket is full again (microseconds since 1970)

The invariant of every script: `avail = capacity − Σ orders`.
"""

from functools import lru_cache
from typing import NamedTuple


class EventKeys(NamedTuple):
    """The keys of one event."""

    sale: str
    avail: str
    capacity: str
    orders: str
    buyers: str
    seen: str


@lru_cache(maxsize=1024)
def event_keys(event_id: str) -> EventKeys:
    """The six keys of an event."""
    return EventKeys(*(f"onsale:{{{event_id}}}:{part}" for part in EventKeys._fields))


def limit_key(lane: str, who: str) -> str:
    """The bucket of somebody in a lane of the rate limits."""
    return f"onsale:{{limits}}:{lane}:{who}"

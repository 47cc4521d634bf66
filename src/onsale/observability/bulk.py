"""A histogram that takes many values at once: one by one they cost more than what they measure."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from time import time
from typing import Any

from prometheus_client import Histogram
from prometheus_client.samples import Exemplar


class BulkHistogram(Histogram):
    """prometheus_client's histogram, `observe_many` and `set_exemplar`."""

    # The library's own state, which it gives no types.
    _upper_bounds: list[float]
    _buckets: list[Any]
    _sum: Any

    def observe_many(self, amounts: Sequence[float]) -> None:
        """What `observe` does, for each of the amounts."""
        counts = [0] * len(self._upper_bounds)
        for amount in amounts:
            counts[bisect_left(self._upper_bounds, amount)] += 1
        self._sum.inc(sum(amounts))
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)

    def set_exemplar(self, amount: float, labels: Mapping[str, str]) -> None:
        """Show one that was observed, by now or soon, beside its bucket. Only the exposition of
        OpenMetrics has it, which Prometheus asks for.
        """
        exemplar = Exemplar(dict(labels), amount, time())
        self._buckets[bisect_left(self._upper_bounds, amount)].set_exemplar(exemplar)

"""Many values at once are counted as one by one."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from onsale.observability.bulk import BulkHistogram

BOUNDS = (0.1, 0.5, 1.0)
# The bounds themselves belong to the bucket below them.
AMOUNTS = st.lists(st.sampled_from(BOUNDS) | st.floats(0, 3))


@given(AMOUNTS, AMOUNTS)
def test_many_at_once_are_counted_as_one_by_one(first: list[float], then: list[float]) -> None:
    """Seen red with `bisect_right`, which moves the bounds themselves to the bucket above."""
    at_once, one_by_one = _histogram(), _histogram()
    for amounts in (first, then):
        at_once.labels("a").observe_many(amounts)
        child = one_by_one.labels("a")
        for amount in amounts:
            child.observe(amount)
    assert _counts(at_once) == _counts(one_by_one)
    assert abs(_sum(at_once) - _sum(one_by_one)) < 1e-9


def _histogram() -> BulkHistogram:
    return BulkHistogram("h", "h", ["label"], buckets=BOUNDS, registry=CollectorRegistry())


def _samples(histogram: BulkHistogram) -> list[Sample]:
    return [sample for family in histogram.collect() for sample in family.samples]


def _counts(histogram: BulkHistogram) -> list[tuple[str, str | None, float]]:
    return [
        (sample.name, sample.labels.get("le"), sample.value)
        for sample in _samples(histogram)
        if sample.name != "h_sum"
    ]


def _sum(histogram: BulkHistogram) -> float:
    return sum(sample.value for sample in _samples(histogram) if sample.name == "h_sum")

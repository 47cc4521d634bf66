"""The benchmark itself, short: what it counts is right; how fast anything is, is not asked."""

import json
from dataclasses import dataclass

import pytest

from onsale.bench.result import BenchResult
from onsale.bench.run import run
from onsale.bench.variants import VARIANTS, Sale, Variant
from tests.bench.wrk import needs_wrk


@dataclass(frozen=True)
class Forgetful(Sale):
    """Believes that every press under an old key is a new order."""

    @property
    def orders_max(self) -> None:
        return None


# A sale that should be sold out may not say so; keys that were used before are taken for new ones.
PLANTED = {
    "sold_out": Sale("none", 201, stock=50),
    "replay": Forgetful("none", 201, keys=50),
}


@pytest.fixture(scope="module")
def result() -> BenchResult:
    """One round of a second: two variants as they are, and two with a fault each."""
    with pytest.MonkeyPatch.context() as patch:
        for name, sale in PLANTED.items():
            patch.setitem(VARIANTS, name, Variant(name, "planted", sale))
        return run(
            rounds=1,
            seconds=1,
            connections=16,
            variants=["noop", "order", "sold_out", "replay"],
        )


@needs_wrk
def test_an_order_is_counted_everywhere(result: BenchResult) -> None:
    (order,) = result.turns["order"]
    assert order.new_orders == order.requests > 0
    # The crowd counts only what it was answered within its time.
    assert order.requests >= order.requests_per_second * 0.9
    for cost in (order.api_cpu_us, order.redis_cpu_us, order.postgres_cpu_us):
        assert cost is not None
        assert cost > 0
    for batch in (order.gate_batch_mean, order.ledger_batch_mean):
        assert batch is not None
        assert 1 <= batch <= 16
    assert order.redis_bytes > 0
    assert order.postgres_bytes > 0


@needs_wrk
def test_doing_nothing_is_counted_without_stores(result: BenchResult) -> None:
    (noop,) = result.turns["noop"]
    assert noop.requests > 16
    assert noop.api_cpu_us > 0
    assert noop.redis_cpu_us is noop.postgres_cpu_us is noop.ledger_batch_mean is None


@needs_wrk
def test_wrong_answers_and_missing_orders_are_faults_and_nothing_else_is(
    result: BenchResult,
) -> None:
    (refused,), (replayed,) = result.turns["sold_out"], result.turns["replay"]
    assert result.faults == [
        f"round 1: sold_out: {refused.requests:,} answers of another status than expected",
        f"round 1: replay: 0 new orders, not {replayed.requests:,}",
    ]
    assert not result.well
    assert json.loads(json.dumps(result.as_json()))["faults"] == result.faults


def test_a_variant_that_there_is_not_is_refused_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="no variant 'pay'"):
        run(variants=["order", "pay"])


def test_every_variant_that_sells_says_how_it_ends() -> None:
    ends = {name: variant.sale.orders_max for name, variant in VARIANTS.items() if variant.sale}
    assert ends == {"order": None, "hold": None, "sold_out": 1_000, "replay": 1_000}

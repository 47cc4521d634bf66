"""The benchmark itself, short: what it counts is right; how fast anything is, is not asked."""

import json
import re
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from onsale.bench import memory
from onsale.bench.result import BenchResult, Turn
from onsale.bench.run import run
from onsale.bench.variants import SUITES, VARIANTS, Sale, Suite, Variant, suite_of
from onsale.cli import app
from tests.bench.wrk import needs_wrk

# Fifteen servers start, one after the other gets warm, and each has a turn.
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Forgetful(Sale):
    """Believes that every press under an old key is a new order."""

    @property
    def orders_max(self) -> None:
        return None


# A sale that should be sold out may not say so; keys that were used before are taken for new ones.
PLANTED = {
    "sold_out": Sale(stock=50),
    "replay": Forgetful(keys=50),
}

# One of each kind, each of which writes an order for each request.
ORDERING = (
    *("order", "hold", "quiet", "disk_5ms", "redis_1ms", "live_1k", "events_10"),
    *("workers_2", "textbook", "cte"),
)
METERED = ("order", "hold", "disk_5ms", "redis_1ms", "live_1k", "events_10", "workers_2")


@pytest.fixture(scope="module")
def result() -> BenchResult:
    """One round of a second: a variant of every kind as it is, and two with a fault each."""
    suite = Suite(
        "one of each kind",
        ("asgi", "noop", *ORDERING, "pay", *PLANTED, "memory"),
        open_loop=("noop", "order"),
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, sale in PLANTED.items():
            patch.setitem(VARIANTS, name, Variant(name, "planted", sale))
        patch.setattr(memory, "_LOOKS", ((50, 1), (100, 1)))
        return run(suite, rounds=1, connections=16)


def only(result: BenchResult, variant: str) -> Turn:
    (turn,) = result.turns[variant]
    return turn


@needs_wrk
@pytest.mark.parametrize("variant", ORDERING)
def test_an_order_is_counted_everywhere(result: BenchResult, variant: str) -> None:
    order = only(result, variant)
    assert order.requests > 0
    # With those of the open loop, which are not in the requests.
    assert (order.new_orders == order.requests) is (variant != "order")
    # The crowd counts only what it was answered within its time.
    assert order.requests >= order.requests_per_second * 0.7
    for cost in (order.api_cpu_us, order.postgres_cpu_us):
        assert cost is not None
        assert cost > 0
    # Tables grow by pages, and a few orders on a busy machine may fit in what is there.
    assert order.postgres_bytes > 0 or order.requests < 500
    is_ours = variant not in ("textbook", "cte")
    # Redis tells the size of a key by some of its entries.
    assert (order.redis_bytes > 0) is is_ours or order.requests < 500
    assert (order.redis_cpu_us is not None) is is_ours


@needs_wrk
@pytest.mark.parametrize("variant", METERED)
def test_the_batches_of_a_metered_variant_are_known(result: BenchResult, variant: str) -> None:
    connections = VARIANTS[variant].connections or 16
    for batch in (only(result, variant).gate_batch_mean, only(result, variant).ledger_batch_mean):
        assert batch is not None
        assert 1 <= batch <= connections


@needs_wrk
@pytest.mark.parametrize("variant", ["asgi", "noop"])
def test_doing_nothing_is_counted_without_stores(result: BenchResult, variant: str) -> None:
    noop = only(result, variant)
    assert noop.requests > 16
    assert noop.api_cpu_us > 0
    assert noop.redis_cpu_us is noop.postgres_cpu_us is noop.ledger_batch_mean is None


@needs_wrk
def test_what_was_there_before_is_known(result: BenchResult) -> None:
    assert list(result.filled) == ["live_1k"]
    assert result.filled["live_1k"].orders == 1_000
    # An order's id alone has 16 bytes.
    assert (result.redis_bytes_per_live_order("live_1k") or 0) > 16


@needs_wrk
def test_paying_is_counted_by_the_holds_that_were_confirmed(result: BenchResult) -> None:
    pay = only(result, "pay")
    assert pay.new_orders == pay.requests > 0
    assert pay.gate_batch_mean is None


@needs_wrk
def test_the_open_loop_is_for_those_who_are_to_take_it(result: BenchResult) -> None:
    order, noop = only(result, "order"), only(result, "noop")
    for turn in (order, noop):
        assert turn.open_requests_per_second
        assert turn.open_p99_ms
    assert order.order_load_p99_ms == order.open_p99_ms
    # At the rate of the order, so in a turn of its own.
    assert noop.order_load_p99_ms
    assert noop.order_load_p99_ms != noop.open_p99_ms
    assert only(result, "cte").open_p99_ms is None


@needs_wrk
def test_the_memory_is_looked_at_twice(result: BenchResult) -> None:
    first, last = result.footprints
    assert 50 <= first.requests <= last.requests
    assert last.requests >= 100
    assert min(first.resident_bytes, last.resident_bytes) > 2**20
    assert "memory" not in result.turns


@needs_wrk
def test_wrong_answers_and_missing_orders_are_faults_and_nothing_else_is(
    result: BenchResult,
) -> None:
    refused, replayed = only(result, "sold_out"), only(result, "replay")
    assert result.faults == [
        f"round 1: sold_out: {refused.requests:,} answers of another status than expected",
        f"round 1: replay: 0 new orders, not {replayed.requests:,}",
    ]
    assert not result.well
    assert json.loads(json.dumps(result.as_json()))["faults"] == result.faults


def test_every_variant_that_sells_says_how_it_ends() -> None:
    few = {name: variant.orders_max for name, variant in VARIANTS.items() if variant.orders_max}
    assert few == dict.fromkeys(("sold_out", "sold_out_calm", "sold_out_traced", "replay"), 1_000)


def test_suites_are_of_variants_there_are_and_run_as_one() -> None:
    for suite in SUITES.values():
        assert set(suite.open_loop) <= set(suite.variants) <= set(VARIANTS)
    assert {name for suite in SUITES.values() for name in suite.variants} == set(VARIANTS)
    said = CliRunner().invoke(app, ["bench", "--help"], env={"COLUMNS": "200"}).stdout
    assert set(SUITES) <= set(re.findall(r"\w+", said))
    both = suite_of(["redis", "metrics"])
    assert both.variants == ("order", "redis_0ms", "redis_1ms", "quiet")
    with pytest.raises(ValueError, match="no suite 'nonsense'; there are: core, quick"):
        suite_of(["redis", "nonsense"])

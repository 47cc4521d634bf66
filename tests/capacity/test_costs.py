"""What requests cost in batches of any size: computed by hand, and against what batches do."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onsale.capacity.costs import Costs, Cpu, Kind, batch_of, orders_met
from tests.capacity.support import COSTS, ORDER, REPLAY, SOLD_OUT, UNHURRIED

# 100 µs in batches of 50 and 1,080 µs alone: 80 µs of its own, and 1,000 µs a batch.
CALM = Kind(Cpu(1_080, 206, 520), 500, batch_size=1)
KNOWN = COSTS.with_calm_orders(CALM, seconds=0.004)
RATES = st.floats(0.001, 50_000)
SIZES = st.floats(1, 1_000)


def test_two_measurements_give_what_a_batch_costs() -> None:
    assert KNOWN.per_batch.api == pytest.approx(1_000)
    assert KNOWN.per_batch.redis == pytest.approx(200)
    assert KNOWN.per_batch.postgres == pytest.approx(500)
    assert KNOWN.in_batches(ORDER, 10).api == pytest.approx(80 + 1_000 / 10)
    assert KNOWN.in_batches(REPLAY, 1).api == pytest.approx(80 + 1_000 * (1 - 1 / 50))


def test_batches_are_never_cheaper_than_measured() -> None:
    assert KNOWN.in_batches(ORDER, 512) == ORDER.cpu


@UNHURRIED
@given(SIZES, SIZES)
def test_larger_batches_are_cheaper(one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert KNOWN.in_batches(ORDER, small).api >= KNOWN.in_batches(ORDER, large).api - 1e-9


@UNHURRIED
@given(st.floats(0, 1_000))
def test_orders_met_is_the_inverse_of_the_batch(met: float) -> None:
    assert batch_of(orders_met(batch_of(met))) == pytest.approx(batch_of(met))


@pytest.mark.parametrize("met", [0.2, 1.0, 5.0])
def test_batches_are_as_large_as_a_queue_makes_them(met: float) -> None:
    """Poisson arrivals for batches of a fixed duration, played through with a seed."""
    draw = random.Random(7)
    arrivals: list[float] = []
    now = 0.0
    while len(arrivals) < 50_000:
        now += draw.expovariate(met)
        arrivals.append(now)
    batches, served, free = 0, 0, 0.0
    while served < len(arrivals):
        free = max(free, arrivals[served])
        while served < len(arrivals) and arrivals[served] <= free:
            served += 1
        batches, free = batches + 1, free + 1
    assert len(arrivals) / batches == pytest.approx(batch_of(met), rel=0.02)


def test_the_measured_rate_has_the_measured_batches() -> None:
    calm = replace(CALM, cpu=Cpu(600, 100, 300), batch_size=2.0)
    costs = COSTS.with_calm_orders(calm, seconds=0.004)
    assert costs.batch_size(500) == pytest.approx(2.0, rel=1e-6)


@UNHURRIED
@given(RATES, RATES)
def test_batches_grow_with_the_rate_up_to_those_measured(one: float, other: float) -> None:
    costs = COSTS.with_calm_orders(replace(CALM, batch_size=1.2), seconds=0.004)
    slow, fast = sorted((one, other))
    assert 1 <= costs.batch_size(slow) <= costs.batch_size(fast) + 1e-9
    assert costs.batch_size(fast) <= ORDER.batch_size


def test_a_batch_is_what_arrives_while_another_is_under_way() -> None:
    """At 4 ms under way; a buyer who presses twice is two orders of it."""
    costs = replace(COSTS, flight_seconds=0.004)
    idle_share = 1 - 200 * 100e-6
    arrived = batch_of(200 * 0.004 / idle_share)
    assert costs.batch_size(200) == pytest.approx(arrived)
    idle_share = 1 - 220 * 100e-6
    arrived = batch_of(200 * 0.004 / idle_share)
    assert costs.batch_size(200, together=1.1) == pytest.approx(1.1 * arrived)


@UNHURRIED
@given(RATES)
def test_batches_are_larger_where_work_takes_longer(rate: float) -> None:
    assert KNOWN.batch_size(rate) <= KNOWN.batch_size(rate, slowed=2) + 1e-9


@UNHURRIED
@given(RATES)
def test_a_process_has_time_for_its_batches(rate: float) -> None:
    size = KNOWN.batch_size(rate)
    if size < ORDER.batch_size:
        assert rate * KNOWN.in_batches(ORDER, size).api * 1e-6 <= 1 + 1e-6


def test_without_a_calm_run_batches_are_as_measured() -> None:
    assert COSTS.batch_size(1) == ORDER.batch_size
    assert COSTS.in_batches(ORDER, 1) == ORDER.cpu
    assert COSTS.of_refusal(1) == SOLD_OUT.cpu


def test_refusals_are_between_the_two_rates() -> None:
    costs = COSTS.with_calm_refusals(Kind(Cpu(150, 20, 4), 500))
    assert costs.of_refusal(1) == costs.of_refusal(500) == Cpu(150, 0, 0)
    assert costs.of_refusal(5_250).api == pytest.approx(100)
    assert costs.of_refusal(10_000) == costs.of_refusal(math.inf) == SOLD_OUT.cpu


def test_what_the_stores_use_for_refusals_is_by_the_clock_and_not_the_orders() -> None:
    costs = COSTS.with_calm_refusals(Kind(Cpu(150, 20, 4), 500))
    assert costs.watching == Cpu(0, 10_000, 2_000)
    dear = replace(CALM, cpu=CALM.cpu + Cpu(0, 20, 4))
    assert costs.with_calm_orders(dear, 0.004).per_batch == KNOWN.per_batch


def test_processes_that_share_a_machine_are_compared_at_their_own_batches() -> None:
    several = Kind(Cpu(1.5 * (80 + 1_000 / 10), 10, 30), 6_000, batch_size=10)
    assert KNOWN.with_several_processes(several).crowding == pytest.approx(1.5)
    quick = replace(several, cpu=Cpu(1, 1, 1))
    assert KNOWN.with_several_processes(quick).crowding == 1


def test_noise_is_no_cost() -> None:
    cheaper = Costs(order=ORDER, hold=ORDER, replay=REPLAY, sold_out=SOLD_OUT).with_calm_orders(
        replace(ORDER, cpu=Cpu(90, 9, 29), batch_size=1), seconds=0.001
    )
    assert cheaper.per_batch == Cpu()
    assert cheaper.with_calm_orders(replace(CALM, batch_size=60), 0.001).per_batch == Cpu()

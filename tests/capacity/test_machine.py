"""What a sale uses of one machine: computed by hand, and in which direction it changes."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onsale.capacity.costs import Cpu, Kind
from onsale.capacity.curve import Curve
from onsale.capacity.machine import presses_per_second_max, use_of
from onsale.capacity.model import OnSale
from tests.capacity.support import COSTS, UNHURRIED

# A batch is 1,000, 200 and 500 µs, a second of looking after the sale 10,000 and 2,000 µs.
CALM = COSTS.with_calm_refusals(Kind(Cpu(150, 20, 4), 500)).with_calm_orders(
    Kind(Cpu(1_080, 226, 524), 500, batch_size=1), seconds=0.004
)


def test_a_quiet_sale_by_hand() -> None:
    """Ten buyers a second meet nobody, and all presses of one of them are a batch of 1.1."""
    sale = OnSale(Curve.of_sale(1_000, 100), tickets=100, presses=1.1)
    use = use_of(sale, CALM)
    assert use.sold_out_seconds == pytest.approx(10)
    assert use.batch_size == pytest.approx(1.1)
    # An order is 80 µs, a replay 60 µs, a batch 1,000 µs.
    by_hand = 100 * 80e-6 + 10 * 60e-6 + 100 * 1_000e-6 + 990 * 150e-6
    assert use.api_cpu_seconds == pytest.approx(by_hand)
    by_hand = 100 * 6e-6 + 10 * 1e-6 + 100 * 200e-6 + 100 * 10e-3
    assert use.redis_cpu_seconds == pytest.approx(by_hand)
    by_hand = 100 * 20e-6 + 10 * 10e-6 + 100 * 500e-6 + 100 * 2e-3
    assert use.postgres_cpu_seconds == pytest.approx(by_hand)


def test_a_sale_for_everybody_has_no_refusals() -> None:
    sale = OnSale(Curve.of_load_test(1_000, 10), tickets=2_000)
    use = use_of(sale, replace(COSTS, sold_out=Kind(Cpu(10**6, 10**6, 10**6), 1)))
    assert use.api_cpu_seconds == pytest.approx(1_000 * 100e-6)
    assert use.sold_out_seconds == pytest.approx(10)


def test_the_crowd_on_the_same_cores_by_hand() -> None:
    # 140 µs of the service, which has 100 µs of them in one process, and 360 µs of the crowd.
    assert presses_per_second_max(COSTS, 1, cores=2, crowd_us=360) == pytest.approx(4_000)
    assert presses_per_second_max(COSTS, 1, cores=64, crowd_us=360) == pytest.approx(10_000)
    assert presses_per_second_max(COSTS, 2, cores=2, crowd_us=360) == pytest.approx(
        2 / (((140 + 105) / 2 + 360) * 1e-6)
    )


def test_a_machine_that_is_short_of_cores_has_small_batches_by_hand() -> None:
    """The rate and the batch, which follow from each other, both agree with the cores there are."""
    costs = replace(CALM, flight_seconds=0.01)
    rate = presses_per_second_max(costs, 1, cores=0.5, crowd_us=624)
    # Half of the 1,700 µs of a batch is of one flight, and takes twice as long.
    met = rate * (0.01 + 850e-6) / (1 - rate * 2 * 80e-6)
    cpu_us = 80 + 6 + 20 + (1_000 + 200 + 500) / (met + math.exp(-met))
    assert rate * (cpu_us + 624) * 1e-6 == pytest.approx(0.5)
    assert 4 < met < 10


@UNHURRIED
@given(st.floats(0.1, 64), st.floats(0.1, 64), st.floats(0, 10_000))
def test_more_cores_are_never_slower(one: float, other: float, crowd_us: float) -> None:
    few, many = sorted((one, other))
    slow = presses_per_second_max(COSTS, 1.1, cores=few, crowd_us=crowd_us)
    assert slow <= presses_per_second_max(COSTS, 1.1, cores=many, crowd_us=crowd_us)


@UNHURRIED
@given(st.integers(10, 10**6), st.integers(1, 10**6), st.floats(1, 5))
def test_a_busy_service_uses_no_more_for_each(buyers: int, tickets: int, presses: float) -> None:
    """The same sale in less time has larger batches."""
    calm = use_of(OnSale(Curve.of_load_test(buyers, 10_000), tickets, presses=presses), CALM)
    busy = use_of(OnSale(Curve.of_load_test(buyers, 10), tickets, presses=presses), CALM)
    assert busy.api_cpu_seconds <= calm.api_cpu_seconds * (1 + 1e-9)
    assert busy.batch_size >= calm.batch_size - 1e-9

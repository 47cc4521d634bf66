"""What an on-sale needs: computed by hand, and the directions in which it must change."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onsale.capacity.costs import Cpu, Kind
from onsale.capacity.curve import Curve
from onsale.capacity.model import Name, OnSale, Part, Plan, plan, queue
from tests.capacity.support import COSTS, ORDER, PAY, SETUP, UNHURRIED

# 10,000 buyers a second for 10 s, then 1,000 a second; a ticket for one in fifty.
WALL = Curve.of_sale(100_000 + 90_000, 100, peak_factor=10 / 1.9, peak_seconds=10)
SALE = OnSale(WALL, tickets=4_000)

SALES = st.builds(
    OnSale,
    st.builds(
        Curve.of_sale,
        st.integers(1, 10**8),
        st.floats(1, 10**5),
        st.floats(1, 100),
        st.floats(0.1, 100),
    ),
    st.integers(1, 10**7),
    st.floats(1, 10),
    st.floats(1, 10),
    st.none() | st.floats(1, 10**4),
)


def part(found: Plan, name: Name) -> Part:
    (only,) = (part for part in found.parts if part.name is name)
    return only


def test_a_sale_without_payment_by_hand() -> None:
    found = plan(SALE, COSTS, SETUP)
    assert WALL.peak_rate == pytest.approx(10_000)
    assert (found.orders, found.requests) == (4_000, 190_000)
    # Selling takes 10,000 × 100 µs = 1 core of the API, refusing 10,000 × 50 µs = half of one.
    assert part(found, Name.API).needs == pytest.approx(1.0)
    assert found.workers == 2
    assert part(found, Name.API).load == pytest.approx(0.5)
    assert part(found, Name.GATE).needs == pytest.approx(0.1)
    assert part(found, Name.GATE).breaks_at == pytest.approx(100_000)
    assert part(found, Name.LEDGER).needs == pytest.approx(0.3)
    assert found.postgres_cores == 1
    assert found.orders_per_second == pytest.approx(10_000)
    assert found.commits_per_second == pytest.approx(200)
    assert found.queue.sold_out_seconds == pytest.approx(0.4)
    assert found.queue.wait_seconds_max == pytest.approx(0)
    assert (found.redis_bytes, found.postgres_bytes) == (400_000, 1_600_000)
    assert found.client_connections == pytest.approx(100_000 + 20_000)
    assert (found.postgres_connections_max, found.redis_connections_max) == (20, 64)
    assert found.network_in_bits_per_second == pytest.approx(10_000 * 420 * 8)
    assert found.first_to_break.name is Name.API
    assert found.first_to_break.breaks_at == pytest.approx(20_000)
    assert found.paid_seconds is None


def test_paying_and_pressing_twice_by_hand() -> None:
    sale = replace(SALE, presses=2.0, tickets_per_order=2.0, pay_seconds=20)
    found = plan(sale, COSTS, SETUP)
    assert (found.orders, found.requests) == (2_000, 382_000)
    # A winner takes 120 + 80 µs of the API: 2 cores, against 10,000 × 100 µs + 100 payments × 1 ms.
    assert part(found, Name.API).needs == pytest.approx(2.0)
    assert found.workers == 3
    assert part(found, Name.LEDGER).needs == pytest.approx(10_000 * (40 + 20) * 1e-6)
    paying = part(found, Name.PAYING)
    assert (paying.needs, paying.has, paying.load) == (100, 200, 0.5)
    assert found.paid_seconds == 20
    assert found.postgres_bytes == 2_000 * (500 + 300)
    assert plan(replace(sale, pay_seconds=5), COSTS, SETUP).paid_seconds == 2_000 / 200


def test_what_no_hardware_mends_breaks_first_and_makes_a_queue() -> None:
    slow = replace(COSTS, order=replace(ORDER, cpu=Cpu(100, 200, 30)))
    found = plan(SALE, slow, SETUP)
    assert found.first_to_break.name is Name.GATE
    # One thread decides 5,000 of the 10,000 a second, and whoever waits is soon refused.
    assert found.first_to_break.breaks_at == pytest.approx(5_000)
    assert part(found, Name.API).needs == pytest.approx(5_000 * 100e-6 + 5_000 * 50e-6)
    assert found.queue.sold_out_seconds == pytest.approx(0.8)
    assert found.queue.wait_seconds_max == pytest.approx(0.4)
    assert found.queue.waiting_max == pytest.approx(4_000)


def test_the_tiers_row_lets_a_batch_by_at_a_time() -> None:
    found = plan(SALE, replace(COSTS, order_seconds=0.1), SETUP)
    assert part(found, Name.TIER).has == pytest.approx(5_120)
    assert found.first_to_break.name is Name.TIER
    assert found.commits_per_second == pytest.approx(10)
    assert found.queue.sold_out_seconds == pytest.approx(4_000 / 5_120)


def test_too_few_processes_are_what_breaks() -> None:
    found = plan(SALE, COSTS, replace(SETUP, workers=1))
    assert found.workers == 1
    assert found.first_to_break.name is Name.API
    assert found.first_to_break.load == pytest.approx(1.0)


def test_several_processes_get_in_each_others_way_and_one_does_not() -> None:
    crowded = replace(COSTS, crowding=1.5)
    assert part(plan(SALE, crowded, SETUP), Name.API).needs == pytest.approx(1.5)
    alone = plan(SALE, crowded, replace(SETUP, workers=1))
    assert part(alone, Name.API).needs == pytest.approx(1.0)


def test_nobody_is_turned_away_from_enough_tickets() -> None:
    found = plan(replace(SALE, tickets=10**6), COSTS, SETUP)
    assert found.orders == 190_000
    assert not replace(SALE, tickets=10**6).sells_out
    assert found.queue.sold_out_seconds == pytest.approx(100)


def test_nobody_is_refused_however_dear_a_refusal_is() -> None:
    dear = replace(COSTS, sold_out=Kind(Cpu(1_000, 1, 0), 1_000))
    assert (
        plan(replace(SALE, tickets=10**6), dear, SETUP).workers == plan(SALE, COSTS, SETUP).workers
    )


def test_what_was_not_measured_is_left_out() -> None:
    found = plan(replace(SALE, pay_seconds=10), replace(COSTS, pay=None), SETUP)
    assert {part.name for part in found.parts} == {Name.API, Name.GATE, Name.LEDGER}
    assert found.paid_seconds is None


def test_a_part_that_nothing_is_needed_of_cannot_break() -> None:
    idle = replace(
        COSTS,
        order=Kind(Cpu(100, 0, 0), 5_000, 50),
        replay=Kind(Cpu(80, 0, 0), 5_000, 50),
        sold_out=Kind(Cpu(50, 0, 0), 10_000),
    )
    assert [part.name for part in plan(SALE, idle, SETUP).parts] == [Name.API]


@UNHURRIED
@given(SALES)
def test_every_sale_has_a_plan(sale: OnSale) -> None:
    found = plan(sale, replace(COSTS, order_seconds=0.004), SETUP)
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["orders"] == sale.orders
    assert part(found, Name.API).load <= SETUP.utilisation + 1e-9
    assert part(found, Name.LEDGER).load <= SETUP.utilisation + 1e-9
    assert 0 < found.orders_per_second <= found.buyers_per_second * (1 + 1e-9)
    assert found.queue.sold_out_seconds >= sale.arrivals.seconds_of(sale.orders) - 1e-9
    assert found.queue.wait_seconds_max >= 0
    assert all(0 < part.breaks_at < math.inf for part in found.parts)


@UNHURRIED
@given(SALES, st.floats(1, 100))
def test_a_larger_crowd_needs_no_less(sale: OnSale, times: float) -> None:
    larger = Curve(
        tuple(
            stretch._replace(
                first_rate=stretch.first_rate * times, last_rate=stretch.last_rate * times
            )
            for stretch in sale.arrivals.stretches
        )
    )
    few, many = plan(sale, COSTS, SETUP), plan(replace(sale, arrivals=larger), COSTS, SETUP)
    assert few.workers <= many.workers
    assert few.postgres_cores <= many.postgres_cores
    assert few.orders <= many.orders


@UNHURRIED
@given(SALES, st.integers(1, 50), st.integers(1, 50))
def test_more_processes_never_sell_more_slowly(sale: OnSale, one: int, other: int) -> None:
    few, many = sorted((one, other))
    slow = plan(sale, COSTS, replace(SETUP, workers=few)).queue
    fast = plan(sale, COSTS, replace(SETUP, workers=many)).queue
    assert slow.sold_out_seconds >= fast.sold_out_seconds - 1e-9
    assert slow.wait_seconds_max >= fast.wait_seconds_max - 1e-9


@UNHURRIED
@given(st.integers(2, 400), st.floats(1, 10), st.floats(1, 500))
def test_the_queue_is_that_of_buyers_one_by_one(
    tickets: int, seconds: float, served_per_second: float
) -> None:
    sale = OnSale(Curve.of_load_test(400, seconds), tickets)
    found = queue(sale, served_per_second)
    done, longest = 0.0, 0.0
    for number in range(1, sale.orders + 1):
        came = sale.arrivals.seconds_of(number)
        done = max(came, done) + 1 / served_per_second
        longest = max(longest, done - came)
    # One by one a buyer is served for some time, and here as soon as there is room.
    one = 1 / served_per_second
    assert found.sold_out_seconds == pytest.approx(done, abs=2 * one + 0.02 * seconds)
    assert found.wait_seconds_max <= longest + one


@pytest.mark.parametrize(
    "wrong",
    [
        {"tickets": 0},
        {"tickets_per_order": 0.5},
        {"tickets_per_order": math.nan},
        {"presses": 0},
        {"presses": math.inf},
        {"pay_seconds": -1},
    ],
)
def test_no_sale_is_like_that(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        replace(SALE, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("utilisation", [0, -1, 1.01, math.nan])
def test_a_share_of_a_core_is_a_share(utilisation: float) -> None:
    with pytest.raises(ValueError, match="share"):
        replace(SETUP, utilisation=utilisation)


def test_payments_cost_cpu_after_the_sell_out() -> None:
    dear = replace(COSTS, pay=replace(PAY, cpu=Cpu(50_000, 0, 50_000)))
    found = plan(replace(SALE, pay_seconds=100), dear, SETUP)
    # 40 payments a second at 50 ms, with refusals for half a core.
    assert part(found, Name.API).needs == pytest.approx(40 * 50e-3 + 10_000 * 50e-6)
    assert part(found, Name.LEDGER).needs == pytest.approx(40 * 50e-3)

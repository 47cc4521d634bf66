"""A tier's books balance when its parts are whole, and only then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onsale.domain.order import OrderStatus
from onsale.domain.tier import TierBooks

units = st.integers(0, 10_000_000)


@given(units, units, units)
def test_parts_that_add_up_balance(available: int, held: int, sold: int) -> None:
    books = TierBooks("floor", available + held + sold, available, held, sold)
    assert books.balanced


@given(units, units, units, st.integers(-100, 100).filter(bool))
def test_one_unit_too_many_or_too_few_does_not(
    available: int, held: int, sold: int, astray: int
) -> None:
    books = TierBooks("floor", available + held + sold + astray, available, held, sold)
    assert not books.balanced


@pytest.mark.parametrize(
    "parts", [(-2, 6, 6), (6, -2, 6), (6, 6, -2)], ids=["available", "held", "sold"]
)
def test_a_part_below_zero_does_not_though_the_sum_is_right(parts: tuple[int, int, int]) -> None:
    """An oversold tier adds up: 12 sold of 10 leave −2."""
    assert not TierBooks("floor", 10, *parts).balanced


def test_held_and_confirmed_orders_have_seats_and_no_others_do() -> None:
    assert {status for status in OrderStatus if status.live} == {
        OrderStatus.HELD,
        OrderStatus.CONFIRMED,
    }

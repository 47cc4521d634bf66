"""How crowds arrive: everybody comes, once, and when the curve says."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onsale.capacity.curve import Curve, Stretch
from onsale.loadtests import scripts_dir
from tests.capacity.support import UNHURRIED

BUYERS = st.integers(1, 10**8)
SECONDS = st.floats(0.1, 10**5)
CURVES = st.one_of(
    st.builds(Curve.of_load_test, BUYERS, SECONDS),
    st.builds(Curve.of_sale, BUYERS, SECONDS, st.floats(1, 1_000), st.floats(0.01, 100)),
)
SHARES = st.floats(0, 1)


def test_a_sale_begins_with_a_wall() -> None:
    curve = Curve.of_sale(6_000, 600, peak_factor=10, peak_seconds=12)
    assert curve.stretches == (Stretch(12, 100, 100), Stretch(588, *[4_800 / 588] * 2))
    assert curve.arrived(6) == 600
    assert curve.seconds_of(600) == 6
    assert curve.arrived(12 + 294) == pytest.approx(1_200 + 2_400)


def test_a_wall_ends_when_everybody_has_come() -> None:
    curve = Curve.of_sale(1_000, 60, peak_factor=10, peak_seconds=30)
    assert curve.arrived(6) == pytest.approx(1_000)
    assert curve.seconds == pytest.approx(6)
    assert curve.peak_rate == pytest.approx(1_000 / 6)


def test_the_load_tests_spike_is_the_one_that_k6_is_given() -> None:
    curve = Curve.of_load_test(7_000, 10)
    assert [stretch.seconds for stretch in curve.stretches] == [1, 4, 5]
    assert curve.peak_rate == pytest.approx(1_000)
    assert curve.arrived(1) == pytest.approx(500)
    assert curve.seconds_of(125) == pytest.approx(0.5)

    script = (scripts_dir() / "lib" / "crowd.js").read_text()
    spike = script[script.index("export function spike") :].split("\n}", 1)[0]
    assert re.findall(r"part\(([\d.]+)\)", spike) == ["0.1", "0.4", "0.5"]
    assert "SPIKE_AREA = 0.7;" in script


@UNHURRIED
@given(CURVES)
def test_everybody_comes(curve: Curve) -> None:
    assert curve.arrived(0) == 0
    assert curve.arrived(curve.seconds) == pytest.approx(curve.buyers)
    assert curve.arrived(math.inf) == pytest.approx(curve.buyers)
    assert curve.peak_rate * curve.seconds >= curve.buyers * (1 - 1e-9)


@UNHURRIED
@given(CURVES, SHARES, SHARES)
def test_nobody_leaves(curve: Curve, one: float, other: float) -> None:
    early, late = sorted((one * curve.seconds, other * curve.seconds))
    assert curve.arrived(early) <= curve.arrived(late) * (1 + 1e-9)


def test_the_first_of_many_comes_at_the_beginning() -> None:
    assert Stretch(1, 0, 0.01).seconds_of(5e-324) == 0


@UNHURRIED
@given(CURVES, SHARES)
def test_a_buyer_comes_when_so_many_have(curve: Curve, share: float) -> None:
    buyer = share * curve.buyers
    arrived = curve.arrived(curve.seconds_of(buyer))
    assert arrived == pytest.approx(buyer, rel=1e-6, abs=1e-6 * curve.buyers)


@UNHURRIED
@given(BUYERS, SECONDS, st.floats(1, 1_000), st.floats(0.01, 100))
def test_the_peak_is_as_high_as_asked(
    buyers: int, seconds: float, factor: float, peak_seconds: float
) -> None:
    curve = Curve.of_sale(buyers, seconds, factor, peak_seconds)
    assert curve.buyers == pytest.approx(buyers)
    assert curve.peak_rate == pytest.approx(buyers / seconds * factor)


@pytest.mark.parametrize(
    ("buyers", "seconds", "factor", "peak_seconds"),
    [
        *((0, 1, 1, 1), (-1, 1, 1, 1), (1, 0, 1, 1), (1, math.nan, 1, 1), (1, math.inf, 1, 1)),
        *((1, 1, 0.9, 1), (1, 1, math.inf, 1), (1, 1, 1, 0)),
    ],
)
def test_no_sale_is_like_that(
    buyers: int, seconds: float, factor: float, peak_seconds: float
) -> None:
    with pytest.raises(ValueError, match=r"."):
        Curve.of_sale(buyers, seconds, factor, peak_seconds)

"""What the valve is held to, by loads that are made up; and a crowd that is really sent."""

from collections.abc import Mapping

import pytest

from onsale.bench.overload import Load, OverloadResult, faults_of
from onsale.bench.probes import ApiCounters


def load(variant: str, times: float, placed: float, p99_ms: float, mib: int = 100) -> Load:
    return Load(
        variant=variant,
        load=times,
        offered_per_second=1_000 * times,
        placed_per_second=placed,
        shed_per_second=0.0,
        placed_p50_ms=p99_ms / 2,
        placed_p99_ms=p99_ms,
        resident_bytes=mib * 2**20,
    )


def result(placed_at_most: float, p99_at_most_ms: float, mib_at_most: int) -> OverloadResult:
    """A round whose calm crowd is served at 1,000 a second within 10 ms by 100 MiB."""
    loads = [
        load("valve", 1.0, 1_000, 10),
        load("valve", 3.0, placed_at_most, p99_at_most_ms, mib_at_most),
        load("no_valve", 3.0, 5_000, 900),
    ]
    return OverloadResult([loads], [], load_average=0.0)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        pytest.param(result(900, 19, 140), [True, True, True], id="well"),
        pytest.param(result(900, 21, 140), [False, True, True], id="slow"),
        pytest.param(result(700, 19, 140), [True, False, True], id="collapsed"),
        pytest.param(result(900, 19, 160), [True, True, False], id="swollen"),
    ],
)
def test_the_valve_is_held_to_three_things(found: OverloadResult, holds: list[bool]) -> None:
    assert [verdict.holds for verdict in found.verdicts()] == holds
    assert found.holds == all(holds)


def test_a_wrong_answer_is_worse_than_any_figure() -> None:
    well = result(900, 19, 140)
    assert not OverloadResult(well.rounds, ["one order too many"], 0.0).holds


def counted(answers: Mapping[int, int]) -> ApiCounters:
    return ApiCounters(answers, 0, {}, {})


@pytest.mark.parametrize(
    ("variant", "answers", "orders", "faults"),
    [
        ("valve", {201: 5, 503: 7}, 5, 0),
        ("valve", {201: 5, 500: 1}, 5, 1),
        ("valve", {201: 5, 503: 7}, 6, 1),
        ("no_valve", {201: 5, 503: 7}, 5, 1),
    ],
)
def test_answers_and_orders_must_agree(
    variant: str, answers: Mapping[int, int], orders: int, faults: int
) -> None:
    found = faults_of(load(variant, 1.0, 5, 1), counted(answers), orders, failures=0)
    assert len(found) == faults


def test_connections_that_broke_are_told() -> None:
    assert len(faults_of(load("valve", 1.0, 5, 1), counted({201: 5}), 5, failures=2)) == 1

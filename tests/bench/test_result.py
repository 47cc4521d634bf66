"""Medians, spreads and ratios of turns made up for it."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from onsale.bench.result import BenchResult, Footprint, Ratio, Spread, Turn
from onsale.bench.text import render


def turn(rate: float, cpu_us: float, **other: float) -> Turn:
    return Turn(
        requests=100,
        requests_per_second=rate,
        p50_ms=1,
        p99_ms=2,
        api_cpu_us=cpu_us,
        **other,  # type: ignore[arg-type]  # fields by name, of several types
    )


RESULT = BenchResult(
    seconds=1,
    connections=8,
    cpus=2,
    load_average=0.5,
    turns={
        "noop": [turn(1_000, 100), turn(500, 200), turn(2_000, 50)],
        "order": [
            turn(800, 120, new_orders=10, redis_bytes=1_000, redis_cpu_us=5, open_p99_ms=7),
            turn(500, 260, new_orders=30, redis_bytes=5_000, redis_cpu_us=4),
            turn(1_000, 70, new_orders=0, redis_bytes=0, redis_cpu_us=9),
        ],
    },
    footprints=[Footprint(10_000, 50 * 2**20), Footprint(1_000_000, 60 * 2**20)],
    faults=[],
)


def test_ratios_are_of_the_same_round() -> None:
    """The ratio of the medians would be 0.8: the machine's mood of a round must cancel out."""
    ratios = RESULT.ratios()
    assert ratios[Ratio("requests_per_second", "order", "noop")] == Spread(0.8, 0.5, 1.0)
    assert ratios[Ratio("api_cpu_us", "order", "noop")] == Spread(1.3, 1.2, 1.4)
    assert {ratio.variant for ratio in ratios} == {"order"}, "only variants that were run"


def test_a_spread_leaves_out_what_there_is_not() -> None:
    assert RESULT.spread("order", "redis_cpu_us") == Spread(5, 4, 9)
    assert RESULT.spread("noop", "redis_cpu_us") is None
    assert Spread.of([None, 3.0, None]) == Spread(3.0, 3.0, 3.0)


def test_bytes_per_order_are_over_all_rounds() -> None:
    assert RESULT.bytes_per_order("order", "redis") == 150
    assert RESULT.bytes_per_order("noop", "redis") is None


def test_a_round_without_one_of_the_figures_is_no_ratio() -> None:
    turns = {"noop": RESULT.turns["noop"], "order": RESULT.turns["order"]}
    assert replace(RESULT, turns=turns).ratio(Ratio("redis_cpu_us", "order", "noop")) is None
    assert RESULT.ratio(Ratio("api_cpu_us", "order", "asgi")) is None


def test_memory_grows_from_the_first_look_to_the_last() -> None:
    assert RESULT.memory_growth() == pytest.approx(1.2)
    assert replace(RESULT, footprints=[]).memory_growth() is None


@pytest.mark.parametrize(("load_average", "busy"), [(0.5, False), (0.6, True)])
def test_a_busy_machine_is_told(load_average: float, busy: bool) -> None:
    console = Console(width=100, record=True, file=StringIO())
    render(replace(RESULT, load_average=load_average), console)
    assert ("expect noise" in console.export_text()) is busy


@pytest.mark.parametrize("faults", [[], ["round 1: order: 3 answers of another status"]])
def test_what_people_and_programs_read_agrees(faults: list[str]) -> None:
    result = replace(RESULT, faults=faults)
    console = Console(width=100, record=True, file=StringIO())
    render(result, console)
    text = console.export_text()
    as_json = result.as_json()
    assert as_json["well"] is result.well is not bool(faults)
    assert as_json["faults"] == faults
    assert ("Every answer was right" in text) is result.well
    assert as_json["ratios"]["requests_per_second order/noop"]["median"] == 0.8
    assert "0.80 (0.50–1.00)" in text
    assert as_json["variants"]["order"]["redis_bytes_per_order"] == 150
    assert as_json["memory"][1] == {"requests": 1_000_000, "resident_bytes": 60 * 2**20}
    assert "1,000,000 requests" in text
    for fault in faults:
        assert fault in text
    assert "…" not in text, "a table is too wide for a terminal of 100 columns"

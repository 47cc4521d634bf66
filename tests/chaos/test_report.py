"""What a campaign says of itself."""

import json

import pytest
from rich.console import Console

from onsale.chaos.evidence import Evidence
from onsale.chaos.report import Report, report
from onsale.chaos.rules import judge
from onsale.chaos.text import render
from onsale.sales.invariants import Rule
from tests.chaos.small_history import T, look, sound


def reported(evidence: Evidence, *names: str, **not_done: str) -> Report:
    return report(7, evidence, judge(evidence), names, not_done)


def oversold() -> Evidence:
    """While Postgres was away."""
    evidence = sound()
    evidence.looks[82] = look(20.5, sold=11)
    return evidence


def test_all_is_well() -> None:
    found = reported(sound(), "kill-postgres")
    assert found.well
    assert found.broken == ()
    (line,) = found.faults
    assert (line.times, line.orders, line.broken) == (1, 0, ())
    # The fault was there from 20 to 21; the next order was asked for at 21.5 and took 0.1 s.
    assert line.serves_after_seconds == pytest.approx(0.6)
    assert line.longest_stop_seconds == pytest.approx(1.0)


def test_a_rule_that_is_broken_is_told_with_the_fault_that_was_there() -> None:
    found = reported(oversold(), "kill-postgres")
    assert not found.well
    assert found.broken == (Rule.I2,)
    assert found.faults[0].broken == (Rule.I2,)


def test_a_fault_that_was_not_injected_is_a_gap_unless_it_is_not_possible_here() -> None:
    assert not reported(sound(), "kill-postgres", "clock-ahead").well
    found = reported(sound(), "kill-postgres", "clock-ahead", **{"clock-ahead": "no libfaketime"})
    assert found.well
    assert found.faults[1].not_done == "no libfaketime"


def test_one_that_the_service_never_got_to_was_not_injected() -> None:
    evidence = sound()
    evidence.course.incidents[0].injected = False
    found = reported(evidence, "kill-postgres")
    assert found.faults[0].times == 0
    assert not found.well


def test_the_object_is_json() -> None:
    told = json.loads(json.dumps(reported(oversold(), "kill-postgres").as_json()))
    assert told["well"] is False
    assert told["seed"] == 7
    assert told["operations"]["ok"] > 0
    i2 = next(rule for rule in told["invariants"] if rule["rule"] == "I2")
    assert (i2["kept"], i2["violations"][0]["at_seconds"]) == (False, T + 20.5)


def test_people_are_told_what_broke() -> None:
    console = Console(record=True, width=100)
    render(reported(oversold(), "kill-postgres", "clock-ahead"), console)
    text = console.export_text()
    for words in ("kill-postgres", "not injected", "1 broken", "I2: oversold", "Not every"):
        assert words in text

"""What limited a run, by figures that are made up: the shapes that real ones have."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from onsale.bottleneck.engine import (
    Load,
    Observed,
    Reading,
    Verdict,
    figure,
    judge,
    saturated_since,
)
from onsale.bottleneck.stages import STAGES, Signal, Stage

SECONDS = 10
CALM = Load(SECONDS, SECONDS, client_seconds=10, client_mean_seconds=0.1, server_seconds=9)
STARVED = "its threads waited for a core 90% of the time in which they could have run"


def observed(stage: Stage, level: float, lost_seconds: float) -> Observed:
    """A stage whose deciding signal was at `level` of its knee all the time."""
    readings = []
    for signal in stage.signals:
        knee = signal.knee if signal is stage.decisive else 0.0
        points = [(float(at), level * (knee or 0.0)) for at in range(SECONDS)]
        readings.append(Reading(signal, signal.query, points))
    return Observed(stage, tuple(readings), None if stage.lost is None else lost_seconds)


def verdict(
    levels: Mapping[str, float], lost: Mapping[str, float] | None = None, load: Load = CALM
) -> Verdict:
    """The verdict where stages are at these levels of their knees, the others at a tenth."""
    lost = lost or {}
    assert {*levels, *lost} <= {stage.name for stage in STAGES}
    return judge(
        [observed(each, levels.get(each.name, 0.1), lost.get(each.name, 0.1)) for each in STAGES],
        load,
    )


@pytest.mark.parametrize("stage", [each for each in STAGES if each.name != "generator"])
def test_a_stage_at_its_knee_alone_is_the_limit(stage: Stage) -> None:
    found = verdict({stage.name: 1.0})
    assert (found.limit, found.level) == (stage.name, "bad")
    assert stage.title in found.headline
    assert found.advice == stage.advice
    assert [fact.query for fact in found.evidence] == [signal.query for signal in stage.signals]


def test_nothing_at_its_knee_is_no_limit() -> None:
    found = verdict({"worker": 0.99})
    assert (found.limit, found.level) == (None, "good")
    assert "below capacity" in found.headline
    assert "API process, at 99% of it" in found.explanation


def test_what_is_slow_for_no_reason_is_said_to_be() -> None:
    for mean_seconds, dropped in ((0.6, 0), (0.1, 5)):
        load = Load(SECONDS, SECONDS, 10, mean_seconds, server_seconds=9, dropped=dropped)
        found = verdict({}, load=load)
        assert (found.limit, found.level) == (None, "warning")


@pytest.mark.parametrize(
    ("cause", "symptoms"),
    [
        ("wal", ["locks", "pool", "ledger", "valve"]),
        ("locks", ["pool", "ledger", "valve"]),
        ("pool", ["ledger", "valve"]),
        ("redis", ["gate", "valve"]),
        ("logs", ["host", "worker", "loop", "gate", "ledger", "pool", "locks", "wal", "payment"]),
        ("host", ["worker", "loop", "valve", "ledger", "pool", "locks", "payment"]),
    ],
)
def test_who_waits_for_the_limit_is_a_symptom(cause: str, symptoms: list[str]) -> None:
    # All of them take as much: it is not by their shares that they are told apart.
    everything = [cause, *symptoms]
    load = replace(CALM, loop_seconds=9)
    found = verdict(dict.fromkeys(everything, 2.0), dict.fromkeys(everything, 9.0), load)
    assert found.limit == cause
    assert {each.stage.name for each in found.findings if each.explained_by} == set(symptoms)


@pytest.mark.parametrize(
    ("idle", "cause"), [("host", "payment"), ("host", "pool"), ("loop", "ledger"), ("wal", "locks")]
)
def test_who_takes_little_explains_nobody(idle: str, cause: str) -> None:
    """As a host that is short of cores, and answers wait 1 ms for that and 1.5 s for a bank."""
    found = verdict({idle: 2.0, cause: 2.0}, {cause: 9.0, "ledger": 9.0})
    assert found.limit == cause
    assert not any(each.explained_by for each in found.findings)


def test_a_door_that_is_shut_while_those_inside_are_served_fast_is_the_limit() -> None:
    def limit(served_mean_seconds: float | None) -> object:
        load = replace(CALM, served_mean_seconds=served_mean_seconds)
        return verdict({"valve": 9.0, "worker": 2.0}, load=load).limit

    assert limit(0.3) == "worker"
    assert limit(None) == "worker"
    found = verdict({"valve": 9.0, "pool": 2.0}, load=replace(CALM, served_mean_seconds=0.01))
    assert found.limit == "valve"


def test_what_the_process_takes_is_told_apart_by_its_parts() -> None:
    both = {"host": 2.0, "worker": 2.0}

    def limit(starved: float) -> object:
        observations = [
            replace(observed(each, both.get(each.name, 0.1), 0.1), part=starved)
            if each.name == "host"
            else observed(each, both.get(each.name, 0.1), 0.1)
            for each in STAGES
        ]
        return judge(observations, CALM).limit

    assert limit(0.1) == "worker"
    assert limit(0.6) == "host"


def test_of_two_causes_the_one_that_buyers_waited_for_is_the_limit() -> None:
    both = {"worker": 1.1, "pool": 1.1}
    assert verdict(both, {"ledger": 9, "pool": 9}).limit == "pool"
    assert verdict(both, {"ledger": 1, "pool": 1}).limit == "worker"


def test_the_generator_is_the_limit_where_it_starves_and_the_service_is_fast() -> None:
    def limit(server_seconds: float, strain: str | None, dropped: int, **levels: float) -> object:
        load = Load(SECONDS, SECONDS, 10, 0.1, server_seconds, strain, dropped)
        return verdict(levels, load=load).limit

    assert limit(1, STARVED, 100) == "generator"
    assert limit(9, STARVED, 100, worker=1.0) == "worker"  # buyers waited for the service
    assert limit(9, STARVED, 100) == "generator"  # and here nothing of it was full
    assert limit(1, None, 100) is None  # k6 had the CPU that it wanted
    assert limit(1, STARVED, 0) is None  # everybody came
    assert limit(1, STARVED, 100, worker=1.0) == "worker"  # its queue is where nobody measures


def test_a_moment_at_the_knee_is_no_limit() -> None:
    signal = Signal("CPU", "up", "percentunit", knee=0.8)
    values = [0.1, 0.9, 0.2, 0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1]
    points = list(enumerate(values))
    assert saturated_since(Reading(signal, "up", points), 10) == 1
    assert saturated_since(Reading(signal, "up", points[:3]), 3) is None
    assert saturated_since(Reading(signal, "up", points), 100) is None
    assert saturated_since(Reading(signal, "up", ()), 10) is None


def test_every_stage_waits_for_others_and_none_for_itself() -> None:
    names = {stage.name for stage in STAGES}
    waits_for = {stage.name: set(stage.waits_for) for stage in STAGES}
    while waits_for:
        assert all(others <= names for others in waits_for.values())
        free = {name for name, others in waits_for.items() if not others & waits_for.keys()}
        assert free, f"they wait for each other: {waits_for}"
        for name in free:
            del waits_for[name]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "–"),
        (0.0123, "s", "12.3 ms"),
        (1.5, "s", "1.50 s"),
        (0.857, "percentunit", "86%"),
        (12_345, "none", "12,345"),
        (2.5, "ops", "2.5/s"),
    ],
)
def test_figures_are_for_people(value: float | None, unit: str, text: str) -> None:
    assert figure(value, unit) == text


def test_where_nobody_was_seen_nothing_is_judged() -> None:
    """Whatever else keeps the machine busy, or is not scraped. Seen red: a neighbour was the limit
    of a run without buyers, and a service that nobody scrapes was below capacity.
    """
    nobody = Load(SECONDS, SECONDS, client_seconds=0, client_mean_seconds=0, server_seconds=0)
    for levels in ({}, {"host": 1.5}):
        found = verdict(levels, load=nobody)
        assert (found.limit, found.level) == (None, "warning")
        assert "No buyer was seen" in found.headline

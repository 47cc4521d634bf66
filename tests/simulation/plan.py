"""What one seed stands for: an event on sale, its buyers, and how much goes wrong in which ways.

Each run draws which kinds of fault it has at all: runs with every fault at once never get far
enough to meet the rare ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from random import Random
from typing import TypeVar

from tests.simulation.network import Weather

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Terms:
    """What an event is on sale with; `limit_units` of 0 is no limit."""

    capacity_units: dict[int, int]
    limit_units: int
    takes_cards: bool


class Mishap(Enum):
    """What may befall a process or a server before any of its steps."""

    CRASH = auto()
    NAP = auto()
    CUT_FROM_GATE = auto()
    CUT_FROM_LEDGER = auto()
    # of the gate's server alone
    EMPTIED = auto()
    RESTARTED = auto()
    RESTORED = auto()
    # of either store
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class Frailty:
    """The chance of a mishap before a step, and which ones there are."""

    chance: float
    mishaps: tuple[Mishap, ...]


class Theme(Enum):
    """What a run is mostly about: rare meetings need their causes to be frequent."""

    ANYTHING = auto()
    # The gate answers and loses nothing, so its own word must be enough; processes come and go.
    SOUND_GATE = auto()
    # Some processes reach the gate and others do not.
    MIXED_MODE = auto()
    LOST_GATE = auto()
    SLOW_LEDGER = auto()
    # Money, and a provider whose answers are lost.
    CARDS = auto()


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module. Buyers come at the moments; skews are of clocks, ahead of the true time."""

    terms: Terms
    buyers: int
    moments_ms: tuple[int, ...]
    # How often a press under a key that was used before asks for something else, by mistake.
    other_body_chance: float
    # How often who has an order presses once more.
    again_chance: float
    capacity_changes: int
    pass_every_ms_max: int
    gate_weather: Weather
    ledger_weather: Weather
    provider_weather: Weather
    apis: Frailty
    workers: Frailty
    gate: Frailty
    ledger: Frailty
    gate_skew_ms: int
    ledger_skew_ms: int
    host_skew_ms: int


_GOES_AWAY = (Mishap.CRASH, Mishap.NAP)
_CUT = (Mishap.CUT_FROM_GATE, Mishap.CUT_FROM_LEDGER)
_LOST = (Mishap.EMPTIED, Mishap.RESTARTED, Mishap.RESTORED)
_NEVER = Frailty(0.0, ())


def draw(random: Random, theme: Theme | None, until_ms: int) -> Plan:
    """A plan of this seed's, about this theme or any; buyers come before `until_ms`."""
    plan = _anything(random, until_ms)
    match theme or random.choice(list(Theme)):
        case Theme.SOUND_GATE:
            return replace(
                plan,
                capacity_changes=0,
                gate_weather=Weather(latency_ms_max=random.choice([4, 40])),
                gate=_NEVER,
                apis=Frailty(random.choice([0.01, 0.04]), _some(random, _GOES_AWAY)),
                workers=Frailty(plan.workers.chance, _some(random, _GOES_AWAY)),
            )
        case Theme.MIXED_MODE:
            return replace(
                plan,
                apis=Frailty(0.02, (Mishap.CUT_FROM_GATE, *_some(random, _GOES_AWAY))),
                workers=Frailty(0.01, _some(random, _CUT)),
                gate=_NEVER,
                other_body_chance=random.choice([0.0, 0.4]),
            )
        case Theme.LOST_GATE:
            return replace(
                plan,
                gate=Frailty(random.choice([0.01, 0.04]), _some(random, _LOST)),
                again_chance=0.8,
            )
        case Theme.SLOW_LEDGER:
            slow = Weather(lost_chance=0.1, slow_chance=0.25, slow_ms_max=3_000)
            return replace(plan, ledger_weather=slow)
        case Theme.CARDS:
            bad = Weather(lost_chance=0.15, slow_chance=0.2, slow_ms_max=2_000)
            return replace(plan, terms=replace(plan.terms, takes_cards=True), provider_weather=bad)
        case _:
            return plan


def _anything(random: Random, until_ms: int) -> Plan:
    return Plan(
        terms=_terms(random),
        buyers=random.randint(4, 8),
        moments_ms=tuple(random.randrange(100, until_ms) for _ in range(random.randint(1, 3))),
        other_body_chance=random.choice([0.0, 0.05, 0.25]),
        again_chance=0.5,
        capacity_changes=random.choice([0, 0, 1, 2]),
        pass_every_ms_max=random.choice([500, 2_000, 4_000]),
        gate_weather=_weather(random),
        ledger_weather=_weather(random),
        provider_weather=_weather(random),
        apis=Frailty(random.choice([0.0, 0.005, 0.02]), _some(random, [*_GOES_AWAY, *_CUT])),
        workers=Frailty(random.choice([0.0, 0.002, 0.005]), _some(random, [*_GOES_AWAY, *_CUT])),
        gate=Frailty(random.choice([0.0, 0.005, 0.02]), _some(random, [*_LOST, Mishap.SILENT])),
        ledger=Frailty(random.choice([0.0, 0.0, 0.002]), (Mishap.SILENT,)),
        gate_skew_ms=random.randint(0, 4_000),
        ledger_skew_ms=random.randint(0, 4_000),
        host_skew_ms=random.randint(-5_000, 5_000),
    )


def _some(random: Random, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """Any of these, at least one."""
    some = tuple(kind for kind in kinds if random.random() < 0.5)
    return some or (random.choice(kinds),)


def _terms(random: Random) -> Terms:
    tiers = random.choice([1, 1, 2])
    return Terms(
        capacity_units={number: random.choice([1, 2, 3, 4, 8]) for number in range(1, tiers + 1)},
        limit_units=random.choice([0, 2, 2, 3]),
        takes_cards=random.random() < 0.7,
    )


def _weather(random: Random) -> Weather:
    return Weather(
        lost_chance=random.choice([0.0, 0.0, 0.02, 0.08]),
        slow_chance=random.choice([0.0, 0.05, 0.2]),
        slow_ms_max=random.choice([50, 1_000, 3_500]),
        latency_ms_max=random.choice([4, 40]),
    )

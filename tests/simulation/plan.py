"""What one seed stands for: an event on sale, its buyers, and how much goes wrong in which ways.

Each run draws which kinds of fault it has at all: runs with every fault at once never get far enough
to meet the rare ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import TypeVar

from tests.simulation.ledger import Sale
from tests.simulation.network import Weather

Kind = TypeVar("Kind")


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


@dataclass(frozen=True, slots=True)
class Plan:
    """See the module. Buyers come at the moments; skews are of clocks, ahead of the true time."""

    sale: Sale
    buyers: int
    moments_ms: tuple[int, ...]
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


def draw(random: Random, moments_until_ms: int) -> Plan:
    """A plan of this seed's."""
    # In the others the gate answers and loses nothing: there its own word must be enough.
    gate_in_trouble = random.random() < 0.6
    cuts = [Mishap.CUT_FROM_LEDGER] + gate_in_trouble * [Mishap.CUT_FROM_GATE]
    api_mishaps = _some(random, [Mishap.CRASH, Mishap.NAP, *cuts])
    worker_mishaps = _some(random, [Mishap.CRASH, Mishap.NAP, *cuts])
    gate_mishaps = _some(random, [Mishap.EMPTIED, Mishap.RESTARTED, Mishap.RESTORED, Mishap.SILENT])
    return Plan(
        sale=_sale(random),
        buyers=random.randint(3, 7),
        moments_ms=tuple(
            random.randrange(500, moments_until_ms) for _ in range(random.randint(2, 4))
        ),
        capacity_changes=random.choice([0, 0, 1, 2]),
        pass_every_ms_max=random.choice([500, 2_000, 4_000]),
        gate_weather=_weather(random) if gate_in_trouble else Weather(),
        ledger_weather=_weather(random),
        provider_weather=_weather(random),
        apis=Frailty(random.choice([0.0, 0.005, 0.02]), api_mishaps),
        workers=Frailty(random.choice([0.0, 0.002, 0.005]), worker_mishaps),
        gate=Frailty(gate_in_trouble * random.choice([0.0, 0.005, 0.02]), gate_mishaps),
        ledger=Frailty(random.choice([0.0, 0.0, 0.002]), (Mishap.SILENT,)),
        gate_skew_ms=random.randint(0, 4_000),
        ledger_skew_ms=random.randint(0, 4_000),
        host_skew_ms=random.randint(-5_000, 5_000),
    )


def _some(random: Random, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """Any of these, at least one."""
    some = tuple(kind for kind in kinds if random.random() < 0.5)
    return some or (random.choice(kinds),)


def _sale(random: Random) -> Sale:
    tiers = random.choice([1, 1, 2])
    return Sale(
        capacity_units={number: random.randint(1, 4) for number in range(1, tiers + 1)},
        limit_units=random.choice([0, 2, 2, 3]),
        takes_cards=random.random() < 0.7,
    )


def _weather(random: Random) -> Weather:
    return Weather(
        lost_chance=random.choice([0.0, 0.0, 0.02, 0.08]),
        slow_chance=random.choice([0.0, 0.05, 0.2]),
        slow_ms_max=random.choice([50, 1_000, 3_500]),
    )

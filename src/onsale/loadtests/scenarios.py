"""The load scenarios: what each is for, and the event and the crowd it takes by default."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onsale.loadtests.errors import LoadTestError
from onsale.resources import project_folder

PaymentKind = Literal["none", "card"]


@dataclass(frozen=True)
class Scenario:
    """One script of `loadtest/scenarios`, with the defaults that fit it.

    `payment` is the kind of event it needs, `stock` its tickets over all tiers; `buyers` arrive
    within `seconds`. `sells_all` where each buyer who can have a ticket takes one and keeps it.
    """

    name: str
    description: str
    payment: PaymentKind
    stock: int
    buyers: int
    seconds: int
    sells_all: bool = False


_ALL = (
    Scenario(
        "smoke",
        "A few of everything, every answer looked at.",
        payment="card",
        stock=100,
        buyers=12,
        seconds=4,
    ),
    Scenario(
        "flash_sale",
        "A spike of distinct buyers, some pressing twice, on too few tickets.",
        payment="none",
        stock=1_000,
        buyers=5_000,
        seconds=10,
        sells_all=True,
    ),
    Scenario(
        "checkout",
        "Hold, then pay or give back; some cards are declined first.",
        payment="card",
        stock=2_000,
        buyers=3_000,
        seconds=15,
    ),
    Scenario(
        "stress",
        "More and more buyers, each a sale, until the service bends.",
        payment="none",
        stock=100_000,
        # A ramp to 4,000 a second: above that, k6 and the service share too few cores to judge.
        buyers=60_000,
        seconds=30,
    ),
    Scenario(
        "soak",
        "The checkout at 100 buyers a second for half an hour.",
        payment="card",
        stock=200_000,
        buyers=180_000,
        seconds=1_800,
    ),
    Scenario(
        "retry_storm",
        "Buyers who press many times, leave, come back and retry with the same key.",
        payment="none",
        stock=500,
        buyers=2_000,
        seconds=10,
    ),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}


def scripts_dir() -> Path:
    """The folder with `scenarios/` and `lib/`; raises `LoadTestError` when it is not installed."""
    try:
        return project_folder("loadtest")
    except FileNotFoundError as error:
        raise LoadTestError(str(error)) from None

"""What is measured: each variant is one server process and one kind of request to it."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from onsale.domain.tier import CAPACITY_UNITS_MAX

# More than any run sends: every request has a key of its own.
_KEYS_MAX = 10**9
# Few enough to be placed by a warm-up of one second on a slow machine.
_FEW = 1_000


@dataclass(frozen=True)
class Sale:
    """The event that a variant's requests are about, and how they end once it is warm.

    Requests differ in `keys` ways, and `stock` of them can have a seat.
    """

    payment: Literal["none", "card"]
    status: int
    stock: int = CAPACITY_UNITS_MAX
    keys: int = _KEYS_MAX

    @property
    def orders_max(self) -> int | None:
        """How many orders there will ever be, all placed by the warm-up; `None`: one a request."""
        orders = min(self.stock, self.keys)
        return None if orders == CAPACITY_UNITS_MAX else orders


@dataclass(frozen=True)
class Variant:
    """Something to measure; without a `sale` it is served by the app of its name in `bare`."""

    name: str
    description: str
    sale: Sale | None = None


_ALL = (
    Variant("asgi", "a fixed answer, by an ASGI function"),
    Variant("noop", "a FastAPI route with the models of an order, doing nothing"),
    Variant("order", "an order, confirmed in one call", Sale("none", HTTPStatus.CREATED)),
    Variant("hold", "an order that waits for its payment", Sale("card", HTTPStatus.CREATED)),
    Variant(
        "sold_out",
        "an order of a tier that is sold out",
        Sale("none", HTTPStatus.CONFLICT, stock=_FEW),
    ),
    Variant(
        "replay",
        "an order that its key has placed before",
        Sale("none", HTTPStatus.CREATED, keys=_FEW),
    ),
)

VARIANTS = {variant.name: variant for variant in _ALL}

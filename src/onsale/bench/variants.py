"""What is measured: each variant is one server and one kind of request to it."""

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, NamedTuple

from onsale.domain.order import OrderStatus
from onsale.domain.tier import CAPACITY_UNITS_MAX
from onsale.settings import Settings

# More than any run sends: every request has a key of its own.
KEYS_MAX = 10**9
# Few enough to be placed by a warm-up of one second on a slow machine.
_FEW = 1_000
# Few enough for most of them to meet nobody, on connections enough for those who are slow.
_CALM_PER_SECOND, _CALM_CONNECTIONS = 500, 64
# Connections in excess of what one batch holds, so that batches can grow while the disk is slow.
_MANY_CONNECTIONS = 256
# More than there are requests a second.
_ALL_OF_THEM = 1_000_000


@dataclass(frozen=True)
class Sale:
    """What is on sale, and how the requests for it end once the variant is warm.

    Requests differ in `keys` ways, and `stock` of them can have a seat. With `pays` they pay, each
    for a hold of its own that was there before. `leaves` is the status in the ledger of the orders
    that went well. `live_orders` are in the (one) event before anybody comes.
    """

    payment: Literal["none", "card"] = "none"
    status: int = HTTPStatus.CREATED
    leaves: OrderStatus = OrderStatus.CONFIRMED
    stock: int = CAPACITY_UNITS_MAX
    keys: int = KEYS_MAX
    pays: bool = False
    events: int = 1
    live_orders: int = 0

    @property
    def orders_max(self) -> int | None:
        """How many orders there will ever be, all placed by the warm-up; `None`: one a request."""
        few = min(self.stock, self.keys)
        return None if few == CAPACITY_UNITS_MAX else few


class Traces(NamedTuple):
    """Of whom there are traces: a share of the requests, and so many of these a second."""

    share: float
    per_second_max: int


@dataclass(frozen=True)
class Variant:
    """Something to measure.

    With a `sale` it is the service; without, the `app` that is made by `module:factory`, which
    keeps its orders in the `schema` of Postgres, if it keeps any. The rest is where it differs from
    the others: a database of its own, where each commit may take longer; a way to Redis and back
    that takes longer, through a proxy; more processes; no metrics and logs; traces; more
    connections; a crowd that arrives by the clock; refusing what it has no time for.
    """

    name: str
    description: str
    sale: Sale | None = None
    app: str | None = None
    schema: str | None = None
    own_database: bool = False
    commit_delay_ms: int = 0
    redis_delay_ms: float | None = None
    workers: int = 1
    metered: bool = True
    traces: Traces | None = None
    connections: int | None = None
    arrivals_per_second: int = 0
    sheds: bool = False

    @property
    def status(self) -> int:
        """Of every right answer."""
        return self.sale.status if self.sale else HTTPStatus.CREATED

    @property
    def keys(self) -> int:
        """In how many ways requests differ."""
        return self.sale.keys if self.sale else KEYS_MAX

    @property
    def orders_max(self) -> int | None:
        """See `Sale.orders_max`."""
        return self.sale.orders_max if self.sale else None


def _on_disk(delay_ms: int) -> Variant:
    return Variant(
        f"disk_{delay_ms}ms",
        f"order at {_MANY_CONNECTIONS} connections, a commit takes {delay_ms} ms longer",
        Sale(),
        own_database=True,
        commit_delay_ms=delay_ms,
        connections=_MANY_CONNECTIONS,
    )


def _far_from_redis(delay_ms: float) -> Variant:
    return Variant(
        f"redis_{delay_ms}ms",
        f"order through a proxy to Redis, {delay_ms} ms longer there and back",
        Sale(),
        redis_delay_ms=delay_ms,
    )


def _among(live_orders: int, name: str) -> Variant:
    return Variant(
        f"live_{name}",
        f"order in an event that has {live_orders:,} live orders",
        Sale(live_orders=live_orders),
        own_database=True,
    )


def _over_events(events: int) -> Variant:
    return Variant(
        f"events_{events}", f"order, {events} events on sale in turn", Sale(events=events)
    )


def _by_workers(workers: int) -> Variant:
    return Variant(f"workers_{workers}", f"order by {workers} processes", Sale(), workers=workers)


def _calm(name: str, sale: Sale) -> Variant:
    return Variant(
        f"{name}_calm",
        f"{name}, {_CALM_PER_SECOND} arrivals a second",
        sale,
        connections=_CALM_CONNECTIONS,
        arrivals_per_second=_CALM_PER_SECOND,
    )


_TRACES = Traces(
    Settings.model_fields["tracing_sample_share"].default,
    Settings.model_fields["tracing_requests_per_second_max"].default,
)

MEMORY = Variant(
    "memory", "order, a million times, for the memory of the process", Sale(), own_database=True
)

_ALL = (
    Variant("asgi", "a fixed answer, by an ASGI function", app="onsale.bench.bare:create_asgi"),
    Variant(
        "noop",
        "a FastAPI route with the models of an order, doing nothing",
        app="onsale.bench.bare:create_noop",
    ),
    Variant("order", "an order, confirmed in one call", Sale()),
    Variant("quiet", "order without metrics and logs", Sale(), metered=False),
    Variant("hold", "an order that waits for its payment", Sale("card", leaves=OrderStatus.HELD)),
    Variant("pay", "a payment for a hold", Sale("card", HTTPStatus.OK, pays=True)),
    Variant(
        "sold_out",
        "an order of a tier that is sold out",
        Sale(status=HTTPStatus.CONFLICT, stock=_FEW),
    ),
    Variant("replay", "an order that its key has placed before", Sale(keys=_FEW)),
    Variant(
        "textbook",
        "an order by the textbook: FastAPI, an ORM, SELECT … FOR UPDATE",
        app="textbook:create_app",
        schema="bench_textbook",
    ),
    Variant(
        "cte",
        "an order by one guarded statement on the driver itself",
        app="cte:create_app",
        schema="bench_cte",
    ),
    Variant("order_traced", "order, traced as by default", Sale(), traces=_TRACES),
    Variant(
        "order_traced_1pc",
        "order, one in a hundred traced",
        Sale(),
        traces=Traces(0.01, _ALL_OF_THEM),
    ),
    Variant("order_traced_all", "order, every one traced", Sale(), traces=Traces(1, _ALL_OF_THEM)),
    Variant(
        "sold_out_traced",
        "sold_out, traced as by default",
        Sale(status=HTTPStatus.CONFLICT, stock=_FEW),
        traces=_TRACES,
    ),
    *(_on_disk(delay_ms) for delay_ms in (0, 1, 5)),
    *(_far_from_redis(delay_ms) for delay_ms in (0, 1)),
    *(_among(*live) for live in ((1_000, "1k"), (100_000, "100k"), (1_000_000, "1m"))),
    *(_over_events(events) for events in (1, 10, 100)),
    *(_by_workers(workers) for workers in (1, 2, 4)),
    _calm("order", Sale()),
    _calm("sold_out", Sale(status=HTTPStatus.CONFLICT, stock=_FEW)),
    MEMORY,
)

VARIANTS = {variant.name: variant for variant in _ALL}


@dataclass(frozen=True)
class Suite:
    """Variants to run together; those of `open_loop` take a turn at 70 % of their maximum as well.

    Only variants of one run are compared, so a suite has all that its own are compared with.
    """

    description: str
    variants: tuple[str, ...]
    open_loop: tuple[str, ...] = ()

    def __or__(self, other: "Suite") -> "Suite":
        """Both in one run."""
        return Suite(
            f"{self.description}; {other.description}",
            tuple(dict.fromkeys(self.variants + other.variants)),
            tuple(dict.fromkeys(self.open_loop + other.open_loop)),
        )


_REQUESTS = ("asgi", "noop", "order", "hold", "pay", "sold_out", "replay", "textbook", "cte")

SUITES = {
    "core": Suite(
        "everything that has a goal",
        (
            *("memory", *_REQUESTS, "quiet", "disk_0ms", "disk_5ms"),
            *("live_1k", "live_1m", "events_1", "events_100"),
        ),
        open_loop=_REQUESTS,
    ),
    "quick": Suite("every kind of request, and the peers", _REQUESTS, open_loop=("noop", "order")),
    "disk": Suite("slower disks", ("disk_0ms", "disk_1ms", "disk_5ms")),
    "redis": Suite("a longer way to Redis", ("order", "redis_0ms", "redis_1ms")),
    "live": Suite("sales of some length", ("live_1k", "live_100k", "live_1m")),
    "events": Suite("several events on sale at once", ("events_1", "events_10", "events_100")),
    "workers": Suite("several API processes", ("workers_1", "workers_2", "workers_4")),
    "metrics": Suite("what metrics and logs cost", ("order", "quiet")),
    "tracing": Suite(
        "what traces cost",
        (
            *("order", "order_traced", "order_traced_1pc", "order_traced_all"),
            *("sold_out", "sold_out_traced"),
        ),
    ),
    "memory": Suite("what the API process grows to", ("memory",)),
    "capacity": Suite(
        "what `onsale capacity` computes from",
        (
            *("order", "hold", "pay", "sold_out", "replay", "order_calm", "sold_out_calm"),
            *("workers_1", "workers_2"),
        ),
    ),
}


def suite_of(names: Iterable[str]) -> Suite:
    """These suites as one. Raises `ValueError` for one that there is not."""
    chosen = Suite("", ())
    for name in names:
        if name not in SUITES:
            raise ValueError(f"no suite {name!r}; there are: {', '.join(SUITES)}")
        chosen |= SUITES[name]
    return chosen

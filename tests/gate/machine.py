"""The machine that holds the gate's scripts against the reference model.

It draws commands, sends each to `Gate` on a real server and to `Inventory`, and requires the same
answers; after every command the books of both are compared in full. Few buyers with few keys, few
seats and few carts make collisions the rule: what is rare in a sale happens in every example.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from redis.asyncio import Redis

from onsale.domain.event import SaleSwitch
from onsale.domain.inventory import Inventory, TakenOrder
from onsale.gate.gate import Gate, GateBooks, GateTierBooks, seen_name
from onsale.gate.keys import event_keys
from onsale.settings import Settings
from tests.gate.support import (
    HOUR,
    AnOrder,
    an_event,
    an_order,
    body_of,
    on_sale,
    pairs,
    with_capacities,
)

Result = TypeVar("Result")

TIERS = (1, 2, 3)

# A few orders sell a tier out, and now and then it has nothing to sell at all.
capacities = st.tuples(*(st.sampled_from([12, 40, 25, 5, 0]) for _ in TIERS))
# Mostly several items, so that the second or third may be the one that is short.
carts = (
    st.tuples(*(st.sampled_from([1, 2, 0, 1, 4]) for _ in TIERS))
    .filter(any)
    .map(lambda units: tuple(item for item in zip(TIERS, units, strict=True) if item[1]))
)
limits = st.sampled_from([0, 0, 3, 6, 20])
# Hours from now at which the sale opens and closes; a step takes milliseconds.
windows = st.sampled_from([(-1, 1)] * 8 + [(1, 2), (-2, -1)])
switches = st.sampled_from([SaleSwitch.OPEN] * 4 + [SaleSwitch.PAUSED, SaleSwitch.CLOSED])

# Who presses, under which key, with which of the example's carts: now and then the same again.
presses = st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(0, 2))
batches = st.lists(presses, min_size=1, max_size=8)
few = st.lists(presses, min_size=1, max_size=3)


class GateMachine(RuleBasedStateMachine):
    """See the module. Subclasses say on which server."""

    server_url: str

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._gate = Gate.connect(Settings(redis_url=self.server_url))
        self._redis = Redis.from_url(self.server_url, protocol=2)

    def teardown(self) -> None:
        async def clean_up() -> None:
            if hasattr(self, "_event"):
                await self._redis.delete(*event_keys(self._event.id))
            await self._redis.aclose()
            await self._gate.close()

        self._run(clean_up())
        self._runner.close()

    # -- commands

    @initialize(
        carts=st.tuples(carts, carts, carts),
        capacities=capacities,
        limit_units=limits,
        window=windows,
    )
    def put_on_sale(
        self,
        carts: tuple[tuple[tuple[int, int], ...], ...],
        capacities: tuple[int, ...],
        limit_units: int,
        window: tuple[int, int],
    ) -> None:
        self._carts = carts
        self._event = an_event(*capacities, limit_units=limit_units)
        self._generation = 0
        self._load(window)

    def _load(self, window: tuple[int, int]) -> None:
        opens_at, closes_at = (self._event.created_at + hours * HOUR for hours in window)
        self._event = replace(self._event, sale_opens_at=opens_at, sale_closes_at=closes_at)
        self._generation += 1
        _, self._epoch = self._run(on_sale(self._gate, self._event, self._generation))
        self._model = Inventory(
            capacity_units={tier.number: tier.capacity_units for tier in self._event.tiers},
            limit_units=self._event.max_per_buyer_units,
            switch=self._event.switch,
            opens_at_ms=self._event.sale_opens_at_ms,
            closes_at_ms=self._event.sale_closes_at_ms,
        )
        # The log: in the order of admission, and those of a batch in its own.
        self._ever_admitted: list[bytes] = []

    @rule(batch=batches)
    def admit(self, batch: list[tuple[int, int, int]]) -> None:
        orders = [self._order(press) for press in batch]
        now_ms = self._run(self._gate.now_seconds(self._event.id)) * 1000
        before = set(self._model.orders)
        expected = self._model.admit([order.taken for order in orders], now_ms)
        answer = self._run(self._gate.admit(self._event.id, self._epoch, pairs(*orders)))
        assert answer.outcomes == expected
        for tier_number, units in answer.available_units.items():
            assert units == self._model.available_units(tier_number)
        self._count_new(before)
        assert answer.orders_ever_admitted == len(self._ever_admitted)

    @rule(press=presses)
    def admit_one(self, press: tuple[int, int, int]) -> None:
        """A sale is mostly this; without it an example would be mostly its organisers."""
        self.admit([press])

    @rule(cart=st.integers(0, 2), key=st.integers(1, 8))
    def admit_everybody(self, cart: int, key: int) -> None:
        self.admit([(buyer, key, cart) for buyer in range(1, 5)])

    @rule(batch=few)
    def adopt(self, batch: list[tuple[int, int, int]]) -> None:
        orders = [self._order(press) for press in batch]
        before = set(self._model.orders)
        expected = self._model.adopt([order.taken for order in orders])
        answer = self._run(self._gate.adopt(self._event.id, self._epoch, pairs(*orders)))
        assert answer == expected
        self._count_new(before)

    @rule(batch=batches)
    def give_back(self, batch: list[tuple[int, int, int]]) -> None:
        ids = [self._order(press).id for press in batch]
        expected = self._model.give_back(ids)
        given_back, available = self._run(self._gate.give_back(self._event.id, self._epoch, ids))
        assert given_back == expected
        for tier_number, units in available.items():
            assert units == self._model.available_units(tier_number)

    @rule(batch=few)
    def mark_seen(self, batch: list[tuple[int, int, int]]) -> None:
        """Orders that have ended: nothing but the log learns of them."""
        ids = [self._order(press).id for press in batch]
        self._run(self._gate.mark_seen(self._event.id, self._epoch, ids))
        self._ever_admitted += ids

    @rule(switch=switches, capacities=capacities)
    def configure(self, switch: SaleSwitch, capacities: tuple[int, ...]) -> None:
        self._event = with_capacities(self._event, switch, capacities)
        wanted = {tier.number: tier.capacity_units for tier in self._event.tiers}
        changes = (switch is not self._model.switch) + sum(
            self._model.capacity_units[number] != units for number, units in wanted.items()
        )
        self._model.configure(switch, wanted)
        answer = self._run(self._gate.configure(self._event, self._epoch))
        assert answer == (changes, self._available_units())

    @rule(window=windows)
    def load_anew(self, window: tuple[int, int]) -> None:
        """As after a loss: everything goes, and what the ledger has is adopted."""
        live = list(self._model.orders.values())
        bodies = [(order.order_id, body_of(order)) for order in live]
        self._load(window)
        self._model.adopt(live)
        self._run(self._gate.adopt(self._event.id, self._epoch, bodies))
        self._count_new(set())

    # -- what holds after each of them

    @invariant()
    def availability_is_the_models(self) -> None:
        seen = self._run(self._gate.availability(self._event.id, self._epoch))
        assert seen.available_units == self._available_units()
        assert seen.switch is self._model.switch
        assert seen.orders_ever_admitted == len(self._ever_admitted)

    @invariant()
    def books_are_the_models(self) -> None:
        books = self._run(self._gate.audit(self._event.id, self._epoch))
        assert books == GateBooks(
            live_orders=len(self._model.orders),
            tiers=[
                GateTierBooks(
                    number, capacity, self._model.available_units(number), self._taken(number)
                )
                for number, capacity in self._model.capacity_units.items()
            ],
        )

    @invariant()
    def orders_are_the_models(self) -> None:
        async def read() -> dict[bytes, TakenOrder]:
            return {
                order_id: stored.taken
                async for chunk in self._gate.orders(self._event.id)
                for order_id, stored in chunk.items()
            }

        assert self._run(read()) == self._model.orders

    @invariant()
    def buyers_are_the_models(self) -> None:
        """Who has none any more is not kept: a sale's losers must not fill the memory."""
        wanted = {}
        if self._model.limit_units:
            buyers = {order.buyer for order in self._model.orders.values()}
            wanted = {buyer: self._model.units_of(buyer) for buyer in buyers}

        async def read() -> dict[bytes, int]:
            found: dict[Any, Any] = await self._redis.hgetall(event_keys(self._event.id).buyers)
            return {buyer: int(units) for buyer, units in found.items()}

        assert self._run(read()) == wanted

    @invariant()
    def log_knows_whoever_was_admitted(self) -> None:
        for known in {0, len(self._ever_admitted) // 2}:
            seen = self._run(self._gate.seen(self._event.id, self._epoch, known))
            assert seen == tuple(map(seen_name, self._ever_admitted[known:]))

    # -- how

    def _run(self, asked: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(asked)

    def _order(self, press: tuple[int, int, int]) -> AnOrder:
        buyer, key, cart = press
        return an_order(f"buyer-{buyer}", f"key-{key}", *self._carts[cart])

    def _count_new(self, before: set[bytes]) -> None:
        self._ever_admitted += [order for order in self._model.orders if order not in before]

    def _taken(self, tier_number: int) -> int:
        return self._model.capacity_units[tier_number] - self._model.available_units(tier_number)

    def _available_units(self) -> dict[int, int]:
        return {
            number: self._model.available_units(number) for number in self._model.capacity_units
        }


def machine_on(server_url: str) -> type[GateMachine]:
    """The machine, on this server."""
    return type("GateMachine", (GateMachine,), {"server_url": server_url})

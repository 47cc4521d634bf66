"""Buyers who press, press twice, give up waiting, pay, release and come back; and an organiser."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from random import Random

from onsale.domain.order import Item, OrderStatus
from tests.simulation.api import Api, Connection
from tests.simulation.history import Answer, History, Key
from tests.simulation.ledger import OrderRow
from tests.simulation.placing import Asked
from tests.simulation.plan import Plan, Terms
from tests.simulation.scheduler import Host, Promise, Scheduler, Steps, pause
from tests.simulation.timing import HOLD_MS

_TRIES_MAX = 4
# From those who press and go at once to those who wait for everything.
_PATIENCE_MS = (8, 100, 1_000, 6_000)


class Buyer(Host):
    """A buyer at a browser that never crashes; the patience does."""

    def __init__(
        self,
        scheduler: Scheduler,
        name: str,
        apis: list[Api],
        plan: Plan,
        history: History,
    ) -> None:
        super().__init__(scheduler, name)
        self._random: Random = scheduler.random
        self._apis = apis
        self._terms = plan.terms
        self._other_body_chance = plan.other_body_chance
        self._again_chance = plan.again_chance
        self._history = history

    def shop(self, moments_ms: Sequence[int]) -> Steps[None]:
        """Come at these times, and buy once each time, or more than once."""
        names = count()
        for moment_ms in moments_ms:
            yield from pause(self.scheduler, max(0, moment_ms - self.scheduler.now_ms))
            for _ in range(self._random.choice([1, 1, 2, 3])):
                key, items = Key(self.name, f"key{next(names)}"), self._some_items()
                self.spawn(self._buy(key, items))
                yield from pause(self.scheduler, self._random.choice([0, 0, 5, 1_500]))

    def _some_items(self) -> tuple[Item, ...]:
        most = self._terms.limit_units or 2
        tiers = list(self._terms.capacity_units)
        asked = tiers if self._random.random() < 0.25 else [self._random.choice(tiers)]
        quantity = self._random.randint(1, min(most, 2))
        return tuple(Item(tier, quantity) for tier in asked)

    def _buy(self, key: Key, items: tuple[Item, ...]) -> Steps[None]:
        answer = yield from self.press_until_answered(key, items)
        if answer is None or not answer.placed:
            return
        order_id = answer.order_id
        assert order_id is not None
        if answer.code == OrderStatus.HELD:
            yield from pause(self.scheduler, self._random.choice([0, 50, 1_000, HOLD_MS - 50]))
            yield from self._decide(order_id)
        if self._random.random() < 0.3:
            yield from pause(self.scheduler, self._random.choice([0, 50, 1_000]))
            yield from self._ask(lambda api: api.ending.refund(order_id))
        while self._random.random() < self._again_chance:
            yield from self.press_until_answered(key, items)
            yield from pause(self.scheduler, self._random.choice([0, 20, 100, 1_000]))

    def _decide(self, order_id: bytes) -> Steps[None]:
        pay = partial(_pay, order_id=order_id, buyer=self.name.encode())
        chance = self._random.random()
        if chance < 0.2:
            yield from self._ask(lambda api: api.ending.release(order_id, self.name.encode()))
        elif chance < 0.3:
            yield from self._ask(partial(pay, method="declined"))
        elif chance < 0.85:
            if self._random.random() < 0.3:
                self.spawn(self._ask(partial(pay, method="ok")))
            answer = yield from self._ask(partial(pay, method="ok"))
            if answer is None or answer.code == "unavailable":
                yield from self._ask(partial(pay, method="ok"))

    def press_until_answered(self, key: Key, items: tuple[Item, ...]) -> Steps[Answer | None]:
        """Press, and again under the same key until there is an answer, with some patience."""
        answer = None
        for _ in range(_TRIES_MAX):
            if self._random.random() < 0.25:
                self.spawn(self.press(key, self._same_or_other(items)))
            answer = yield from self.press(key, self._same_or_other(items))
            if answer is not None and (answer.placed or answer.refused):
                return answer
            yield from pause(self.scheduler, self._random.choice([1, 100, 1_000]))
        return answer

    def _same_or_other(self, items: tuple[Item, ...]) -> tuple[Item, ...]:
        other = self._random.random() < self._other_body_chance
        return self._some_items() if other else items

    def press(
        self, key: Key, items: tuple[Item, ...], patience_ms: int | None = None
    ) -> Steps[Answer | None]:
        """Press once, and wait so long or some time; `None` when no answer came."""
        fingerprint = ",".join(f"{tier}x{quantity}" for tier, quantity in items).encode()
        press = self._history.press(key, items, fingerprint)
        asked = Asked(key, items, fingerprint)
        answer = yield from self._ask(lambda api: api.placing.place(asked), key, patience_ms)
        if answer is not None:
            self._history.answered(press, answer)
        return answer

    def _ask(
        self,
        request: Callable[[Api], Steps[OrderRow | None]],
        key: Key | None = None,
        patience_ms: int | None = None,
    ) -> Steps[Answer | None]:
        api = self._random.choice(self._apis)
        connection: Connection = Promise(self.scheduler)
        self.scheduler.after(self._random.randint(1, 2), partial(api.serve, request, connection))
        patience_ms = patience_ms or self._random.choice(_PATIENCE_MS)
        self.scheduler.after(patience_ms, partial(self._go_away, api, connection, key))
        return (yield from connection.kept())

    def _go_away(self, api: Api, connection: Connection, key: Key | None) -> None:
        if not connection.done:
            connection.keep(None)
            if key is not None:
                api.placing.forget(key)


def _pay(api: Api, order_id: bytes, buyer: bytes, method: str) -> Steps[OrderRow | None]:
    return api.paying.pay(order_id, buyer, method)


class Organiser:
    """Changes capacities in the midst of the sale."""

    def __init__(self, apis: list[Api], terms: Terms) -> None:
        self._apis = apis
        self._terms = terms

    def change_a_capacity(self) -> None:
        """Some tier, some other capacity; what is reserved already is not taken away."""
        api = self._apis[0]
        random = api.scheduler.random
        tier_number = random.choice(list(self._terms.capacity_units))
        api.spawn(api.organising.set_capacity(tier_number, random.randint(0, 5)))

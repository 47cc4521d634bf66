"""The gate's server: its scripts, each one step, upon the domain's reference model.

`Inventory` decides; what is added here is what the scripts keep beside it (epoch, log of admitted
orders, stamps, version) and what can happen to a server that promises little: it is emptied, or
starts again with what it had saved some time ago.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from onsale.domain.inventory import Inventory, Outcome, TakenOrder
from onsale.gate.epoch import generation_of
from tests.simulation.network import Server
from tests.simulation.planted import Bug, inventory_of
from tests.simulation.scheduler import Scheduler

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


# Small, so that a few orders are read in several instants.
SEEN_AT_ONCE = 3


class Reply(NamedTuple, Generic[Answer]):
    """An answer on a connection to this run of the server; `None` stands for `LOST`."""

    run_id: str
    answer: Answer | None


class Admission(NamedTuple):
    """What a batch came to; see `onsale.gate.gate.Admission`."""

    outcomes: list[Outcome]
    orders_ever_admitted: int
    available_units: dict[int, int]


class Availability(NamedTuple):
    """How the sale stands."""

    available_units: dict[int, int]
    orders_ever_admitted: int


class StoredOrder(NamedTuple):
    """An order read back from the gate."""

    admitted_at_ms: int
    fingerprint: bytes


@dataclass(slots=True)
class GateData:
    """What the server holds, and loses."""

    inventory: Inventory
    version: int
    epoch: str | None = None
    loading: str | None = None
    admitted_at_ms: dict[bytes, int] = field(default_factory=dict)
    # The log: who was ever admitted, in that order.
    seen: list[bytes] = field(default_factory=list)

    def copy(self) -> "GateData":
        inventory = replace(self.inventory, orders=dict(self.inventory.orders))
        return replace(
            self,
            inventory=inventory,
            admitted_at_ms=dict(self.admitted_at_ms),
            seen=list(self.seen),
        )


class GateRecord(NamedTuple):
    """What the gate held from `since_ms` on, until the next record."""

    since_ms: int
    data: GateData | None


Script = Callable[Concatenate["GateServer", str, Asked], Reply[Answer]]


def script(
    *, while_loading: bool
) -> Callable[[Callable[Concatenate["GateServer", Asked], Answer]], Script[Asked, Answer]]:
    """A script: it answers `LOST` unless called with the epoch in force, or the one loading."""

    def decorate(
        step: Callable[Concatenate["GateServer", Asked], Answer],
    ) -> Script[Asked, Answer]:
        def run(
            self: "GateServer", epoch: str, /, *args: Asked.args, **named: Asked.kwargs
        ) -> Reply[Answer]:
            if not self.holds(epoch, while_loading):
                return Reply(self.run_id, None)
            return Reply(self.run_id, step(self, *args, **named))

        run.__name__ = step.__name__  # for the story
        return run

    return decorate


class GateServer(Server):
    """One Redis, and one event in it."""

    def __init__(self, scheduler: Scheduler, skew_ms: int, bugs: frozenset[Bug]) -> None:
        super().__init__("gate")
        self._scheduler = scheduler
        self._skew_ms = skew_ms
        self._bugs = bugs
        self._inventory = inventory_of(bugs)
        self._runs = 1
        self.data: GateData | None = None
        self.changes = 0
        # Every state it was ever in: what rules look back upon, and what a restart may bring back.
        self.records: list[GateRecord] = [GateRecord(0, None)]

    @property
    def run_id(self) -> str:
        return f"run{self._runs}"

    def holds(self, epoch: str, while_loading: bool) -> bool:
        """Whether a script may run under this epoch."""
        if self.data is None:
            return False
        if Bug.NO_EPOCH in self._bugs:
            return True
        return self.data.epoch == epoch or (while_loading and self.data.loading == epoch)

    # -- what becomes of it

    def empty(self) -> None:
        """FLUSHALL."""
        if self.data is not None and Bug.NO_EPOCH in self._bugs:
            nothing = dict.fromkeys(self.data.inventory.capacity_units, 0)
            self.data = GateData(self._inventory(nothing), version=0)
        else:
            self.data = None
        self._changed()

    def restart_from(self, record: GateRecord) -> None:
        """Start again with what had been saved by then."""
        self._runs += 1
        self.data = record.data.copy() if record.data is not None else None
        self._changed()

    # -- scripts

    @script(while_loading=False)
    def admit(self, orders: Sequence[TakenOrder]) -> Admission:
        """admit.lua"""
        data = self._held()
        outcomes = data.inventory.admit(orders, self._now_ms())
        for order, outcome in zip(orders, outcomes, strict=True):
            if outcome is Outcome.ADMITTED:
                self._take(data, order.order_id)
        if Outcome.ADMITTED in outcomes:
            self._changed()
        tiers = {item.tier_number for order in orders for item in order.items}
        available_units = {tier: data.inventory.available_units(tier) for tier in sorted(tiers)}
        return Admission(outcomes, len(data.seen), available_units)

    @script(while_loading=False)
    def give_back(self, order_ids: Sequence[bytes]) -> tuple[int, dict[int, int]]:
        """give_back.lua: how many were here, and what is left of the tiers that gained."""
        inventory = self._held().inventory
        here = [inventory.orders[key] for key in order_ids if key in inventory.orders]
        gained = {item.tier_number for order in here for item in order.items}
        given_back = inventory.give_back(order_ids)
        if given_back:
            self._changed()
        return given_back, {tier: inventory.available_units(tier) for tier in sorted(gained)}

    @script(while_loading=False)
    def availability(self) -> Availability:
        """availability.lua"""
        return Availability(self._available_units(), len(self._held().seen))

    @script(while_loading=False)
    def seen(self, known_orders: int) -> list[bytes]:
        """seen.lua: who was admitted next."""
        return self._held().seen[known_orders:][:SEEN_AT_ONCE]

    @script(while_loading=True)
    def adopt(self, orders: Sequence[TakenOrder]) -> int:
        """adopt.lua"""
        data = self._held()
        missing = [order for order in orders if order.order_id not in data.inventory.orders]
        adopted = data.inventory.adopt(missing)
        for order in missing:
            self._take(data, order.order_id)
        if adopted:
            self._changed()
        return adopted

    @script(while_loading=True)
    def mark_seen(self, order_ids: Sequence[bytes]) -> int:
        """mark.lua"""
        data = self._held()
        data.seen += order_ids
        if order_ids:
            self._changed()
        return len(data.seen)

    @script(while_loading=True)
    def configure(self, version: int, capacity_units: dict[int, int]) -> int:
        """configure.lua"""
        data = self._held()
        if version < data.version:
            return 0
        data.version = version
        if data.inventory.capacity_units == capacity_units:
            return 0
        data.inventory.configure(data.inventory.switch, capacity_units)
        self._changed()
        return 1

    def load(
        self, epoch: str, version: int, capacity_units: dict[int, int], limit_units: int
    ) -> Reply[int]:
        """load.lua"""
        data = self.data
        newest = max(generation_of(data.epoch), generation_of(data.loading)) if data else 0
        if generation_of(epoch) <= newest:
            return Reply(self.run_id, None)
        inventory = self._inventory(dict(capacity_units), limit_units)
        self.data = GateData(inventory, version, loading=epoch)
        self._changed()
        return Reply(self.run_id, 1)

    @script(while_loading=True)
    def open(self, epoch: str) -> int:
        """open.lua"""
        data = self._held()
        if data.loading == epoch:
            data.epoch, data.loading = epoch, None
            self._changed()
        return 1

    # -- plain commands, which know no epoch

    def ping(self) -> Reply[int]:
        """PING: a new connection tells which run it is to."""
        return Reply(self.run_id, 1)

    def orders(self) -> Reply[tuple[int, dict[bytes, StoredOrder]]]:
        """TIME and HSCAN: now, and every order with the time of its admission."""
        stored = {}
        if self.data is not None:
            stamps = self.data.admitted_at_ms
            stored = {
                key: StoredOrder(stamps[key], taken.fingerprint)
                for key, taken in self.data.inventory.orders.items()
            }
        return Reply(self.run_id, (self._now_ms(), stored))

    def missing(self, order_ids: Sequence[bytes]) -> Reply[list[bytes]]:
        """HMGET: those that are not here."""
        held = self.data.inventory.orders if self.data else {}
        return Reply(self.run_id, [order_id for order_id in order_ids if order_id not in held])

    # -- how

    def _held(self) -> GateData:
        assert self.data is not None, "a script runs only where an epoch is"
        return self.data

    def _take(self, data: GateData, order_id: bytes) -> None:
        data.admitted_at_ms[order_id] = self._now_ms()
        data.seen.append(order_id)

    def _available_units(self) -> dict[int, int]:
        inventory = self._held().inventory
        return {tier: inventory.available_units(tier) for tier in inventory.capacity_units}

    def _now_ms(self) -> int:
        return self._scheduler.now_ms + self._skew_ms

    def _changed(self) -> None:
        self.changes += 1
        copy = self.data.copy() if self.data is not None else None
        self.records.append(GateRecord(self._scheduler.now_ms, copy))

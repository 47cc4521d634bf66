"""One seed from beginning to end: the sale in trouble, the quiet after, and what is asked then."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

from onsale.domain.order import Item
from tests.simulation import invariants, plan
from tests.simulation.api import Api
from tests.simulation.clients import Buyer, Organiser
from tests.simulation.faults import Faults
from tests.simulation.gate import GateServer
from tests.simulation.history import BrokenPromise, History, Key, Press
from tests.simulation.invariants import Evidence, Violation
from tests.simulation.ledger import LedgerServer
from tests.simulation.network import Network
from tests.simulation.plan import Theme
from tests.simulation.planted import Bug
from tests.simulation.process import Surroundings
from tests.simulation.provider import ProviderServer
from tests.simulation.scheduler import Scheduler
from tests.simulation.story import Story
from tests.simulation.timing import CHAOS_MS, GRACE_MS, HOLD_MS, PAYMENT_GIVEN_UP_MS
from tests.simulation.workers import Worker

_APIS = 2
_WORKERS = 2
# Each round takes what there is a step further: load, compare, give back; authorise, capture.
_QUIET_ROUNDS_MAX = 8
_PATIENCE_AT_QUIET_MS = 60_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to."""

    seed: int
    steps: int
    orders: int
    violation: Violation | None


class Model:
    """See the module. `bugs` are planted in the protocol; `tell` gets the story's lines."""

    def __init__(
        self,
        seed: int,
        bugs: Iterable[Bug] = (),
        theme: Theme | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        random = Random(seed)
        planted = frozenset(bugs)
        self.scheduler = Scheduler(random)
        self._story = Story(self.scheduler, tell)
        self.plan = plan.draw(random, theme, until_ms=CHAOS_MS // 2)
        terms = self.plan.terms
        self.history = History(self.scheduler, self._answered, self._promise_broken)
        self._story.history = self.history
        around = Surroundings(
            scheduler=self.scheduler,
            network=Network(self.scheduler, self._story.call),
            gate=GateServer(self.scheduler, self.plan.gate_skew_ms, planted),
            ledger=LedgerServer(
                self.scheduler, terms, self.plan.ledger_skew_ms, planted, self._committed
            ),
            provider=ProviderServer(),
            history=self.history,
            bugs=planted,
            tell=self._story.tell,
        )
        skews = [0, self.plan.host_skew_ms]
        self.apis = [Api(around, f"api{n}", skews[n]) for n in range(_APIS)]
        self.workers = [
            Worker(around, f"worker{n}", skews[n], terms, self.plan.pass_every_ms_max)
            for n in range(_WORKERS)
        ]
        self.seen = Evidence(terms, around.gate, around.ledger, around.provider, self.history)
        self._around = around

    def run(self) -> Outcome:
        """Run it; a rule that does not hold is part of the outcome."""
        violation = None
        try:
            self._open()
            self._chaos()
            self._quiet()
            self._press_at_quiet()
        except Violation as found:
            violation = found
            self._story.tell("rule", str(found))
        finally:
            self.scheduler.stop()
        return Outcome(self.seed, self.scheduler.steps, len(self.seen.ledger.orders), violation)

    # -- four acts

    def _open(self) -> None:
        """The sale opens: its gate is loaded, and every process knows of it."""
        self.workers[0].spawn(self.workers[0].run_once())
        for api in self.apis:
            api.spawn(api.catalog.require())
        self.scheduler.run()

    def _chaos(self) -> None:
        self._story.tell("", "chaos")
        for process in [*self.apis, *self.workers]:
            process.begin()
        faults = Faults(self._around, self.plan, self.apis, self.workers)
        faults.begin()
        random = self.scheduler.random
        organiser = Organiser(self.apis, self.plan.terms)
        for _ in range(self.plan.capacity_changes):
            self.scheduler.at(self._some_moment_ms(), organiser.change_a_capacity)
        for n in range(self.plan.buyers):
            buyer = self._buyer(f"buyer{n}")
            times = random.randint(1, 3)
            buyer.spawn(buyer.shop(sorted(self._some_moment_ms() for _ in range(times))))
        self.scheduler.at(CHAOS_MS, faults.end)
        self.scheduler.run()

    def _quiet(self) -> None:
        """Time passes, and the workers run until there is nothing more for them to do."""
        self._story.tell("", "quiet")
        self.scheduler.now_ms += 2 * max(HOLD_MS, GRACE_MS, PAYMENT_GIVEN_UP_MS)
        for _ in range(_QUIET_ROUNDS_MAX):
            before = self._changes()
            for worker in self.workers:
                worker.spawn(worker.run_once())
                self.scheduler.run()
            if self._changes() == before:
                break
        else:
            raise Violation("I1", "the workers find no end")
        self._look_at_quiet()

    def _press_at_quiet(self) -> None:
        """Who has an order gets it again, and what is left can be bought, and no more than that."""
        for api in self.apis:
            api.spawn(api.catalog.look_after())
        self.scheduler.run()
        for key, press in self._acknowledged():
            answer = self._press(key, press.items)
            if not answer.placed:
                raise Violation("I5", f"at quiet {key} is told {answer.code}")
        for tier in self.plan.terms.capacity_units:
            self._buy_out(tier)
        invariants.both_stores_agree(self.seen)

    def _buy_out(self, tier: int) -> None:
        capacity_units = self.seen.ledger.event().capacity_units[tier]
        left = capacity_units - self.seen.ledger.reserved_units[tier]
        for n in range(left + 1):
            answer = self._press(Key(f"late{tier}-{n}", "key"), (Item(tier, 1),))
            expected = n < left
            if answer.placed != expected or (not expected and answer.code != "sold_out"):
                raise Violation(
                    "I9", f"{left} left in tier {tier}, number {n} is told {answer.code}"
                )

    # -- how

    def _some_moment_ms(self) -> int:
        """A time near one of the run's moments."""
        random = self.scheduler.random
        spread_ms = random.choice([3, 3, 20, 500, 3_000])
        return random.choice(self.plan.moments_ms) + random.randrange(spread_ms)

    def _buyer(self, name: str) -> Buyer:
        return Buyer(self.scheduler, name, self.apis, self.plan, self.history)

    def _press(self, key: Key, items: tuple[Item, ...]) -> Any:
        buyer = self._buyer(key.buyer)
        buyer.spawn(buyer.press(key, items, patience_ms=_PATIENCE_AT_QUIET_MS))
        self.scheduler.run()
        answer = self.history.presses[key][-1].answer
        assert answer is not None, "nothing is lost at quiet"
        return answer

    def _acknowledged(self) -> list[tuple[Key, Press]]:
        return [
            (key, press)
            for key, presses in self.history.presses.items()
            for press in presses
            if press.answer is not None and press.answer.placed
        ]

    def _changes(self) -> int:
        return self.seen.ledger.changes + self.seen.gate.changes

    def _committed(self) -> None:
        for rule in invariants.AFTER_EVERY_COMMIT:
            rule(self.seen)

    def _answered(self, press: Press) -> None:
        self._story.tell(press.key.buyer, f"{press.key.name}: {press.answer}")
        for rule in invariants.AFTER_EVERY_ANSWER:
            rule(self.seen, press)

    def _promise_broken(self, promise: BrokenPromise) -> None:
        invariants.whom_the_gate_admits_the_ledger_takes(self.seen, promise)

    def _look_at_quiet(self) -> None:
        for rule in invariants.AT_QUIET:
            rule(self.seen)

"""A process of the sale: a host with connections to the stores, and group commit upon them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from onsale.domain.errors import GateLost, GateUnavailable, LedgerUnavailable, OnsaleError
from onsale.domain.inventory import Outcome, TakenOrder
from onsale.gate.epoch import names_server
from onsale.payments.provider import AnswerLost
from tests.simulation.gate import GateServer, Reply
from tests.simulation.history import History
from tests.simulation.ledger import LedgerServer, Placement, Session
from tests.simulation.network import Network
from tests.simulation.planted import Bug
from tests.simulation.provider import ProviderServer
from tests.simulation.scheduler import Host, Promise, Scheduler, Steps
from tests.simulation.timing import GATE_REST_MS, GATE_TIMEOUT_MS, LEDGER_TIMEOUT_MS, PROVIDER_TIMEOUT_MS

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every process of a run shares: the servers, the network, and the notes taken."""

    scheduler: Scheduler
    network: Network
    gate: GateServer
    ledger: LedgerServer
    provider: ProviderServer
    history: History
    bugs: frozenset[Bug]
    tell: Callable[[str, str], None]


class Process(Host):
    """See the module. What it knows is lost when it crashes."""

    def __init__(self, around: Surroundings, name: str, skew_ms: int) -> None:
        super().__init__(around.scheduler, name)
        self.around = around
        self.skew_ms = skew_ms
        self._run_id: str | None = None
        # The breaker: a gate that did not answer is left alone for a moment.
        self._gate_rests_until_ms = 0
        self._session = Session()

    def crash(self) -> None:
        super().crash()
        self._run_id = None
        self._gate_rests_until_ms = 0
        self._session.open = False

    def now_ms(self) -> int:
        """This host's clock."""
        return self.scheduler.now_ms + self.skew_ms

    def begin_session(self) -> Session:
        """A connection of its own, to be closed when done with."""
        self._session = Session()
        return self._session

    def has(self, bug: Bug) -> bool:
        """Whether the protocol has this bug planted."""
        return bug in self.around.bugs

    # -- the stores

    def run_script(
        self,
        epoch: str,
        script: Callable[Concatenate[str, Asked], Reply[Answer]],
        *args: Asked.args,
        **named: Asked.kwargs,
    ) -> Steps[Answer]:
        """What a script of the gate answers. Raises `GateUnavailable`, `GateLost`."""
        if not self._is_named_by(epoch):
            # Only new connections tell which run answers, and this process has had none since.
            yield from self.command(self.around.gate.ping)
        if not self._is_named_by(epoch):
            raise GateLost
        reply = yield from self._to_gate(script, epoch, *args, **named)
        # The call may have been the first on a new connection, to a server that was restarted.
        if reply.answer is None or not self._is_named_by(epoch):
            raise GateLost
        return reply.answer

    def command(
        self,
        command: Callable[Asked, Reply[Answer]],
        *args: Asked.args,
        **named: Asked.kwargs,
    ) -> Steps[Answer]:
        """What a command that knows no epoch answers. Raises `GateUnavailable`, `GateLost`."""
        reply = yield from self._to_gate(command, *args, **named)
        if reply.answer is None:
            raise GateLost
        return reply.answer

    def run_id(self) -> Steps[str]:
        """Which run of the gate's server answers now. Raises `GateUnavailable`."""
        yield from self.command(self.around.gate.ping)
        assert self._run_id is not None, "a connection that answered has told its run id"
        return self._run_id

    def _to_gate(
        self,
        operation: Callable[Asked, Reply[Answer]],
        *args: Asked.args,
        **named: Asked.kwargs,
    ) -> Steps[Reply[Answer]]:
        around = self.around
        if self.scheduler.now_ms < self._gate_rests_until_ms:
            raise GateUnavailable
        try:
            reply = yield from around.network.call(
                self, around.gate, GATE_TIMEOUT_MS, GateUnavailable, operation, *args, **named
            )
        except GateUnavailable:
            self._gate_rests_until_ms = self.scheduler.now_ms + GATE_REST_MS
            raise
        self._run_id = reply.run_id
        return reply

    def _is_named_by(self, epoch: str) -> bool:
        if self.has(Bug.NO_EPOCH):
            return True
        return self._run_id is not None and names_server(epoch, self._run_id)

    def statement(
        self, statement: Callable[Asked, Answer], *args: Asked.args, **named: Asked.kwargs
    ) -> Steps[Answer]:
        """What a statement of the ledger answers. Raises what it raises, `LedgerUnavailable`."""
        around = self.around
        return around.network.call(
            self, around.ledger, LEDGER_TIMEOUT_MS, LedgerUnavailable, statement, *args, **named
        )

    def tell_provider(
        self, call: Callable[Asked, None], *args: Asked.args, **named: Asked.kwargs
    ) -> Steps[None]:
        """Have the provider do something. Raises `Declined`, `AnswerLost`."""
        around = self.around
        return around.network.call(
            self, around.provider, PROVIDER_TIMEOUT_MS, AnswerLost, call, *args, **named
        )


class Refusal(NamedTuple):
    """A refusal of the gate or the ledger; a stranger's order surely was never admitted before."""

    outcome: Outcome
    stranger: bool


Verdict = Refusal | Placement


class Pending(NamedTuple):
    """An order on its way and whoever waits for it.

    `asked_gate_at_ms` is set when the gate has just admitted it, having been asked then.
    """

    order: TakenOrder
    waiter: Promise[Verdict]
    asked_gate_at_ms: int | None = None


class Failed(OnsaleError):
    """The order failed."""

    code = "failed"


Flush = Callable[[list[Pending]], Steps[object]]


class GroupCommit:
    """What arrives while a batch is in flight is the next batch; see `sales.group_commit`."""

    def __init__(self, host: Host, flush: Flush, size_max: int, in_flight_max: int) -> None:
        self._host = host
        self._flush = flush
        self._size_max = size_max
        self._in_flight_max = in_flight_max
        self._queue: list[Pending] = []
        self._flights: list[list[Pending]] = []
        self._departure_called = False

    def submit(self, order: TakenOrder) -> Promise[Verdict]:
        """The answer to an order, or what its batch failed with."""
        waiter: Promise[Verdict] = Promise(self._host.scheduler)
        self.enqueue(Pending(order, waiter))
        return waiter

    def enqueue(self, pending: Pending) -> None:
        """Let an order join the next batch."""
        self._queue.append(pending)
        if not self._departure_called and len(self._flights) < self._in_flight_max:
            self._departure_called = True
            # Soon, not now: whatever else comes at this time joins the same batch.
            self._host.spawn(self._depart())

    def _depart(self) -> Steps[None]:
        self._departure_called = False
        while self._queue and len(self._flights) < self._in_flight_max:
            batch, self._queue = self._queue[: self._size_max], self._queue[self._size_max :]
            self._flights.append(batch)
            self._host.spawn(self._fly(batch))
        yield from ()  # there is nothing to wait for

    def _fly(self, batch: list[Pending]) -> Steps[None]:
        try:
            yield from self._flush(batch)
        except OnsaleError as error:
            for pending in batch:
                pending.waiter.fail(error)
        self._flights.remove(batch)
        yield from self._depart()

    def cancel_flight_of(self, waiter: Promise[Verdict]) -> None:
        """What a commit that is not shielded does when one of its clients goes away."""
        for batch in self._flights:
            if any(pending.waiter is waiter for pending in batch):
                for pending in batch:
                    pending.waiter.fail(Failed())

"""A process of the sale: a host with connections to the stores and the provider."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from onsale.domain.errors import GateLost, GateUnavailable, LedgerUnavailable, OnsaleError
from onsale.gate.epoch import names_server
from onsale.payments.provider import AnswerLost
from tests.simulation.gate import GateServer, Reply
from tests.simulation.history import History
from tests.simulation.ledger import LedgerServer, Session
from tests.simulation.network import Network
from tests.simulation.planted import Bug
from tests.simulation.provider import ProviderServer
from tests.simulation.scheduler import Host, Scheduler, Steps, pause
from tests.simulation.timing import (
    CHAOS_MS,
    GATE_REST_MS,
    GATE_TIMEOUT_MS,
    LEDGER_TIMEOUT_MS,
    PROVIDER_TIMEOUT_MS,
)

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
        self._forget_gate()
        self._session = Session()

    def _forget_gate(self) -> None:
        self._run_id: str | None = None
        # The breaker: a gate that did not answer is left alone for a moment.
        self._gate_rests_until_ms: int | None = None

    def begin(self) -> None:
        """Do what the process does without being asked."""
        raise NotImplementedError

    def repeat(
        self, run_once: Callable[[], Steps[object]], pause_ms_min: int, pause_ms_max: int
    ) -> None:
        """Do this again and again, until the trouble is over."""
        self.spawn(self._loop(run_once, pause_ms_min, pause_ms_max))

    def _loop(
        self, run_once: Callable[[], Steps[object]], pause_ms_min: int, pause_ms_max: int
    ) -> Steps[None]:
        random = self.scheduler.random
        yield from pause(self.scheduler, random.randint(0, pause_ms_min))
        while self.scheduler.now_ms < CHAOS_MS:
            with suppress(OnsaleError):  # the next pass comes
                yield from run_once()
            yield from pause(self.scheduler, random.randint(pause_ms_min, pause_ms_max))

    def crash(self) -> None:
        super().crash()
        self._forget_gate()
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
        around, now_ms = self.around, self.scheduler.now_ms
        if self._gate_rests_until_ms is not None:
            if now_ms < self._gate_rests_until_ms:
                raise GateUnavailable
            # This call tries for all the others.
            self._gate_rests_until_ms = now_ms + GATE_REST_MS
        try:
            reply = yield from around.network.call(
                self, around.gate, GATE_TIMEOUT_MS, GateUnavailable, operation, *args, **named
            )
        except GateUnavailable:
            self._gate_rests_until_ms = self.scheduler.now_ms + GATE_REST_MS
            raise
        self._gate_rests_until_ms = None
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

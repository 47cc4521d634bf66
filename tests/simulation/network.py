"""A message to a server and its answer, and everything that can become of them.

    it arrives and its answer comes back        what a caller hopes for
    it is lost                                   nothing happened, and the caller is told so late
    it arrives and its answer is lost            something happened, and the caller does not know
    it is slow                                   the caller gave up, and then it happens

The caller cannot tell the last three apart: it has an error in its hands.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, ParamSpec, TypeVar

from tests.simulation.scheduler import EXPECTED, Host, Scheduler, Steps, Task

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


@dataclass(slots=True)
class Weather:
    """How messages fare. Chances are per message; a slow one is late by up to `slow_ms_max`."""

    lost_chance: float = 0.0
    slow_chance: float = 0.0
    slow_ms_max: int = 0
    latency_ms_max: int = 4

    def latency_ms(self, random: Random) -> int:
        """How long one way takes."""
        if self.slow_chance and random.random() < self.slow_chance:
            return int(random.random() * self.slow_ms_max)
        return 1 + int(random.random() * self.latency_ms_max)


class Server:
    """Something that answers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.weather = Weather()
        self.down_until_ms = 0
        # What may befall it before any step, with this chance.
        self.frailty = 0.0
        self.stumble: Callable[[], None] = lambda: None


class Network:
    """What lies between hosts and servers."""

    def __init__(self, scheduler: Scheduler, told: Callable[..., None]) -> None:
        self.scheduler = scheduler
        self.told = told
        # A partition: this host does not reach this server until then.
        self._cut_until_ms: dict[tuple[str, str], int] = {}
        # Connections that a restart of the server broke, and their host does not know it yet.
        self._broken: set[tuple[str, str]] = set()

    def cut(self, host: Host, server: Server, until_ms: int) -> None:
        """Part a host from a server."""
        self._cut_until_ms[host.name, server.name] = until_ms

    def mend(self) -> None:
        """No faults any more: everybody reaches everything."""
        self._cut_until_ms.clear()
        self._broken.clear()

    def breaks_connections(self, server: Server, hosts: Iterable[Host]) -> None:
        """The server was restarted."""
        self._broken.update((host.name, server.name) for host in hosts)

    def finds_broken(self, host: Host, server: Server) -> bool:
        """Whether this message meets a dead connection; the next one has a new one."""
        link = (host.name, server.name)
        if link not in self._broken:
            return False
        self._broken.discard(link)
        return True

    def reaches(self, host: Host, server: Server) -> bool:
        """Whether messages pass now."""
        now_ms = self.scheduler.now_ms
        if server.down_until_ms > now_ms:
            return False
        return self._cut_until_ms.get((host.name, server.name), 0) <= now_ms

    def call(
        self,
        host: Host,
        server: Server,
        timeout_ms: int,
        unavailable: type[Exception],
        operation: Callable[Asked, Answer],
        *args: Asked.args,
        **named: Asked.kwargs,
    ) -> Steps[Answer]:
        """The server's answer. Raises what the operation raises, or `unavailable`."""
        call = _Call(self, host, server, timeout_ms, unavailable, operation, args, named)
        answer: Answer = yield call.send
        return answer


class _Call:
    """One message on its way. The caller is woken once, by the answer or by giving up."""

    __slots__ = (
        "_network",
        "_host",
        "_server",
        "_timeout_ms",
        "_unavailable",
        "_operation",
        "_args",
        "_named",
        "_task",
        "_back_ms",
    )

    def __init__(
        self,
        network: Network,
        host: Host,
        server: Server,
        timeout_ms: int,
        unavailable: type[Exception],
        operation: Callable[..., Any],
        args: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        self._network = network
        self._host = host
        self._server = server
        self._timeout_ms = timeout_ms
        self._unavailable = unavailable
        self._operation = operation
        self._args = args
        self._named = named
        self._task: Task | None = None
        self._back_ms = 0

    def send(self, task: Task) -> None:
        network = self._network
        scheduler, weather = network.scheduler, self._server.weather
        self._task = task
        if network.finds_broken(self._host, self._server):
            scheduler.after(1, self._give_up)
            return
        if weather.lost_chance and scheduler.random.random() < weather.lost_chance:
            self._give_up_some_time()
            return
        out_ms = weather.latency_ms(scheduler.random)
        self._back_ms = weather.latency_ms(scheduler.random)
        scheduler.after(out_ms, self._arrive)
        if out_ms + self._back_ms >= self._timeout_ms:
            scheduler.after(self._timeout_ms, self._give_up)

    def _arrive(self) -> None:
        network = self._network
        scheduler, weather = network.scheduler, self._server.weather
        server = self._server
        if server.frailty and scheduler.random.random() < server.frailty:
            server.stumble()
        if not network.reaches(self._host, server):
            self._give_up_some_time()
            return
        try:
            answer = self._operation(*self._args, **self._named)
        except EXPECTED as error:
            network.told(
                self._host.name, self._server.name, self._operation, self._args, repr(error)
            )
            outcome = partial(self._tell, partial(_fail, error=error))
        else:
            network.told(self._host.name, self._server.name, self._operation, self._args, answer)
            outcome = partial(self._tell, partial(_wake, answer=answer))
        if weather.lost_chance and scheduler.random.random() < weather.lost_chance:
            self._give_up_some_time()
        else:
            scheduler.after(self._back_ms, outcome)

    def _give_up_some_time(self) -> None:
        """A connection that was refused or reset tells at once; silence takes its time."""
        scheduler = self._network.scheduler
        at_once = scheduler.random.random() < 0.7
        scheduler.after(1 if at_once else self._timeout_ms, self._give_up)

    def _give_up(self) -> None:
        self._tell(partial(_fail, error=self._unavailable()))

    def _tell(self, outcome: Callable[[Task], None]) -> None:
        task, self._task = self._task, None
        if task is not None:
            outcome(task)


def _wake(task: Task, answer: object) -> None:
    task.wake(answer)


def _fail(task: Task, error: Exception) -> None:
    task.fail(error)

"""Virtual time: the scheduler decides what comes next, and the seed decides for the scheduler.

A process's work is a generator. It yields *effects*: "send this, and wake me with the answer",
"wake me later". What it does between two yields is one step that nothing interrupts; whatever else
happens in the world happens between steps. A host that crashes forgets its work, which is never
woken again; one that sleeps is woken late.
"""

from collections.abc import Callable, Generator
from functools import partial
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, Generic, TypeVar

from onsale.domain.errors import OnsaleError
from onsale.payments.provider import AnswerLost, Declined

Result = TypeVar("Result")

Effect = Callable[["Task"], None]
Steps = Generator[Effect, Any, Result]


class Trouble(Exception):
    """Something of the model that a step may end with."""


# Whatever else a step ends with is a mistake in the model, or a rule that does not hold.
EXPECTED = (OnsaleError, AnswerLost, Declined, Trouble)


class Scheduler:
    """The agenda of one run. Things due at the same ms happen in an order drawn from the seed."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_ms = 0
        self.steps = 0
        self.hosts: list[Host] = []
        self._agenda: list[tuple[int, float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, due_ms: int, action: Callable[[], None]) -> None:
        """Do this at that time."""
        heappush(self._agenda, (due_ms, self.random.random(), next(self._numbers), action))

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do this after that time."""
        self.at(self.now_ms + delay_ms, action)

    def run(self) -> None:
        """Do what is on the agenda, and what comes of it, until nothing is left."""
        agenda = self._agenda
        while agenda:
            self.now_ms, _, _, action = heappop(agenda)
            self.steps += 1
            action()

    def stop(self) -> None:
        """End whatever is still under way."""
        self._agenda.clear()
        for host in self.hosts:
            host.forget()


class Host:
    """Whatever runs tasks: it can crash, which loses them, and sleep, which delays them."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler = scheduler
        self.name = name
        self.awake_at_ms = 0
        # What may befall it before any step, with this chance.
        self.frailty = 0.0
        self.stumble: Callable[[], None] = self.crash
        self._tasks: dict[Task, None] = {}
        scheduler.hosts.append(self)

    def spawn(self, steps: Steps[Result]) -> "Promise[Result]":
        """Begin this work soon; the promise is of its result."""
        promise: Promise[Result] = Promise(self.scheduler)
        task = Task(self, steps, promise)
        self._tasks[task] = None
        self.scheduler.after(0, partial(task.wake, None))
        return promise

    def ended(self, task: "Task") -> None:
        """This work is done."""
        self._tasks.pop(task, None)

    def crash(self) -> None:
        """Be gone, and there again at once with an empty memory."""
        self.forget()
        self.awake_at_ms = 0

    def forget(self) -> None:
        """Stop everything that was under way."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks:
            task.stop()

    def sleep_until(self, awake_at_ms: int) -> None:
        """Take no step until then, and notice nothing of it."""
        self.awake_at_ms = max(self.awake_at_ms, awake_at_ms)


class Task:
    """One piece of work on a host, step by step."""

    __slots__ = ("_host", "_steps", "_promise", "_stopped")

    def __init__(self, host: Host, steps: Steps[Any], promise: "Promise[Any]") -> None:
        self._host = host
        self._steps = steps
        self._promise = promise
        self._stopped = False

    def wake(self, answer: object) -> None:
        """Go on with an answer."""
        self._step(self._steps.send, answer)

    def fail(self, error: Exception) -> None:
        """Go on with an error."""
        self._step(self._steps.throw, error)

    def stop(self) -> None:
        """Never go on."""
        self._stopped = True
        self._steps.close()

    def _step(self, go_on: Callable[[Any], Effect], message: object) -> None:
        host = self._host
        if host.frailty and not self._stopped and host.scheduler.random.random() < host.frailty:
            host.stumble()
        if self._stopped:
            return
        if host.awake_at_ms > host.scheduler.now_ms:
            host.scheduler.at(host.awake_at_ms, partial(self._step, go_on, message))
            return
        try:
            effect = go_on(message)
        except StopIteration as end:
            host.ended(self)
            self._promise.keep(end.value)
        except EXPECTED as error:
            host.ended(self)
            self._promise.fail(error)
        else:
            effect(self)


class Promise(Generic[Result]):
    """Something to wait for; what it was first told counts."""

    __slots__ = ("_scheduler", "_waiting", "_outcome")

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: list[Task] = []
        self._outcome: Callable[[Task], None] | None = None

    @property
    def done(self) -> bool:
        return self._outcome is not None

    def keep(self, result: Result) -> None:
        """Tell those who wait."""
        self._settle(lambda task: task.wake(result))

    def fail(self, error: Exception) -> None:
        """Tell those who wait that it came to nothing."""
        self._settle(lambda task: task.fail(error))

    def _settle(self, outcome: Callable[[Task], None]) -> None:
        if self._outcome is None:
            self._outcome = outcome
            for task in self._waiting:
                self._scheduler.after(0, partial(outcome, task))

    def kept(self) -> Steps[Result]:
        """Wait for it. Raises what it failed with."""
        result: Result = yield self._join
        return result

    def _join(self, task: Task) -> None:
        if self._outcome is None:
            self._waiting.append(task)
        else:
            self._scheduler.after(0, partial(self._outcome, task))


def pause(scheduler: Scheduler, delay_ms: int) -> Steps[None]:
    """Wait."""
    yield lambda task: scheduler.after(delay_ms, partial(task.wake, None))

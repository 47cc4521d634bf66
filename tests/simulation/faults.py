"""What goes wrong: before any step of a process or a server, its own mishaps may befall it."""

from collections.abc import Sequence
from functools import partial

from tests.simulation.network import Server, Weather
from tests.simulation.plan import Frailty, Mishap, Plan
from tests.simulation.process import Process, Surroundings
from tests.simulation.timing import GRACE_MS

# The longer ones outlast the grace period: whoever wakes up then finds the world changed.
_NAPS_MS_MAX = (50, 500, 2 * GRACE_MS)
_SILENCES_MS_MAX = (50, 500, 2_000)
_CUTS_MS_MAX = (500, 2_000, 5_000)


class Faults:
    """The faults of one run, from `begin` to `end`."""

    def __init__(
        self, around: Surroundings, plan: Plan, apis: Sequence[Process], workers: Sequence[Process]
    ) -> None:
        self._around = around
        self._plan = plan
        self._apis = apis
        self._workers = workers
        self._random = around.scheduler.random

    def begin(self) -> None:
        """From now on there are mishaps, and the weather is the plan's."""
        plan, around = self._plan, self._around
        around.gate.weather = plan.gate_weather
        around.ledger.weather = plan.ledger_weather
        around.provider.weather = plan.provider_weather
        for process in self._apis:
            process.frailty = plan.apis.chance
            process.stumble = partial(self._befall_process, process, plan.apis)
        for process in self._workers:
            process.frailty = plan.workers.chance
            process.stumble = partial(self._befall_process, process, plan.workers)
        around.gate.frailty = plan.gate.chance
        around.gate.stumble = self._befall_gate
        around.ledger.frailty = plan.ledger.chance
        around.ledger.stumble = partial(self._silence, around.ledger)

    def end(self) -> None:
        """Everybody is awake and reaches everything."""
        self._around.network.mend()
        for server in (self._around.gate, self._around.ledger):
            server.frailty = 0.0
            server.down_until_ms = 0
            server.weather = Weather()
        self._around.provider.weather = Weather()
        for process in [*self._apis, *self._workers]:
            process.frailty = 0.0
            process.awake_at_ms = 0

    # -- processes

    def _befall_process(self, process: Process, frailty: Frailty) -> None:
        match self._random.choice(frailty.mishaps):
            case Mishap.CRASH:
                self._around.tell(process.name, "crashes")
                process.crash()
            case Mishap.NAP:
                nap_ms = self._some_ms(_NAPS_MS_MAX)
                self._around.tell(process.name, f"sleeps for {nap_ms} ms")
                process.sleep_until(self._around.scheduler.now_ms + nap_ms)
            case Mishap.CUT_FROM_GATE:
                self._cut(process, self._around.gate)
            case Mishap.CUT_FROM_LEDGER:
                self._cut(process, self._around.ledger)

    def _cut(self, process: Process, server: Server) -> None:
        cut_ms = self._some_ms(_CUTS_MS_MAX)
        self._around.tell(process.name, f"does not reach the {server.name} for {cut_ms} ms")
        self._around.network.cut(process, server, self._around.scheduler.now_ms + cut_ms)

    # -- servers

    def _befall_gate(self) -> None:
        gate = self._around.gate
        match self._random.choice(self._plan.gate.mishaps):
            case Mishap.EMPTIED:
                self._around.tell(gate.name, "is emptied")
                self._around.history.pass_by_gate("gate emptied")
                gate.empty()
            case Mishap.RESTARTED:
                self._start_gate_again(lost_changes=self._random.choice([0, 1, 2, 3]))
            case Mishap.RESTORED:
                self._start_gate_again(lost_changes=self._random.randrange(len(gate.records)))
            case Mishap.SILENT:
                self._silence(gate)

    def _start_gate_again(self, lost_changes: int) -> None:
        gate = self._around.gate
        self._around.tell(gate.name, f"starts again without its last {lost_changes} changes")
        self._around.history.pass_by_gate("gate started again")
        gate.restart_from(gate.records[max(0, len(gate.records) - 1 - lost_changes)])
        self._around.network.breaks_connections(gate, [*self._apis, *self._workers])

    def _silence(self, server: Server) -> None:
        silence_ms = self._some_ms(_SILENCES_MS_MAX)
        self._around.tell(server.name, f"does not answer for {silence_ms} ms")
        server.down_until_ms = self._around.scheduler.now_ms + silence_ms

    def _some_ms(self, most_ms: Sequence[int]) -> int:
        return self._random.randrange(self._random.choice(most_ms))

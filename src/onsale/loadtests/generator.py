"""What the load generator itself used, and whether it was short of it.

k6 shares the machine with what it measures. Two figures tell whether it could keep up: how much of
the CPU it used, and how long its threads could have run but had no core (the kernel's run delay).
The second also sees what the first does not: a k6 that is pinned, niced, or throttled by a cgroup.
It is long as well where the service takes all there is; what the host had left tells the two apart.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1e-9
# Of all CPU there is: above, arrivals come late.
_BUSY_SHARE_MAX = 0.8
# Of the time in which its threads had something to do: above, they waited twice as long as
# they ran.
_WAIT_SHARE_MAX = 2 / 3
# Of all cores: less, and k6 waited because the machine was full, for whatever reason.
_IDLE_SHARE_MIN = 0.2
# A moment is no finding: shorter waits than this, in all, are the start.
_WAIT_SECONDS_MIN = 1.0


@dataclass(frozen=True)
class Use:
    """What a process used since its start, in seconds of CPU and of waiting for one.

    `idle_seconds` is what all cores of the host had left since its boot.
    """

    cpu_seconds: float = 0.0
    wait_seconds: float = 0.0
    idle_seconds: float = 0.0


@dataclass(frozen=True)
class GeneratorUse:
    """What k6 used over a run, on `cpus` cores; `peak_cpus` in its busiest half second.

    `idle_share` is what the host had left of all its cores meanwhile.
    """

    cpus: int
    cpu_seconds: float
    wait_seconds: float
    peak_cpus: float
    idle_share: float

    @property
    def wait_share(self) -> float:
        """Of the time in which its threads had something to do, what they waited for a core."""
        return self.wait_seconds / max(self.wait_seconds + self.cpu_seconds, 1e-9)

    @property
    def strain(self) -> str | None:
        """How it was short of CPU, or `None`: what clients saw contains its own waiting then."""
        if self.wait_share > _WAIT_SHARE_MAX and self.wait_seconds > _WAIT_SECONDS_MIN:
            return (
                f"its threads waited for a core {self.wait_share:.0%} of the time in which they"
                " could have run"
            )
        return self._busy

    @property
    def limit(self) -> str | None:
        """Why it was the limit, if it sent less than it was to send; `None` if that was not it.

        It took all the CPU that there was, or was not let to what there was.
        """
        return self._busy or (self.strain if self.idle_share > _IDLE_SHARE_MIN else None)

    @property
    def _busy(self) -> str | None:
        if self.peak_cpus <= _BUSY_SHARE_MAX * self.cpus:
            return None
        return f"it used {self.peak_cpus:.1f} of {self.cpus} cores at its peak"


def cpus(pid: int) -> int:
    """The cores that a process may run on."""
    return len(os.sched_getaffinity(pid)) if hasattr(os, "sched_getaffinity") else 1


class Watch:
    """Follows one process. Where there is no `/proc`, it sees nothing."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc") / str(pid)
        self._before, self._last, self._last_at = Use(), Use(), 0.0
        self._began_at = self._peak_cpus = 0.0
        self._wait_seconds: dict[str, float] = {}
        self.cpus = cpus(pid)

    def look(self, at_seconds: float, *, working: bool = True) -> Use:
        """What it used so far; the last that was seen when it has ended. `at_seconds` grows.

        While it is not `working` yet it makes its virtual users, as fast as it can: that says
        nothing of how it keeps up.
        """
        try:
            # Of threads that have ended, too: k6's end before it does.
            self._wait_seconds |= _wait_seconds(self._folder)
            waited = sum(self._wait_seconds.values())
            now = Use(_cpu_seconds(self._folder), waited, _idle_seconds())
        except (OSError, ValueError, IndexError):
            return self._last
        if not working:
            self._before, self._began_at = now, at_seconds
        elif self._last_at:
            passed = at_seconds - self._last_at
            rate = (now.cpu_seconds - self._last.cpu_seconds) / max(passed, 0.1)
            self._peak_cpus = max(self._peak_cpus, rate)
        self._last, self._last_at = now, at_seconds
        return now

    def result(self) -> GeneratorUse:
        """What it used while it was working."""
        return GeneratorUse(
            self.cpus,
            self._last.cpu_seconds - self._before.cpu_seconds,
            self._last.wait_seconds - self._before.wait_seconds,
            self._peak_cpus,
            (self._last.idle_seconds - self._before.idle_seconds) / self._host_seconds,
        )

    @property
    def _host_seconds(self) -> float:
        """The time of all cores of the host while k6 was working."""
        return max(self._last_at - self._began_at, 1.0) * (os.cpu_count() or 1)


def _cpu_seconds(folder: Path) -> float:
    """User and system time: fields 14 and 15 of `proc(5)`'s stat, counted behind the name."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def _idle_seconds() -> float:
    """Idle, and waiting for a disk: the fourth and fifth figure of the first line of stat."""
    fields = Path("/proc/stat").read_text().split(maxsplit=6)
    return (int(fields[4]) + int(fields[5])) / _TICKS_A_SECOND


def _wait_seconds(folder: Path) -> dict[str, float]:
    """For how long each thread was ready and not running: the second field of its schedstat."""
    return {
        task.name: int((task / "schedstat").read_text().split()[1]) * _NANOSECONDS
        for task in (folder / "task").iterdir()
    }

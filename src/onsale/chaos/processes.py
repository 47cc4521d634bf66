"""Processes that are killed, frozen and started again."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onsale.embedded import spawn_child, stop_child

# Longer than a process needs that answers what is in flight.
_STOP_SECONDS_MAX = 5.0


@dataclass(slots=True)
class Process:
    """One process of the service; `start` it again as often as it dies."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log_path: Path
    _child: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self, more_env: Mapping[str, str] | None = None) -> None:
        """Start it, with a variable or two beside its own; a process that runs ends first."""
        self.stop()
        self._child = spawn_child(
            self.argv,
            env={**self.env, **(more_env or {})},
            log_path=self.log_path,
            # Frozen processes would not hear another one.
            death_signal=signal.SIGKILL,
        )

    def stop(self) -> None:
        """End it in good order."""
        if self._child is not None:
            self.thaw()
            stop_child(self._child, timeout_seconds=_STOP_SECONDS_MAX)
            self._child = None

    def kill(self) -> None:
        """End it as a crash does."""
        if self._child is not None:
            stop_child(self._child, with_signal=signal.SIGKILL)
            self._child = None

    def freeze(self) -> None:
        """Let it stand still, its connections open."""
        if self.runs:
            os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if no time had passed."""
        if self.runs:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def runs(self) -> bool:
        """Whether it lives."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, while there is one."""
        assert self._child is not None
        return self._child.pid


def freeze_tree(pid: int) -> None:
    """Stop a server and all its children, the one that starts others first."""
    for each in _tree(pid):
        os.kill(each, signal.SIGSTOP)


def thaw_tree(pid: int) -> None:
    """Let them go on."""
    for each in _tree(pid):
        os.kill(each, signal.SIGCONT)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _tree(int(child))

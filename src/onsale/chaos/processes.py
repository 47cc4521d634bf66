"""Processes that are killed, frozen and started again."""

import json
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# Longer than a process needs that answers what is in flight.
_STOP_SECONDS_MAX = 5.0


@dataclass(slots=True)
class Process:
    """One process of the service, from the nursery that listens at `nursery_path`; `start` it again
    as often as it dies.
    """

    name: str
    nursery_path: Path
    argv: Sequence[str]
    env: Mapping[str, str]
    log_path: Path
    pid: int = 0
    # A descriptor of the process, which no other process can come by, as it can by its number.
    _fd: int | None = field(default=None, repr=False)

    def start(self, more_env: Mapping[str, str] | None = None) -> None:
        """Start it, with a variable or two beside its own; a process that runs ends first."""
        self.stop()
        request = {
            "argv": list(self.argv),
            "env": {**self.env, **(more_env or {})},
            "log": str(self.log_path),
        }
        with socket.socket(socket.AF_UNIX) as nursery:
            nursery.connect(str(self.nursery_path))
            nursery.sendall(json.dumps(request).encode() + b"\n")
            self.pid = int(nursery.makefile().readline())
        with suppress(ProcessLookupError):  # it may have died already
            self._fd = os.pidfd_open(self.pid)

    def stop(self) -> None:
        """End it in good order."""
        if self._fd is not None:
            self.thaw()
            self._signal(signal.SIGTERM)
            if not self._ends_within(_STOP_SECONDS_MAX):
                self._signal(signal.SIGKILL)
            self._forget()

    def kill(self) -> None:
        """End it as a crash does."""
        if self._fd is not None:
            self._signal(signal.SIGKILL)
            self._forget()

    def freeze(self) -> None:
        """Let it stand still, its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on as if no time had passed."""
        self._signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        """Whether it lives."""
        return self._fd is not None and not self._ends_within(0)

    def _signal(self, number: signal.Signals) -> None:
        if self._fd is not None:
            with suppress(ProcessLookupError):  # it died meanwhile
                signal.pidfd_send_signal(self._fd, number)

    def _ends_within(self, seconds: float | None) -> bool:
        assert self._fd is not None
        return bool(select.select([self._fd], [], [], seconds)[0])

    def _forget(self) -> None:
        assert self._fd is not None
        self._ends_within(None)
        os.close(self._fd)
        self._fd = None


def freeze_tree(pid: int) -> None:
    """Stop a server and all its children, the one that starts others first."""
    _signal_tree(pid, signal.SIGSTOP)


def thaw_tree(pid: int) -> None:
    """Let them go on."""
    _signal_tree(pid, signal.SIGCONT)


def _signal_tree(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, FileNotFoundError):  # children end when they like
        os.kill(pid, number)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            _signal_tree(int(child), number)

"""The life of one embedded server: claim its folder, start it, wait until it answers, end it."""

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from onsale.embedded.folders import (
    DataFolder,
    renew_socket_folder,
    socket_folder,
    unlock,
)
from onsale.embedded.processes import EmbeddedError, last_words, spawn_child, stop_child

# Crash recovery replays at most some GB of log; a checkpoint at shutdown writes shared_buffers.
_START_SECONDS_MAX = 60.0
_STOP_SECONDS_MAX = 30.0
_POLL_SECONDS = 0.01


class EmbeddedServer(ABC):
    """One server process on one data folder, at one address for good.

    Start it from the main thread, or from one that outlives it (`spawn_child` says why).
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.resolve()
        self._socket_dir = socket_folder(self.data_dir)
        self._folder: DataFolder | None = None
        self._owner_lock_fd: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # -- what is particular to a server

    @abstractmethod
    def _prepare(self, folder: DataFolder, lock_fd: int) -> None:
        """Find the programs and make whatever the first start needs, in `folder.data_path`."""

    @abstractmethod
    def _argv(self) -> Sequence[str | Path]:
        """The command line; it runs in `folder.data_path`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the server answers its clients."""

    def _environment(self) -> Mapping[str, str]:
        """Variables that the program takes besides ours."""
        return {}

    def _settle(self) -> None:  # noqa: B027 - most servers have nothing left to do
        """What is left to do on a server that is ready."""

    # -- its life

    def start(self) -> None:
        """Start on what the folder holds, or from nothing; returns when clients are answered.

        Waits for a server whose owner was killed to end. Raises `EmbeddedError` with the reason
        in one line; then nothing runs.
        """
        if self.is_running:
            raise EmbeddedError(f"{self.name} on {self.data_dir} is already running")
        folder = self._folder = DataFolder(self.data_dir)
        if self._owner_lock_fd is None:
            self._owner_lock_fd = folder.lock_as_owner()
        try:
            lock_fd = folder.lock_for_server(_STOP_SECONDS_MAX)
            try:
                renew_socket_folder(self._socket_dir, folder.account)
                self._prepare(folder, lock_fd)
                log_offset_bytes = self._log_size_bytes()
                self._process = self._spawn(self._argv(), folder.data_path, lock_fd)
            finally:
                os.close(lock_fd)  # from here on only the server and its children hold it
            self._wait_until_ready(self._process, log_offset_bytes)
            self._settle()
        except BaseException as error:
            self.kill()
            self.stop()
            if isinstance(error, OSError):
                raise EmbeddedError(f"{self.name} did not start: {error}") from error
            raise

    def stop(self) -> None:
        """End the server in good order and give the folder up; does nothing when done before."""
        if self._owner_lock_fd is None:
            return
        if self._process is not None:
            stop_child(
                self._process,
                with_signal=self.stop_signal,
                timeout_seconds=_STOP_SECONDS_MAX,
            )
            self._forget()
        shutil.rmtree(self._socket_dir, ignore_errors=True)
        unlock(self._owner_lock_fd)
        self._owner_lock_fd = None

    def kill(self) -> None:
        """Crash the server (SIGKILL); returns when its children are gone too.

        The folder stays ours and the address the same: `start` recovers what was kept.
        """
        if self._process is not None:
            stop_child(self._process, with_signal=signal.SIGKILL)
            self._forget()

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the server; raises `EmbeddedError` when it is not running."""
        if self._process is None:
            raise EmbeddedError(f"{self.name} on {self.data_dir} is not running")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The file that the server logs to."""
        return self.data_dir / "server.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _spawn(
        self, argv: Sequence[str | Path], cwd: Path, lock_fd: int
    ) -> subprocess.Popen[bytes]:
        assert self._folder is not None
        return spawn_child(
            argv,
            env={**environment(), **self._environment()},
            cwd=cwd,
            log_path=self._folder.log_path,
            account=self._folder.account,
            death_signal=self.stop_signal,
            pass_fds=(lock_fd,),
        )

    def _run_to_end(self, argv: Sequence[str | Path], cwd: Path, lock_fd: int) -> None:
        """Run a program that prepares the data, as the server would run."""
        log_offset_bytes = self._log_size_bytes()
        self._process = self._spawn(argv, cwd, lock_fd)
        if self._process.wait() != 0:
            raise self._failure("could not prepare its data", log_offset_bytes)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log_offset_bytes: int) -> None:
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not self._is_ready():
            if process.poll() is not None:
                raise self._failure("did not start", log_offset_bytes)
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready in {_START_SECONDS_MAX:g} s", log_offset_bytes)
            time.sleep(_POLL_SECONDS)

    def _failure(self, what: str, log_offset_bytes: int) -> EmbeddedError:
        reason = last_words(self.log_path, log_offset_bytes)
        return EmbeddedError(f"{self.name} {what}: {reason} (log: {self.log_path})")

    def _forget(self) -> None:
        """The process has ended; wait until its children, who share its lock, have too."""
        assert self._folder is not None
        self._process = None
        unlock(self._folder.lock_for_server(_STOP_SECONDS_MAX))

    def _log_size_bytes(self) -> int:
        return self.log_path.stat().st_size if self.log_path.exists() else 0


def environment() -> Mapping[str, str]:
    """Ours, without the variables by which Postgres' programs take other settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    # Messages in English: they end up in ours, and `last_words` looks for their severity.
    return kept | {"LC_ALL": "C", "TZ": "UTC"}

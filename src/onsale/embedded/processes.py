"""Child processes that die with their owner, run as somebody harmless, and log to a file."""

import ctypes
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the child must not import or allocate more than it has to.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class EmbeddedError(RuntimeError):
    """An embedded part could not be found, started or stopped; one line says what to do."""


@dataclass(frozen=True)
class Account:
    """The user and the group that a child runs as; it has no further groups."""

    uid: int
    gid: int

    @classmethod
    def of_user(cls, user: str | int) -> "Account":
        """The account of a user name or a uid; raises `EmbeddedError` if there is none."""
        try:
            entry = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
        except KeyError:
            raise EmbeddedError(f"this system has no user {user!r} to run a server as") from None
        return cls(entry.pw_uid, entry.pw_gid)


def am_root() -> bool:
    """Whether this process may become any user, and Postgres would refuse to run as it."""
    return os.geteuid() == 0


def free_port() -> int:
    """A TCP port of the loopback that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def require_free(port: int) -> None:
    """Raises `EmbeddedError` when somebody listens on a TCP port of the loopback."""
    try:
        with socket.socket() as listener:
            # As a server will: a port whose last connections are fading out is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise EmbeddedError(f"port {port} is in use; choose another") from error


def spawn_child(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log_path: Path | None = None,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child that receives `death_signal` when this process dies, however it dies.

    It has a session of its own, so Ctrl-C reaches the owner alone, which stops its children in
    order. Its output is appended to `log_path`, or goes where ours goes. With `account` it
    enters `cwd` first and becomes that user then: the user need not be able to reach `cwd`.

    Call it from the main thread or from one that outlives the child: Linux sends the signal when
    the *thread* that started the child ends. macOS has no such signal: there, a child outlives
    an owner that was killed with -9, and only `stop_child` ends it.

    Raises `OSError` when the program cannot be run.
    """
    log_fd = None if log_path is None else open_owned(log_path, os.O_WRONLY | os.O_APPEND, account)
    try:
        return subprocess.Popen(
            [str(word) for word in argv],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
            start_new_session=True,
            pass_fds=pass_fds,
            # Runs after the change of user, which would clear the request.
            preexec_fn=partial(die_with_owner, os.getpid(), death_signal),
        )
    finally:
        if log_fd is not None:
            os.close(log_fd)


def die_with_owner(owner_pid: int, death_signal: signal.Signals) -> None:
    """Have this process receive `death_signal` when the one that just forked it dies.

    In the child of a process with threads only what cannot wait for another thread's lock is safe:
    this is two system calls.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != owner_pid:  # it died before we asked
            os._exit(1)


def stop_child(
    process: subprocess.Popen[bytes],
    *,
    with_signal: signal.Signals = signal.SIGTERM,
    timeout_seconds: float = 10.0,
) -> int:
    """Ask a child to end, kill it if it has not in time; returns its exit status."""
    process.send_signal(with_signal)
    try:
        return process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def open_owned(path: Path, flags: int, account: Account | None) -> int:
    """Open or create a file of mode 0600 that belongs to `account`; returns the descriptor.

    Never follows a link at its end: as root we write into a folder that somebody else owns.
    """
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if account is not None:
        os.fchown(fd, account.uid, account.gid)
    return fd


def last_words(log_path: Path, offset_bytes: int) -> str:
    """What a log, from `offset_bytes` on, best says about why its writer ended; one line."""
    with log_path.open("rb") as log:
        log.seek(offset_bytes)
        text = log.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Postgres says goodbye after it has said why; Valkey names the fault in its last two lines.
    complaints = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|error):", line)]
    return " ".join(complaints[-1:] or lines[-2:] or ["it said nothing"])

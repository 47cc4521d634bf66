"""Where a server's data, sockets and locks live, and who may enter.

A data folder is 0700 and belongs to the user that runs the server. Its parents are never
changed, and that user need not be able to enter them: a server is started inside its folder and
calls it by a name that needs no way there (`/proc/self/cwd`, or a relative one).

    <data folder>/
        owner.lock    locked by the process that owns the server
        server.lock   locked by the server and all its children, for as long as one of them lives
        server.log    what the server says
        data/         what the server keeps

The two locks tell "somebody runs this" from "its owner was killed and it is shutting down", and
need no process ids, which other processes inherit. The kernel lets go of them in every crash.

Sockets live elsewhere: the name of one is limited to about 107 bytes and a data folder's is not.
The runtime folder (`<temporary folder>/onsale-<uid>`) has a folder of 0700 for each data folder,
named after it, so the address of a server is the same on every start.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

from onsale.embedded.processes import Account, EmbeddedError, am_root, open_owned

# macOS allows 103 bytes for a socket's whole name; ours adds about 45 to the temporary folder's.
_RUNTIME_PARENT_BYTES_MAX = 55
_POLL_SECONDS = 0.02


class DataFolder:
    """One server's folder, prepared for the user that `account` names (None: ourselves)."""

    def __init__(self, path: Path) -> None:
        """Make the folder, or take one that is empty or was made here.

        Raises `EmbeddedError` when it is somebody else's, holds other things or cannot be made.
        """
        self.path = path
        self.owner_lock_path = path / "owner.lock"
        self.server_lock_path = path / "server.lock"
        self.log_path = path / "server.log"
        self.data_path = path / "data"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.account = _account_for(path)
            if any(path.iterdir()) and not self.owner_lock_path.exists():
                raise EmbeddedError(f"{path} holds other files: choose an empty or a new folder")
            give(path, self.account)
        except OSError as error:
            raise EmbeddedError(
                f"{path} cannot be the data folder: {error.strerror}; choose another"
            ) from None

    def lock_as_owner(self) -> int:
        """Claim the folder; raises `EmbeddedError` when another server's owner has it."""
        fd = self._open_lock(self.owner_lock_path)
        if not _try_lock(fd):
            os.close(fd)
            raise EmbeddedError(
                f"{self.path} is already in use by another run: stop it or choose another folder"
            )
        return fd

    def lock_for_server(self, timeout_seconds: float) -> int:
        """The lock for a server to inherit, once every process of the one before has gone."""
        fd = self._open_lock(self.server_lock_path)
        deadline = time.monotonic() + timeout_seconds
        while not _try_lock(fd):
            if time.monotonic() > deadline:
                os.close(fd)
                raise EmbeddedError(
                    f"{self.path} is still in use by processes of a server that was stopped"
                )
            time.sleep(_POLL_SECONDS)
        return fd

    def _open_lock(self, path: Path) -> int:
        return open_owned(path, os.O_RDWR, self.account)


def give(path: Path, account: Account | None) -> None:
    """Make a folder private to the user that the server runs as."""
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    path.chmod(0o700)


def here(path: Path) -> str:
    """A name for the folder that a process starts in, `path`, which it may be unable to reach.

    For programs that ask for an absolute path: the kernel's link is one that needs no way there, as
    long as they stay in that folder. Elsewhere than on Linux there is no such link.
    """
    return "/proc/self/cwd" if sys.platform == "linux" else str(path)


def sync_folder(path: Path) -> None:
    """Have the disk remember the names in a folder; a rename is not durable before."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlock(fd: int) -> None:
    """Let go of a lock, also for forks of this process that still hold the descriptor."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def socket_folder(data_dir: Path) -> Path:
    """The folder for the sockets of the server on `data_dir`; named, not made."""
    return runtime_folder() / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]


def renew_socket_folder(path: Path, account: Account | None) -> None:
    """Make the folder anew: a crash leaves sockets and lock files that would be in the way."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    give(path, account)


def runtime_folder() -> Path:
    """This user's folder of short name that everyone may enter and only we may write.

    Raises `EmbeddedError` when somebody else has made it, or no temporary folder is suitable.
    """
    path = _runtime_parent() / f"onsale-{os.geteuid()}"
    try:
        path.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"{path} cannot be made: {error.strerror}; set TMPDIR to another folder"
        ) from None
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise EmbeddedError(f"{path} belongs to somebody else: remove it or set TMPDIR")
    path.chmod(0o755)  # the umask may have taken the way in from the server's user
    return path


def _runtime_parent() -> Path:
    for candidate in (Path(tempfile.gettempdir()), Path("/tmp")):
        if len(os.fsencode(candidate)) <= _RUNTIME_PARENT_BYTES_MAX and _is_safe_parent(candidate):
            return candidate
    raise EmbeddedError(
        "no temporary folder is suitable: set TMPDIR to one of short name, sticky if shared"
        " and open to the user that the servers run as"
    )


def _is_safe_parent(path: Path) -> bool:
    """Whether nobody else can replace what we make in it, and a server's user can enter."""
    chain = [each.stat() for each in (path.resolve(), *path.resolve().parents)]
    return all(
        status.st_uid in (0, os.geteuid())
        and (not status.st_mode & 0o022 or status.st_mode & stat.S_ISVTX)
        and (status.st_mode & 0o001 or not am_root())
        for status in chain
    )


def _account_for(path: Path) -> Account | None:
    """Who runs the server on a folder: ourselves, or, if we are root, its owner or nobody."""
    owner_uid = path.stat().st_uid
    if am_root():
        return Account.of_user(owner_uid or "nobody")
    if owner_uid != os.geteuid():
        raise EmbeddedError(f"{path} belongs to another user (uid {owner_uid}): choose another")
    return None


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

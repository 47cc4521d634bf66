"""A disk of one's own that can be filled: a small filesystem, mounted where nobody else sees it.

The mount belongs to the thread that made it and to the processes that this thread starts, and goes
with the last of them: a campaign that is killed leaves none behind.
"""

import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

from onsale.embedded import EmbeddedError
from onsale.embedded.processes import am_root

_CLONE_NEWNS = 0x0002_0000
_BALLOON = "balloon"


class SmallDisk:
    """A filesystem of `size_bytes` at `path`. Every method is for one and the same thread."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes

    def mount(self) -> None:
        """Make and mount it. Raises `EmbeddedError` with the reason where that is not possible."""
        if sys.platform != "linux" or not am_root():
            raise EmbeddedError("a disk of its own needs root on Linux")
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
            raise EmbeddedError(f"no mounts of its own: {os.strerror(ctypes.get_errno())}")
        image = self.path.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(self._size_bytes)
        self.path.mkdir()
        # Without the first, the second would be seen by everybody.
        _run("mount", "--make-rprivate", "/")
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        _run("mount", "-o", "loop", str(image), str(self.path))

    def fill(self) -> None:
        """Take all the space that is left."""
        with (self.path / _BALLOON).open("wb") as balloon:
            taken_bytes, more_bytes = 0, self._size_bytes
            while more_bytes:
                try:
                    os.posix_fallocate(balloon.fileno(), taken_bytes, more_bytes)
                    taken_bytes += more_bytes
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    more_bytes //= 2

    def relieve(self) -> None:
        """Give it back."""
        (self.path / _BALLOON).unlink(missing_ok=True)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or error
        raise EmbeddedError(f"{command[0]}: {' '.join(str(reason).split())}") from None

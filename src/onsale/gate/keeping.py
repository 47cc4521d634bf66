"""How well a server of the gate keeps what it is told.

Asked by `INFO`, which managed Redis allows where it forbids `CONFIG GET`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Keeping(NamedTuple):
    """One server: whether it lets keys go when it is full, and how its append-only file does.

    `aof_ok` is of the last write and the last rewriting; `aof_delayed_fsyncs` since it started.
    """

    server: str
    eviction_policy: str
    aof_enabled: bool
    aof_ok: bool
    aof_delayed_fsyncs: int

    @property
    def evicts(self) -> bool:
        return self.eviction_policy != "noeviction"


class GateEvicts(RuntimeError):
    """A server of the gate would forget who has a seat."""

    def __init__(self, keeping: Keeping) -> None:
        super().__init__(
            f"Redis at {keeping.server} lets keys go when it is full (maxmemory-policy"
            f" {keeping.eviction_policy}) and would forget who has a seat: set its"
            " maxmemory-policy to noeviction, then start again"
        )


def keeping_of(server: str, info: Mapping[str, Any]) -> Keeping:
    """By the sections `memory` and `persistence` of a server's `INFO`."""
    statuses = (info["aof_last_write_status"], info["aof_last_bgrewrite_status"])
    return Keeping(
        server,
        info["maxmemory_policy"],
        aof_enabled=bool(info["aof_enabled"]),
        aof_ok=set(statuses) == {"ok"},
        # Told only where there is such a file.
        aof_delayed_fsyncs=info.get("aof_delayed_fsync", 0),
    )

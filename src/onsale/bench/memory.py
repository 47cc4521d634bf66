"""The memory of an API process after few and after many requests.

Nobody is measured meanwhile, but others may be made ready: a million requests take minutes.
"""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

from onsale.bench.databases import tidy
from onsale.bench.preparing import Subject
from onsale.bench.probes import resident_bytes
from onsale.bench.result import Footprint
from onsale.bench.turns import Turns

# After how many requests the memory is looked at, and how long a turn may be on the way there: a
# few requests are soon too many, and whoever gives up waits for the end of a turn.
_LOOKS = ((10_000, 1), (1_000_000, 10))


class MemoryLooks(NamedTuple):
    """What was seen, and a line for everything that was wrong."""

    footprints: list[Footprint]
    faults: list[str]


class MemoryRun:
    """Drives the crowd at a server in a thread of its own, and looks at the server's memory."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._thread = ThreadPoolExecutor(1)
        self._looking: Future[MemoryLooks] | None = None
        self._given_up = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._thread.shutdown()

    def begin(self, subject: Subject) -> None:
        """Begin with a server that is warm."""
        self._looking = self._thread.submit(self._look, subject)

    def end(self) -> MemoryLooks:
        """What was seen, when it has been; nothing if nothing was begun. Raises `BenchError`."""
        return self._looking.result() if self._looking else MemoryLooks([], [])

    def _look(self, subject: Subject) -> MemoryLooks:
        footprints, faults = [], []
        requests, seconds = 0, 1
        for look, seconds_max in _LOOKS:
            while requests < look and not self._given_up.is_set():
                driven, wrong = self._turns.unmeasured(subject, min(seconds, seconds_max))
                requests += driven.requests
                faults += wrong
                left_seconds = (look - requests) * driven.duration_seconds / driven.requests
                seconds = max(1, int(left_seconds))
            footprints.append(Footprint(requests, resident_bytes(subject.server.process.pid)))
        asyncio.run(tidy(subject.server.stores.database_url))
        subject.sleep()
        return MemoryLooks(footprints, faults)

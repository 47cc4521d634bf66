"""The crowd: wrk with `loadtest/bench/crowd.lua`, whose buyers have tokens made beforehand.

wrk, because k6 costs as much CPU as the service that it measures.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, Self

from onsale.bench.errors import BenchError
from onsale.http.auth import make_token
from onsale.resources import project_folder

# Waiting for long is slow, which the latency says; wrk's own 2 s would make it a failure.
_ANSWER_SECONDS_MAX = 20
# wrk ends its connections and sums up after its time.
_END_SECONDS_MAX = 30
_TOKEN_LIFETIME = timedelta(hours=12)


@dataclass(frozen=True)
class Driven:
    """What wrk saw.

    `late_p99_ms` is how much later than due the requests of an open loop were sent: what the
    latencies leave out. `error_answers` had a status above 399; `failures` are connections that
    broke or timed out. Requests that wrk left unanswered at its end are in none of the counts.
    Those of the orders that were placed, from when they were due, are there if they were asked for.
    """

    requests: int
    duration_seconds: float
    p50_ms: float
    p99_ms: float
    late_p99_ms: float
    error_answers: int
    failures: int
    placed_p50_ms: float = 0.0
    placed_p99_ms: float = 0.0


class Cells(NamedTuple):
    """A file of texts of one length with nothing between them, as the script reads it."""

    path: Path
    cell_bytes: int

    @classmethod
    def write(cls, path: Path, texts: Sequence[str]) -> Self:
        """Write them down."""
        lengths = {len(text.encode()) for text in texts}
        assert len(lengths) == 1, "the script cuts the file into equal parts"
        path.write_text("".join(texts))
        return cls(path, lengths.pop())


class Request(NamedTuple):
    """What the crowd asks at `base_url`: request i posts `body` to path i."""

    base_url: str
    paths: Cells
    body: str


def buyer_id(index: int) -> str:
    """The name of a buyer."""
    return f"buyer-{index:07d}"


def key_of(index: int) -> str:
    """The Idempotency-Key of a request."""
    return f"press-{index}"


@dataclass(frozen=True)
class Crowd:
    """Buyers who can be sent at an address: request i is made by buyer i modulo `buyers`."""

    wrk: Path
    script: Path
    tokens: Cells
    buyers: int

    @classmethod
    def of(cls, folder: Path, auth_secret: str, buyers: int) -> Self:
        """So many buyers, their tokens in `folder`. Raises `BenchError` when wrk is missing."""
        wrk = find_wrk()
        tokens = [
            make_token(auth_secret, buyer_id(number), "buy", _TOKEN_LIFETIME)
            for number in range(buyers)
        ]
        script = project_folder("loadtest") / "bench" / "crowd.lua"
        return cls(wrk, script, Cells.write(folder / "tokens", tokens), buyers)

    def drive(
        self,
        request: Request,
        *,
        first_index: int,
        keys: int,
        seconds: int,
        connections: int,
        arrivals_per_second: float = 0,
        times_placed: bool = False,
    ) -> Driven:
        """Send requests from `first_index` on for some seconds, by one thread of wrk.

        In a closed loop, where each connection sends when it has been answered; in an open one
        when `arrivals_per_second` is given. Raises `BenchError` when wrk does not come to its end.
        """
        numbers = (first_index, keys, arrivals_per_second)
        command: list[str | Path] = [
            *(self.wrk, "--threads=1", f"--connections={connections}", f"--duration={seconds}s"),
            *("--latency", f"--timeout={_ANSWER_SECONDS_MAX}s", f"--script={self.script}"),
            *(request.base_url, "--", self.tokens.path, str(self.tokens.cell_bytes)),
            *(request.paths.path, str(request.paths.cell_bytes), request.body),
            *(str(number) for number in numbers),
            *(["times_placed"] if times_placed else []),
        ]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds + _END_SECONDS_MAX
            )
        except subprocess.TimeoutExpired:
            raise BenchError("wrk did not end in time") from None
        if ended.returncode != 0:
            raise BenchError(f"wrk failed: {' '.join((ended.stderr or ended.stdout).split())}")
        return parse(ended.stdout)


def find_wrk() -> Path:
    """The wrk on the PATH. Raises `BenchError` without any."""
    found = shutil.which("wrk")
    if found is None:
        raise BenchError("wrk was not found: install it (Debian, Ubuntu: `apt-get install wrk`)")
    return Path(found)


def parse(output: str) -> Driven:
    """What wrk printed: its own text, then the script's line. Raises `BenchError` without that."""
    lines = output.splitlines()
    try:
        line = json.loads(lines[-1])
        return Driven(
            requests=line["requests"],
            duration_seconds=line["duration_us"] / 1e6,
            p50_ms=line["p50_us"] / 1e3,
            p99_ms=line["p99_us"] / 1e3,
            late_p99_ms=line["late_p99_us"] / 1e3,
            error_answers=line["error_answers"],
            failures=line["failures"],
            placed_p50_ms=line.get("placed_p50_us", 0) / 1e3,
            placed_p99_ms=line.get("placed_p99_us", 0) / 1e3,
        )
    except (IndexError, KeyError, TypeError, ValueError):
        raise BenchError(f"wrk ended without a result: {' '.join(lines[-2:])}") from None

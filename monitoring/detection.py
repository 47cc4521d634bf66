"""How long from a kill to the alert: `uv run python -m monitoring.detection`.

Starts the embedded service with two API processes and the monitoring on the shipped configuration,
lets buyers order, kills one part with SIGKILL, and waits until the alert that names it is active in
Alertmanager. Each part on a service of its own, so that no kill hides in the shadow of another.
"""

import asyncio
import itertools
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from onsale.demo.client import ServiceClient
from onsale.demo.stack import Stack
from onsale.http.auth import make_token
from onsale.monitoring import MonitoringStack

DETECTION_SECONDS_MAX = 30.0
_SETTLE_SECONDS_MAX = 60.0
_GIVE_UP_SECONDS = 60.0
_POLL_SECONDS = 0.1
_API_PROCESSES = 2
_BUYERS_AT_ONCE = 8


@dataclass(frozen=True)
class Kill:
    """What is killed, and the alert that has to say so."""

    name: str
    alert: str
    strike: Callable[[Stack], None]


@dataclass(frozen=True)
class Detection:
    """How long it took until the alert was active; `None`: it was given up."""

    kill: Kill
    seconds: float | None

    @property
    def well(self) -> bool:
        return self.seconds is not None and self.seconds < DETECTION_SECONDS_MAX


def kill_one_api_process(stack: Stack) -> None:
    """One of those that answer; the process that looks after them starts another."""
    supervisor = stack.pids["api"]
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    # The last one: the first may be the helper that multiprocessing starts.
    os.kill(int(children[-1]), signal.SIGKILL)


KILLS = (
    Kill("Redis", "RedisDown", lambda stack: os.kill(stack.pids["redis"], signal.SIGKILL)),
    Kill("Postgres", "PostgresDown", lambda stack: os.kill(stack.pids["postgres"], signal.SIGKILL)),
    Kill("one API process of two", "OnsaleProcessRestarted", kill_one_api_process),
    Kill(
        "all API processes",
        "OnsaleTargetDown",
        # They are a session of their own.
        lambda stack: os.killpg(stack.pids["api"], signal.SIGKILL),
    ),
)


@contextmanager
def monitored(
    folder: Path, *, scrape_seconds: int | None = None
) -> Iterator[tuple[Stack, MonitoringStack]]:
    """A service with two API processes, and everything that watches it; as often as shipped, unless
    `scrape_seconds` is given.
    """
    with (
        Stack(folder / "service", secrets.token_hex(32), workers=_API_PROCESSES) as stack,
        MonitoringStack(
            folder / "monitoring", stack.service, scrape_seconds=scrape_seconds
        ) as monitoring,
    ):
        yield stack, monitoring


@asynccontextmanager
async def ordering(stack: Stack) -> AsyncIterator[None]:
    """Buyers order one ticket after the other meanwhile, whatever they are answered."""
    event = ServiceClient(stack.base_url, stack.auth_secret).create_event(
        "Detection",
        [{"id": "ga", "name": "Anywhere", "price": 1, "capacity": 1_000_000}],
        payment="none",
    )
    numbers = itertools.count()
    path = f"/v1/events/{event['id']}/orders"

    async def buy(client: httpx.AsyncClient) -> None:
        while True:
            number = next(numbers)
            token = make_token(stack.auth_secret, f"buyer-{number}", "buy", timedelta(hours=1))
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "press"}
            body = {"items": [{"tier_id": "ga", "quantity": 1}]}
            try:
                await client.post(path, json=body, headers=headers)
            except httpx.TransportError:
                # Nobody is there: no need to ask ten thousand times a second.
                await asyncio.sleep(_POLL_SECONDS)

    async with httpx.AsyncClient(base_url=stack.base_url, trust_env=False, timeout=5) as client:
        buyers = [asyncio.create_task(buy(client)) for _ in range(_BUYERS_AT_ONCE)]
        try:
            yield
        finally:
            for buyer in buyers:
                buyer.cancel()
            await asyncio.gather(*buyers, return_exceptions=True)


async def active_alerts(monitoring: MonitoringStack) -> set[str]:
    """The names of the alerts that Alertmanager would tell of now."""
    assert monitoring.alertmanager is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(
            f"{monitoring.alertmanager.url}/api/v2/alerts", params={"inhibited": "false"}
        )
    return {alert["labels"]["alertname"] for alert in answer.json()}


async def is_settled(monitoring: MonitoringStack) -> bool:
    """Whether everything is scraped and well, and orders are seen to move."""
    queries = ("count(up == 1) == count(up)", "sum(rate(onsale_orders_total[15s])) > 0")
    async with httpx.AsyncClient(base_url=monitoring.prometheus.url, trust_env=False) as client:
        for query in queries:
            answer = await client.get("/api/v1/query", params={"query": query})
            if not answer.json()["data"]["result"]:
                return False
    return True


async def waited_for(reached: Callable[[], Awaitable[bool]], seconds_max: float) -> float | None:
    """The seconds until a state is reached; `None` when it was not."""
    started = time.monotonic()
    while time.monotonic() < started + seconds_max:
        if await reached():
            return time.monotonic() - started
        await asyncio.sleep(_POLL_SECONDS)
    return None


async def detect(kill: Kill, stack: Stack, monitoring: MonitoringStack) -> Detection:
    """Kill, and wait for the alert. Raises `RuntimeError` when it fired before."""
    async with ordering(stack):
        if await waited_for(lambda: is_settled(monitoring), _SETTLE_SECONDS_MAX) is None:
            raise RuntimeError("the service was not well before anything was killed")
        if kill.alert in await active_alerts(monitoring):
            raise RuntimeError(f"{kill.alert} fired before anything was killed")
        kill.strike(stack)

        async def told() -> bool:
            return kill.alert in await active_alerts(monitoring)

        return Detection(kill, await waited_for(told, _GIVE_UP_SECONDS))


def measure(kill: Kill, folder: Path) -> Detection:
    """One kill, from the start of everything to its end."""
    with monitored(folder) as (stack, monitoring):
        return asyncio.run(detect(kill, stack, monitoring))


def main() -> None:
    """Prints the table; exits with 1 when an alert came late."""
    table = Table("killed", "alert", "seconds")
    found = []
    for kill in KILLS:
        with tempfile.TemporaryDirectory(prefix="onsale-detection-") as folder:
            found.append(measure(kill, Path(folder)))
        seconds = found[-1].seconds
        table.add_row(kill.name, kill.alert, "never" if seconds is None else f"{seconds:.1f}")
    Console().print(table)
    sys.exit(not all(detection.well for detection in found))


if __name__ == "__main__":
    main()

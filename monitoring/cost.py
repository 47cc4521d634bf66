"""What watching costs, in parts of a core: `uv run python -m monitoring.cost`.

The service takes orders for a while, so that it has all the series it will have. Then an API
process is scraped again and again with nothing else to do: its CPU a scrape, each scrape interval.
What Prometheus and the exporters use is their own word, under the load.
"""

import asyncio
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import yaml
from rich.console import Console
from rich.table import Table

from monitoring.detection import is_settled, monitored, ordering, waited_for
from onsale.demo.stack import Stack
from onsale.monitoring import MonitoringStack

API_SHARE_MAX = 0.03
_LOAD_SECONDS = 40.0
_SCRAPES = 300
_CONFIG = Path(__file__).parent / "prometheus/prometheus.yml"
_WATCHERS = 'sum by (job) (rate(process_cpu_seconds_total{job!~"onsale-.+"}[30s]))'
_SERVICE = 'sum by (job, instance) (rate(process_cpu_seconds_total{job=~"onsale-.+"}[30s]))'


@dataclass(frozen=True)
class Cost:
    """CPU in parts of a core."""

    api_milliseconds_a_scrape: float
    api_share: float
    scraped_bytes: int
    # By job, Prometheus among them, and what the service itself used meanwhile.
    watchers: dict[str, float]
    service: dict[str, float]

    @property
    def well(self) -> bool:
        return self.api_share < API_SHARE_MAX


def scrape_interval_seconds() -> float:
    """As it is shipped."""
    return float(yaml.safe_load(_CONFIG.read_text("utf-8"))["global"]["scrape_interval"][:-1])


def cpu_seconds(pid: int) -> float:
    """What a process has used, by the kernel's count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def listener_on(port: int, supervisor: int) -> int:
    """Which child of a process serves a metrics port: the one that works when it is scraped."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    before = {int(child): cpu_seconds(int(child)) for child in children}
    for _ in range(50):
        httpx.get(f"http://127.0.0.1:{port}/metrics")
    return max(before, key=lambda pid: cpu_seconds(pid) - before[pid])


async def shares(monitoring: MonitoringStack, query: str) -> dict[str, float]:
    """The parts of a core that a query yields, by job and instance's port."""
    async with httpx.AsyncClient(base_url=monitoring.prometheus.url, trust_env=False) as client:
        answer = await client.get("/api/v1/query", params={"query": query})
    found = {}
    for line in answer.json()["data"]["result"]:
        port = urlsplit(f"//{line['metric'].get('instance', '')}").port
        found[line["metric"]["job"] + (f" :{port}" if port else "")] = float(line["value"][1])
    return found


async def under_load(
    stack: Stack, monitoring: MonitoringStack
) -> tuple[dict[str, float], dict[str, float]]:
    """What the watchers and the service use while orders come in."""
    async with ordering(stack):
        if await waited_for(lambda: is_settled(monitoring), 60) is None:
            raise RuntimeError("the service was not well")
        await asyncio.sleep(_LOAD_SECONDS)
        return await shares(monitoring, _WATCHERS), await shares(monitoring, _SERVICE)


def measure(folder: Path) -> Cost:
    """One measurement, from the start of everything to its end."""
    with monitored(folder) as (stack, monitoring):
        watchers, service = asyncio.run(under_load(stack, monitoring))
        pid = listener_on(stack.metrics_port, stack.pids["api"])
        idle_seconds, scraping_seconds, size_bytes = scraped(stack.metrics_port, pid)
        a_scrape_seconds = (scraping_seconds - idle_seconds) / _SCRAPES
    return Cost(
        api_milliseconds_a_scrape=a_scrape_seconds * 1_000,
        api_share=a_scrape_seconds / scrape_interval_seconds(),
        scraped_bytes=size_bytes,
        watchers=watchers,
        service=service,
    )


def scraped(port: int, pid: int) -> tuple[float, float, int]:
    """CPU of a process while it is scraped, and in as long a time without; the scrape's size."""
    before, started = cpu_seconds(pid), time.monotonic()
    with httpx.Client(trust_env=False) as client:
        for _ in range(_SCRAPES):
            answer = client.get(f"http://127.0.0.1:{port}/metrics")
    scraping_seconds, took_seconds = cpu_seconds(pid) - before, time.monotonic() - started
    before = cpu_seconds(pid)
    time.sleep(took_seconds)
    return cpu_seconds(pid) - before, scraping_seconds, len(answer.content)


def main() -> None:
    """Prints the table; exits with 1 when it costs the API too much."""
    with tempfile.TemporaryDirectory(prefix="onsale-cost-") as folder:
        cost = measure(Path(folder))
    table = Table("what", "of a core")
    table.add_row("an API process, for being scraped", f"{cost.api_share:.2%}")
    for found in (cost.watchers, cost.service):
        for name, share in sorted(found.items()):
            table.add_row(name, f"{share:.1%}")
    console = Console()
    console.print(table)
    console.print(
        f"{cost.api_milliseconds_a_scrape:.1f} ms of CPU and"
        f" {cost.scraped_bytes / 1_024:.0f} KiB a scrape, every {scrape_interval_seconds():g} s"
    )
    sys.exit(not cost.well)


if __name__ == "__main__":
    main()

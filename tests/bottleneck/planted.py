"""A sale with one limit planted, and its verdict: `uv run python -m tests.bottleneck.planted`.

Prints a table of what was planted and what was named; `--rounds 3` does it three times, and words
choose plants by the stage to be named (`nothing`: none). Give it a calm machine.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from onsale.bottleneck import Verdict, read_verdict, render
from onsale.domain.event import PaymentKind
from onsale.ledger.events import NewEvent, NewTier
from onsale.loadtests import SCENARIOS, run_k6
from onsale.monitoring import MonitoringStack
from onsale.report import Prometheus, await_scrape, find_run
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.bottleneck.plants import PLANTS, Plant, PlantedStack

_SECONDS = 10
# Whatever k6 thinks of the service: it is meant to be slow.
_PATIENT = {"LATENCY_P95_MS_MAX": "60000", "LATENCY_P99_MS_MAX": "60000"}


def run_planted(plant: Plant, folder: Path, seconds: int = _SECONDS) -> Verdict:
    """Everything started, one checkout sale with the plant in it, and what limited that."""
    buyers = plant.buyers_per_second * seconds
    with (
        PlantedStack(folder / "stack", secrets.token_hex(32), plant=plant) as stack,
        MonitoringStack(folder / "monitoring", stack.service, scrape_seconds=1) as monitoring,
        Prometheus(monitoring.prometheus.url) as prometheus,
    ):
        await_scrape(prometheus, time.time())
        event_id = asyncio.run(_put_on_sale(stack, buyers))
        with plant.around(stack):
            load = run_k6(
                SCENARIOS["checkout"],
                base_url=stack.base_url,
                event_id=event_id,
                tier_ids=["ga"],
                auth_secret=stack.auth_secret,
                stock=buyers,
                buyers=buyers,
                seconds=seconds,
                report_dir=folder / "report",
                prometheus_url=monitoring.prometheus.url,
                env=_PATIENT | {"VUS_MAX": "400"} | dict(plant.k6),
            )
        await_scrape(prometheus, load.run.ended_at + 1)
        return read_verdict(prometheus, find_run(prometheus, testid=load.run.testid))


async def _put_on_sale(stack: PlantedStack, capacity: int) -> str:
    """An event of that many tickets, whatever is planted in the API; its id."""
    service = Service.of(Settings(database_url=stack.database_url, redis_url=stack.redis_url))
    now, day = datetime.now(UTC), timedelta(days=1)
    new = NewEvent(
        name="A sale with a limit",
        venue=None,
        starts_at=now + 2 * day,
        sale_opens_at=now - day,
        sale_closes_at=now + day,
        hold_seconds=600,
        max_per_buyer_units=0,
        payment=PaymentKind.CARD,
        currency="EUR",
        tiers=(NewTier("ga", "Anywhere", 1_000, capacity),),
    )
    try:
        return (await service.organising.create(new)).id
    finally:
        await service.close()


def main() -> None:
    """Prints each verdict and the table; exits with 1 when one was not named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="a line a run and the table")
    options = parser.parse_args()
    chosen = [p for p in PLANTS if not options.stages or (p.stage or "nothing") in options.stages]
    console = Console(width=120)
    verdicts: dict[str, list[Verdict]] = {plant.name: [] for plant in chosen}
    for _ in range(options.rounds):
        for plant in chosen:
            with tempfile.TemporaryDirectory(prefix="onsale-planted-") as folder:
                verdict = run_planted(plant, Path(folder))
            verdicts[plant.name].append(verdict)
            console.print(f"{plant.name}: {verdict.headline}", highlight=False)
            if not options.quiet:
                render(verdict, console)
                console.rule()
    console.print(_table(chosen, verdicts))
    sys.exit(any(v.limit != plant.stage for plant in chosen for v in verdicts[plant.name]))


def _table(plants: Sequence[Plant], verdicts: Mapping[str, Sequence[Verdict]]) -> Table:
    table = Table("planted", "to be named", "named in", "the verdicts")
    for plant in plants:
        found = verdicts[plant.name]
        right = [each for each in found if each.limit == plant.stage]
        table.add_row(
            plant.name,
            plant.stage or "nothing",
            f"{len(right)} of {len(found)}",
            "\n".join(dict.fromkeys(each.headline for each in found)),
        )
    return table


if __name__ == "__main__":
    main()

"""One process's collaborators, put together: gate, ledger, and the use cases upon them."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onsale.gate.gate import Gate
from onsale.ledger.engine import Database, create_engine
from onsale.ledger.events import Events
from onsale.ledger.ledger import Ledger
from onsale.ledger.webhooks import Webhooks
from onsale.payments.books import BookedProvider
from onsale.payments.provider import PaymentProvider
from onsale.payments.simulated import SimulatedProvider
from onsale.sales import failpoints
from onsale.sales.catalog import Catalog
from onsale.sales.ending import Ending, GiveBack
from onsale.sales.group_commit import GroupCommit, MakeStage
from onsale.sales.organising import Organising
from onsale.sales.paying import Paying
from onsale.sales.placing import Placing
from onsale.sales.throttling import Throttle
from onsale.settings import Settings
from onsale.webhooks.targets import Targets

if TYPE_CHECKING:
    from onsale.observability.tracing import Tracing


@dataclass(frozen=True, slots=True)
class Service:
    """See the module. Making one opens no connection; `close` closes those that were opened."""

    settings: Settings
    gate: Gate
    database: Database
    ledger: Ledger
    events: Events
    webhooks: Webhooks
    targets: Targets
    catalog: Catalog
    provider: PaymentProvider
    give_back: GiveBack
    throttle: Throttle | None
    placing: Placing
    paying: Paying
    ending: Ending
    organising: Organising
    tracing: "Tracing | None" = None

    @classmethod
    def of(cls, settings: Settings) -> "Service":
        """Everything by the settings."""
        gate = Gate.connect(settings)
        database = Database(create_engine(settings), settings.db_outage_patience_seconds)
        ledger, events, webhooks = Ledger(database), Events(database), Webhooks(database)
        catalog = Catalog(events, gate, settings.sale_view_age_seconds_max)
        provider = _provider(settings)
        if settings.failpoint:
            steps = {"gate": gate, "ledger": ledger, "provider": provider, "webhooks": webhooks}
            failpoints.arm(settings.failpoint, steps)
        tracing: Tracing | None = None
        make_stage: MakeStage = GroupCommit
        if settings.tracing_endpoint:
            tracing, make_stage = _traced(settings, gate, ledger, provider)
        give_back = GiveBack(gate)
        return cls(
            settings=settings,
            gate=gate,
            database=database,
            ledger=ledger,
            events=events,
            webhooks=webhooks,
            targets=Targets(private_allowed=settings.webhook_private_targets_allowed),
            catalog=catalog,
            provider=provider,
            give_back=give_back,
            throttle=Throttle.of(gate, settings, make_stage),
            placing=Placing(catalog, gate, ledger, give_back, settings, make_stage),
            paying=Paying(catalog, ledger, provider, settings, make_stage),
            ending=Ending(catalog, ledger, give_back),
            organising=Organising(catalog, gate, ledger, events),
            tracing=tracing,
        )

    async def close(self) -> None:
        """Answer what is on its way, if the stores do in time, then close every connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.shutdown_seconds):
                await self.placing.drain()
                await self.paying.drain()
        await self.gate.close()
        await self.database.close()
        if self.tracing is not None:
            await self.tracing.close()


def _provider(settings: Settings) -> PaymentProvider:
    simulated = SimulatedProvider(settings.simulated_payment_slow_seconds)
    books = settings.simulated_payment_books
    return BookedProvider(simulated, books) if books else simulated


def _traced(
    settings: Settings, gate: Gate, ledger: Ledger, provider: PaymentProvider
) -> "tuple[Tracing, MakeStage]":
    """Have what these are asked traced, and the batches of the stages that are made."""
    # Here, so that nothing of it is loaded where it is off.
    from onsale.observability.tracing import Tracing
    from onsale.sales.traced import Stages, trace_calls

    tracing = Tracing.of(settings)
    trace_calls(tracing, {"gate": gate, "ledger": ledger, "provider": provider})
    return tracing, Stages(tracing)

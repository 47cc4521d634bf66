"""A worker process: sweeper, reconciler, outbox and webhooks, together or one of them."""

import asyncio
import signal
from collections.abc import Sequence
from enum import StrEnum

from onsale.observability.runtime import stop, watch_event_loop
from onsale.sales.service import Service
from onsale.settings import Settings
from onsale.workers import outbox, sweeper
from onsale.workers.loop import repeat
from onsale.workers.reconciler import Reconciler
from onsale.workers.webhooks import Courier


class WorkerKind(StrEnum):
    SWEEPER = "sweeper"
    RECONCILER = "reconciler"
    OUTBOX = "outbox"
    WEBHOOKS = "webhooks"


async def run(settings: Settings, kinds: Sequence[WorkerKind]) -> None:
    """Work until SIGTERM or SIGINT; a pass under way is ended by its next await.

    Raises `GateEvicts`.
    """
    service = Service.of(settings)
    stopping = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, stopping.set)
    tasks: list[asyncio.Task[None]] = []
    try:
        await service.gate.require_noeviction()
        if service.tracing is not None:
            service.tracing.start("worker")
        tasks += [asyncio.create_task(_work(service, kind)) for kind in kinds]
        tasks.append(asyncio.create_task(watch_event_loop(service.database.report_pool)))
        await stopping.wait()
    finally:
        await stop(*tasks)
        await service.close()


async def _work(service: Service, kind: WorkerKind) -> None:
    settings = service.settings
    match kind:
        case WorkerKind.SWEEPER:
            await repeat(kind, lambda: sweeper.run_once(service), settings.sweeper_interval_seconds)
        case WorkerKind.RECONCILER:
            await repeat(kind, Reconciler(service).run_once, settings.reconciler_interval_seconds)
        case WorkerKind.OUTBOX:
            await repeat(kind, lambda: outbox.run_once(service), settings.outbox_interval_seconds)
        case WorkerKind.WEBHOOKS:
            async with Courier.of(service) as courier:
                await repeat(kind, courier.run_once, settings.webhook_interval_seconds)

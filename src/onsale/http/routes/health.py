"""Whether the process lives, and whether it can sell."""

from collections.abc import Awaitable

from fastapi import APIRouter, Response

from onsale.domain.errors import OnsaleError
from onsale.http.dependencies import ServiceDep
from onsale.http.schemas import Health

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> Health:
    """The process lives: restart it when this does not answer."""
    return Health(status="ok")


@router.get("/readyz", responses={503: {"model": Health, "description": "The ledger is away."}})
async def readyz(service: ServiceDep, response: Response) -> Health:
    """The ledger answers: send buyers here. Without the gate the sale goes on, and a balancer that
    took every process away would end it.
    """
    found = {
        "postgres": await _answers(service.events.now()),
        "redis": await _answers(service.gate.ping()),
    }
    if found["postgres"]:
        return Health(status="ok", dependencies=found)
    response.status_code = 503
    return Health(status="unavailable", dependencies=found)


async def _answers(question: Awaitable[object]) -> bool:
    try:
        await question
    except OnsaleError:
        return False
    return True

"""One API process for this room, as a buyer meets it: it has served others before and will again.

Making the application anew for each of some hundred requests would take most of the time. Tests
that break something make an application of their own.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from onsale.http.app import Application, create_app
from onsale.sales.service import Service
from onsale.settings import Settings


@pytest.fixture(scope="package")
async def service(settings: Settings) -> AsyncIterator[Service]:
    """Another process's collaborators: what it does, the API learns from the stores alone."""
    made = Service.of(settings)
    young = asyncio.create_task(made.catalog.keep_young())
    try:
        yield made
    finally:
        young.cancel()
        await asyncio.gather(young, return_exceptions=True)
        await made.close()


@pytest.fixture(scope="package")
async def app(settings: Settings) -> AsyncIterator[Application]:
    """The API, started, in this process."""
    made = create_app(settings)
    async with made.api.router.lifespan_context(made.api):
        yield made

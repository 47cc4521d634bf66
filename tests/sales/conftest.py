"""Services that look at nothing by themselves, so that a test sees each look that it causes."""

from collections.abc import AsyncIterator

import pytest

from onsale.sales.service import Service
from onsale.settings import Settings
from tests.sales.meter import Meter


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """A process's collaborators; its pictures of the sales age until somebody asks."""
    made = Service.of(settings)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def neighbour(settings: Settings) -> AsyncIterator[Service]:
    """Another process on the same stores."""
    made = Service.of(settings)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def meter() -> Meter:
    """Counts what was asked of the stores since the test began."""
    return Meter()

"""Services that look at nothing by themselves, so that a test sees each look that it causes."""

from collections.abc import AsyncIterator

import pytest

from onsale.sales.service import Service
from onsale.settings import Settings
from tests.sales.meter import Meter, look_count
from tests.support import wait_until

# Several times as long as from one look at a sale to the next.
_STILL_SECONDS = 0.5


@pytest.fixture(scope="package", autouse=True)
async def nobody_else_looks() -> None:
    """An API that the tests of another room have left running looks at its sales for some seconds
    more, and what is counted is the process's. Seen red: two readings where a test made one.
    """
    looks = [-1.0]

    async def it_is_still() -> bool:
        looks.append(look_count())
        return looks[-1] == looks[-2]

    await wait_until(it_is_still, timeout_s=30, poll_s=_STILL_SECONDS)


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

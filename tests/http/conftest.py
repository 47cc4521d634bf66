"""One API process for this room, as a buyer meets it: it has served others before and will again.

Making the application anew for each of some hundred requests would take most of the time. Tests
that break something make an application of their own (`started`), and what only the wire shows is
asked of real processes (`stack`).
"""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import structlog

from onsale.demo.stack import Stack
from onsale.http.app import Application
from onsale.sales.service import Service
from onsale.settings import Settings
from tests.http.calls import started
from tests.support import SECRET


@pytest.fixture(scope="package", autouse=True)
def plain_tracebacks() -> Iterator[None]:
    """Tests here make errors on purpose; drawing each with every local variable takes seconds."""
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[renderer])
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="package")
async def service(settings: Settings) -> AsyncIterator[Service]:
    """Another process's collaborators: what it does, the API learns from the stores alone."""
    made = Service.of(settings)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="package")
async def app(settings: Settings) -> AsyncIterator[Application]:
    """The API, started, in this process."""
    async with started(settings) as (made, _):
        yield made


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Real processes of the API and the workers, on stores of their own.

    Of their own, for the workers repair whatever they find there, and other rooms leave things
    broken on purpose.
    """
    env = {
        "ONSALE_AVAILABILITY_STREAMS_MAX": "2",
        "ONSALE_AVAILABILITY_STREAM_INTERVAL_SECONDS": "0.05",
        "ONSALE_PAYMENT_TIMEOUT_SECONDS": "0.5",
        "ONSALE_SIMULATED_PAYMENT_SLOW_SECONDS": "0.2",
        # The first attempt is the last, so that there are dead letters to see.
        "ONSALE_WEBHOOK_ATTEMPTS_MAX": "1",
    }
    with Stack(tmp_path_factory.mktemp("stack"), SECRET, env=env) as made:
        yield made


@pytest.fixture
async def wire(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API's process."""
    async with httpx.AsyncClient(base_url=stack.base_url, timeout=60) as made:
        yield made

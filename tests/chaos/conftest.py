"""A stage for the whole room, whose processes can be started with a bug in them."""

import secrets
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onsale.chaos.stage import Stage
from onsale.embedded.folders import runtime_folder


@pytest.fixture(scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Both stores, two API processes and two of each worker, of the planted program."""
    folder: Path = tmp_path_factory.mktemp("chaos")
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=runtime_folder()) as sockets:
        async with Stage(
            folder, Path(sockets), secrets.token_hex(32), program="tests.chaos.planted"
        ) as made:
            yield made

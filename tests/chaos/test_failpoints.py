"""Failpoints: the process dies there and nowhere else, and one that is off is not there at all."""

import signal
import subprocess
import sys
from typing import Any

import pytest

from onsale.chaos.faults import FAULTS
from onsale.sales.failpoints import FAILPOINTS, arm
from onsale.sales.service import Service
from onsale.settings import Settings

# A collaborator whose `release` says each time whether anything was released.
_SCRIPT = """
import asyncio, sys
from onsale.sales.failpoints import arm

class Ledger:
    async def release(self, released):
        print("released" if released else "nothing", flush=True)
        return released

async def main():
    ledger = Ledger()
    arm(sys.argv[1], {"ledger": ledger})
    for released in (False, True, True, True):
        await ledger.release(released)

asyncio.run(main())
"""


def collaborators(service: Service) -> dict[str, Any]:
    return {name: getattr(service, name) for name in ("gate", "ledger", "provider", "webhooks")}


@pytest.mark.parametrize(
    ("setting", "said"),
    [("released", ["nothing", "released"]), ("released:3", ["nothing"] + 3 * ["released"])],
)
def test_the_process_dies_when_it_gets_there_so_often(setting: str, said: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT, setting], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ended.stdout.split() == said


def test_one_that_is_off_is_not_there() -> None:
    """Nothing of a process is wrapped; seen red with every point wrapped and asked for its name."""
    for collaborator in collaborators(Service.of(Settings())).values():
        own = {name for name, value in vars(collaborator).items() if callable(value)}
        assert not own & {point.method for point in FAILPOINTS.values()}


@pytest.mark.parametrize("name", FAILPOINTS)
def test_every_point_is_where_it_says(name: str) -> None:
    point = FAILPOINTS[name]
    service = Service.of(Settings(failpoint=name))
    assert point.method in vars(getattr(service, point.collaborator))
    assert hasattr(type(getattr(service, point.collaborator)), point.method)


@pytest.mark.parametrize("setting", ["nowhere", "placed:soon"])
def test_there_is_no_such_point(setting: str) -> None:
    with pytest.raises(ValueError, match="no failpoint"):
        arm(setting, {})


def test_the_campaign_crashes_at_each_of_them_once_and_twice() -> None:
    crashes = {name.removeprefix("crash-") for name in FAULTS if name.startswith("crash-")}
    assert crashes == {name + again for name in FAILPOINTS for again in ("", "-again")}

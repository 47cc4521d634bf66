"""Hosts whose clocks are wrong."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from onsale.chaos.faults.fault import Fault
from onsale.chaos.stage import Stage


@dataclass
class WrongClock(Fault):
    """An API process runs on a host whose clock is wrong by `offset`, as libfaketime writes it."""

    offset: str
    lasts_seconds: tuple[float, float] = (4.0, 6.0)
    _name: str = field(default="", init=False)

    def impossible(self, stage: Stage) -> str | None:
        return None if _libfaketime() else "needs libfaketime (Debian, Ubuntu: libfaketime)"

    async def inject(self, stage: Stage, dice: Random) -> None:
        self._name = dice.choice(stage.of_kind("api"))
        wrong = {
            "LD_PRELOAD": str(_libfaketime()),
            "FAKETIME": self.offset,
            # Time-outs go by another clock, which nobody sets.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        await stage.start(self._name, wrong)

    async def mend(self, stage: Stage) -> None:
        await stage.start(self._name)


def _libfaketime() -> Path | None:
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

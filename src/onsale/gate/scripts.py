"""The only door to the Lua scripts: package data, sent once, called by hash ever after."""

from enum import StrEnum
from importlib.resources import files

from redis.asyncio import Redis
from redis.commands.core import AsyncScript


class ScriptName(StrEnum):
    """One for each file in `lua/`."""

    ADMIT = "admit"
    GIVE_BACK = "give_back"
    ADOPT = "adopt"
    MARK = "mark"
    LOAD = "load"
    OPEN = "open"
    CONFIGURE = "configure"
    AVAILABILITY = "availability"
    AUDIT = "audit"
    SEEN = "seen"


def source(name: ScriptName) -> str:
    """The text of a script."""
    return (files("onsale.gate") / "lua" / f"{name}.lua").read_text()


def register(redis: Redis) -> dict[ScriptName, AsyncScript]:
    """Every script, callable; `EVALSHA`, and loaded anew where the server answers `NOSCRIPT`."""
    return {name: redis.register_script(source(name)) for name in ScriptName}

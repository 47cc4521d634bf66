"""The only door to the Lua scripts: package data, sent once, called by hash ever after."""

from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha1
from importlib.resources import files
from itertools import compress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

# A script's keys and arguments.
Call = tuple[Sequence[str], Sequence[Any]]


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
    THROTTLE = "throttle"


def source(name: ScriptName) -> str:
    """The text of a script."""
    return (files("onsale.gate") / "lua" / f"{name}.lua").read_text()


class Scripts:
    """The scripts of one server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        # Named as the server names them: by the SHA-1 of the text.
        self.names = {name: sha1(source(name).encode()).hexdigest() for name in ScriptName}

    async def run_all(self, name: ScriptName, calls: Sequence[Call]) -> list[Any]:
        """Run a script for each `(keys, arguments)`, in one round trip.

        A reply for each, or its error; raised is what befell all of them.
        """
        replies = await self._send(name, calls)
        unknown = [isinstance(reply, NoScriptError) for reply in replies]
        if any(unknown):
            # A server that forgets one forgets all, between two calls: the others have been run.
            await self._redis.script_load(source(name))
            again = iter(await self._send(name, list(compress(calls, unknown))))
            replies = [
                next(again) if was_unknown else reply
                for was_unknown, reply in zip(unknown, replies, strict=True)
            ]
        if replies and all(isinstance(reply, Exception) for reply in replies):
            raise replies[0]
        return replies

    async def _send(self, name: ScriptName, calls: Sequence[Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for keys, arguments in calls:
                pipeline.evalsha(self.names[name], len(keys), *keys, *arguments)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

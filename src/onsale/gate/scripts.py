"""The only door to the Lua scripts: package data, sent once, called by hash ever after."""

from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha1
from importlib.resources import files
from itertools import chain, compress
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


# These answer for many events in one call, with a list of replies.
_FOR_MANY = frozenset({ScriptName.ADMIT, ScriptName.AVAILABILITY})
# One call keeps the server busy for about a millisecond, if each event is asked about one order.
_EVENTS_AT_ONCE = 64


class Scripts:
    """The scripts of one server; `in_cluster` says that it owns slots, and a call is for one."""

    def __init__(self, redis: Redis, *, in_cluster: bool) -> None:
        self._redis = redis
        self._events_at_once = 1 if in_cluster else _EVENTS_AT_ONCE
        # Named as the server names them: by the SHA-1 of the text.
        self.names = {name: sha1(source(name).encode()).hexdigest() for name in ScriptName}

    async def run_all(self, name: ScriptName, calls: Sequence[Call]) -> list[Any]:
        """Run a script for the `(keys, arguments)` of each event, in one round trip.

        A reply for each, or its error; raised is what befell all of them.
        """
        if name not in _FOR_MANY:
            return await self._send_known(name, calls)
        size = self._events_at_once
        groups = [calls[first : first + size] for first in range(0, len(calls), size)]
        replies = await self._send_known(name, [_joined(group) for group in groups])
        return [
            part
            for group, reply in zip(groups, replies, strict=True)
            for part in ([reply] * len(group) if isinstance(reply, Exception) else reply)
        ]

    async def _send_known(self, name: ScriptName, calls: Sequence[Call]) -> list[Any]:
        """Send, and once more what the server does not know the script for."""
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


def _joined(calls: Sequence[Call]) -> Call:
    keys, arguments = zip(*calls, strict=True)
    return list(chain(*keys)), list(chain(*arguments))

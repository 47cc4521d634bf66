"""A proxy that keeps what passes for a while, as a longer way would: `proxy listen server ms`.

Both addresses are Unix sockets; half of the milliseconds are spent on the way there, half on the
way back. The event loop waits by select(), which takes microseconds where epoll takes milliseconds.
"""

import asyncio
import selectors
import sys
from pathlib import Path

_CHUNK_BYTES = 2**18


async def pass_on(listen: Path, server: Path, delay_seconds: float) -> None:
    """Connect everybody who comes with the server, for ever, with the delay in each direction."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(server)
        await asyncio.gather(
            _pass_one_way(reader, server_writer, delay_seconds),
            _pass_one_way(server_reader, writer, delay_seconds),
        )
        for end in (writer, server_writer):
            asyncio.get_running_loop().call_later(delay_seconds, end.close)

    async with await asyncio.start_unix_server(meet, listen) as proxy:
        await proxy.serve_forever()


async def _pass_one_way(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    while chunk := await reader.read(_CHUNK_BYTES):
        loop.call_later(delay_seconds, writer.write, chunk)
    loop.call_later(delay_seconds, writer.write_eof)


def main(listen: str, server: str, delay_ms: float) -> None:
    """Run until told to stop."""
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        runner.run(pass_on(Path(listen), Path(server), delay_ms / 2 / 1000))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))

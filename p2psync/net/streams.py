"""asyncio streams over the sockets of devices that pair: taken over, bounded, closed in the end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from p2psync.protocol.pairing_wire import can_be_judged

READ_SIZE = 64 * 1024
LAST_WORD_S = 1.0
"""How long last words may take to leave."""


async def first_message(reader: asyncio.StreamReader) -> bytes:
    """All that came as soon as there is enough to judge; empty if the other side hung up."""
    data = b""
    while not can_be_judged(data):
        more = await reader.read(READ_SIZE)
        if not more:
            return b""
        data += more
    return data


@contextlib.asynccontextmanager
async def streams(
    sock: socket.socket,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connected socket as streams; closed in the end, whatever happens."""
    try:
        reader, writer = await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    async with closing(writer):
        yield reader, writer


@contextlib.asynccontextmanager
async def closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close it in the end, giving the last words a moment to leave."""
    try:
        yield
    finally:
        writer.close()
        try:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(LAST_WORD_S):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()

"""HTTP/1.1 for the control API: `h11` between a stream and a function, one request a connection."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import h11

_CHUNK = 64 * 1024
_MAX_HEAD = 16 * 1024
_REQUEST_S = 30.0
"""Whoever does not finish its request by then is hung up on."""
_MAX_READ_AWAY = 64
"""Times the longest body: an answer to a request that is still being sent could be lost."""


class Request(NamedTuple):
    verb: str
    path: str
    body: bytes | None
    """None: longer than is read."""


class Response(NamedTuple):
    status: int
    body: bytes
    """JSON."""


Answer = Callable[[Request], Awaitable[Response]]


async def serve_connection(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer, *, max_body: int
) -> None:
    """Take one request, send what `answer` makes of it, and close. Raises what `answer` raises."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
    try:
        try:
            async with asyncio.timeout(_REQUEST_S):
                request = await _receive(connection, reader, max_body)
        except h11.RemoteProtocolError as error:
            await _send(connection, writer, Response(error.error_status_hint, b"{}"))
        else:
            if request is not None:
                await _send(connection, writer, await answer(request))
    except (OSError, TimeoutError):
        # The other side is gone, or never said what it wants.
        return
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _receive(
    connection: h11.Connection, reader: asyncio.StreamReader, max_body: int
) -> Request | None:
    """None where nothing was asked. Raises h11.RemoteProtocolError."""
    head: h11.Request | None = None
    body = bytearray()
    length = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            length += len(event.data)
            if length > max_body * _MAX_READ_AWAY:
                return None
            if length <= max_body:
                body += event.data
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            whole = bytes(body) if length <= max_body else None
            return Request(head.method.decode("ascii"), head.target.decode("ascii"), whole)
        else:
            return None


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, response: Response
) -> None:
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(response.body))),
        ("Connection", "close"),
    ]
    head = connection.send(h11.Response(status_code=response.status, headers=headers))
    data = connection.send(h11.Data(data=response.body))
    end = connection.send(h11.EndOfMessage())
    writer.write(b"".join(part for part in (head, data, end) if part))
    await writer.drain()

"""A TCP connection as asyncio needs it: every wait can be cancelled or ended by closing.

The socket is read and written here when it is ready, instead of through `loop.sock_recv` and
friends: those lose received bytes when they are cancelled at the wrong moment, and leave a
dangling reader behind when the socket is closed under them.
"""

import asyncio
import contextlib
import socket
from typing import Any

_DRAIN_READS = 64
_DRAIN_SIZE = 64 * 1024


def format_address(address: tuple[Any, ...]) -> str:
    """A socket address as people write it: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def wait_readable(sock: socket.socket) -> None:
    """Return when a non-blocking socket has something to accept or to read."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


class TcpStream:
    """A connected TCP socket. Waits are cancelled without loss, and `close` ends them at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._deaf = False
        self._closed = False
        self.bytes_received = 0
        self.bytes_sent = 0
        sock.setblocking(False)

    async def receive_into(self, buffer: memoryview) -> int:
        """At least one byte, or 0 at the end of the stream. Raises OSError.

        At most one task at a time.
        """
        while True:
            if self._deaf:
                raise ConnectionAbortedError("closed on this side")
            with contextlib.suppress(BlockingIOError, InterruptedError):
                count = self._sock.recv_into(buffer)
                self.bytes_received += count
                return count
            if self._reading is not None:
                raise RuntimeError("two tasks receive from one stream")
            self._reading = ready = self._loop.create_future()
            self._loop.add_reader(self._sock, _wake, ready)
            try:
                await ready
            finally:
                self._reading = None
                if not self._closed:
                    self._loop.remove_reader(self._sock)

    async def send_all(self, data: bytes) -> None:
        """Hand all of `data` to the kernel. Raises OSError. At most one task at a time."""
        rest = memoryview(data)
        while rest:
            if self._closed:
                raise ConnectionAbortedError("closed on this side")
            with contextlib.suppress(BlockingIOError, InterruptedError):
                count = self._sock.send(rest)
                self.bytes_sent += count
                rest = rest[count:]
                continue
            self._writing = ready = self._loop.create_future()
            self._loop.add_writer(self._sock, _wake, ready)
            try:
                await ready
            finally:
                self._writing = None
                if not self._closed:
                    self._loop.remove_writer(self._sock)

    def send_now(self, data: bytes) -> None:
        """Hand over what the kernel takes at once; the rest is lost."""
        with contextlib.suppress(OSError):
            self._sock.send(data)

    def end_receiving(self) -> None:
        self._deaf = True
        _wake(self._reading)

    def shut_down(self) -> None:
        """Tell the peer that no more comes, without closing the descriptor."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; waiting tasks end with ConnectionAbortedError. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self.end_receiving()
        _wake(self._writing)
        # Closing a socket that holds unread bytes resets the connection, and the reset can
        # overtake our last words: read them away first.
        scratch = bytearray(_DRAIN_SIZE)
        with contextlib.suppress(OSError):
            for _ in range(_DRAIN_READS):
                if not self._sock.recv_into(scratch):
                    break
        self._sock.close()


def _wake(ready: "asyncio.Future[None] | None") -> None:
    if ready is not None and not ready.done():
        ready.set_result(None)

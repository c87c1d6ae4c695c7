"""The link: an authenticated, encrypted byte stream between two devices over one TCP connection.

TLS runs through `ssl.MemoryBIO` over raw reads of 256 KiB: asyncio's own TLS transport reaches
less than half of the throughput. The socket is read and written here when it is ready, instead of
through `loop.sock_recv` and friends: those lose received bytes when they are cancelled at the wrong
moment, and leave a dangling reader behind when the socket is closed under them.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from p2psync.core.ids import DeviceID, short_device_id
from p2psync.errors import P2psyncError
from p2psync.net import tls

_READ_SIZE = 256 * 1024
"""Bytes asked of the socket at once, and the room for what they decrypt to."""
_SLICE = 256 * 1024
"""Bytes encrypted at once: some 0.2 ms of the event loop's time."""
_RECORD = 16 * 1024
"""The most plaintext one TLS record holds; shorter buffers are joined up to it."""
_MAX_UNASKED = 64 * 1024
"""Bytes of TLS's own replies that may wait for the next send; only a hostile peer causes more."""
_DRAIN_READS = 64
_CLOSE_SECONDS = 1.0
_WELCOME = b"\x01"

_REFUSED_HERE = (
    "The device at {address} is not paired with this one. "
    "Pair them: `p2psync pair new` on one, `p2psync pair join` on the other."
)
_REFUSED_THERE = (
    "The device at {address} does not accept this one: they are not paired, or this device was "
    "removed. Pair them: `p2psync pair new` on one, `p2psync pair join` on the other."
)
_FOREIGN = (
    "What answers at {address} does not speak p2psync's protocol. "
    "Check the address, and that both devices run a current p2psync."
)
_OLD_TLS = (
    "What answers at {address} does not offer TLS 1.3, which p2psync requires. "
    "Check the address, and that both devices run a current p2psync."
)
_LOST = "The connection to {address} ended before both devices had shown who they are. Try again."
_SENTENCES = {
    "CERTIFICATE_VERIFY_FAILED": _REFUSED_HERE,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _REFUSED_HERE,
    "TLSV1_ALERT_UNKNOWN_CA": _REFUSED_THERE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _REFUSED_THERE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSED_THERE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSED_THERE,
    "UNSUPPORTED_PROTOCOL": _OLD_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD_TLS,
}
"""What a failed handshake means, by OpenSSL's name of the failure."""


class LinkError(P2psyncError, ConnectionError):
    """No link came about, or it ended."""


class LinkRefusedError(LinkError):
    """One side does not accept the other."""

    exit_code = 5


class LinkClosedError(LinkError):
    """The link ended without the peer's goodbye, or was closed on this side."""


def format_address(address: tuple[Any, ...]) -> str:
    """A socket address as people write it: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Wire:
    """A connected TCP socket. Waits are cancelled without loss, and `close` ends them at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._deaf = False
        self._closed = False
        sock.setblocking(False)

    async def receive_into(self, buffer: memoryview) -> int:
        """At least one byte, or 0 at the end of the stream. Raises OSError.

        At most one task at a time.
        """
        while True:
            if self._deaf:
                raise ConnectionAbortedError("closed on this side")
            with contextlib.suppress(BlockingIOError, InterruptedError):
                return self._sock.recv_into(buffer)
            if self._reading is not None:
                raise RuntimeError("two tasks receive from one link")
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
            try:
                rest = rest[self._sock.send(rest) :]
                continue
            except (BlockingIOError, InterruptedError):
                pass
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
        scratch = bytearray(_RECORD)
        with contextlib.suppress(OSError):
            for _ in range(_DRAIN_READS):
                if not self._sock.recv_into(scratch):
                    break
        self._sock.close()


def _wake(ready: "asyncio.Future[None] | None") -> None:
    if ready is not None and not ready.done():
        ready.set_result(None)


class TlsLink:
    """The stream to one authenticated peer; made by `handshake`, ended by `close`.

    One task may receive while others send. Raises LinkClosedError once the stream is broken; the
    owner still has to `close` it.
    """

    def __init__(
        self,
        wire: _Wire,
        stream: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        *,
        peer: DeviceID,
        peer_certificate: bytes,
        remote_address: str,
        local_address: str,
    ) -> None:
        self.peer = peer
        self.peer_certificate = peer_certificate
        self.remote_address = remote_address
        self.local_address = local_address
        self._wire = wire
        self._stream = stream
        self._incoming = incoming
        self._outgoing = outgoing
        self._raw = memoryview(bytearray(_READ_SIZE))
        self._sending = asyncio.Lock()
        self._broken = False
        self._closing = False
        self._closed = asyncio.Event()

    async def receive(self) -> bytes | bytearray:
        """The next bytes, at most 256 KiB; empty when the peer ended the stream properly.

        A cancelled call loses nothing. At most one task at a time.
        """
        # A peer that floods us must not keep the loop from everyone else.
        await asyncio.sleep(0)
        try:
            while True:
                if self._closing:
                    raise ConnectionAbortedError("closed on this side")
                plaintext = self._decrypt()
                if plaintext or self._ended:
                    return plaintext
                count = await self._wire.receive_into(self._raw)
                if not count:
                    raise ConnectionResetError("cut off")
                self._incoming.write(self._raw[:count])
        except OSError as error:
            raise self._lost(error) from error

    def _decrypt(self) -> bytearray:
        """All that can be read of the bytes that came; empty while no record is whole."""
        plaintext = bytearray(self._incoming.pending + self._stream.pending())
        size = 0
        with memoryview(plaintext) as view, contextlib.suppress(ssl.SSLWantReadError):
            while size < len(view) and not self._ended:
                count = self._stream.read(len(view) - size, view[size:])  # type: ignore[arg-type]
                size += count
                self._ended = not count
        del plaintext[size:]
        if self._outgoing.pending > _MAX_UNASKED:
            raise ConnectionAbortedError("too many requests for new keys")
        return plaintext

    async def send(self, data: Sequence[bytes | memoryview]) -> None:
        """Write the buffers in order; return when the kernel has them all.

        Calls of several tasks do not mix. A call that is cancelled once it has begun breaks the
        link: the peer could not tell where the next message starts.
        """
        async with self._sending:
            try:
                for piece in _pieces(data):
                    if self._broken or self._closing:
                        raise ConnectionAbortedError("closed on this side")
                    # Replies that TLS itself owes the peer since the last send go out with it.
                    self._stream.write(piece)
                    await self._wire.send_all(self._outgoing.read())
                    await asyncio.sleep(0)
            except BaseException as error:
                self._broken = True
                if not self._closing:
                    self._wire.shut_down()
                if isinstance(error, OSError):
                    raise self._lost(error) from error
                raise

    async def close(self) -> None:
        """Say goodbye if the peer takes it within a second, and close the socket. Idempotent.

        Whoever waits in `receive` or `send` gets LinkClosedError.
        """
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        self._wire.end_receiving()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS), self._sending:
                if not self._broken:
                    with contextlib.suppress(ssl.SSLError):
                        self._stream.unwrap()
                    await self._wire.send_all(self._outgoing.read())
        except (TimeoutError, OSError):
            pass
        finally:
            self._wire.close()
            self._closed.set()

    def _lost(self, error: OSError) -> LinkClosedError:
        reason = error.strerror or str(error)
        return LinkClosedError(f"The link to {self.remote_address} ended: {reason}.")


def _pieces(data: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in the same order: short buffers joined to a record, long ones sliced."""
    short: list[bytes | memoryview] = []
    size = 0
    for buffer in data:
        view = memoryview(buffer).cast("B")
        if size and size + len(view) > _RECORD:
            yield b"".join(short)
            short, size = [], 0
        if len(view) > _RECORD:
            for at in range(0, len(view), _SLICE):
                yield view[at : at + _SLICE]
        elif view:
            short.append(view)
            size += len(view)
    if size:
        yield b"".join(short)


async def handshake(
    sock: socket.socket,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    pinned: Mapping[DeviceID, bytes],
    timeout: float,  # noqa: ASYNC109 - bounds the whole exchange, whatever it is made of
) -> TlsLink:
    """Authenticate both sides over a connected TCP socket, within `timeout` seconds.

    Takes the socket over: it is closed unless a link is returned. In TLS 1.3 a client believes
    itself connected before the server has judged its certificate; so the server's first byte is a
    welcome, and the client waits for it.

    Raises LinkRefusedError when a side does not accept the other, LinkError when time ran out,
    LinkClosedError when the connection was lost.
    """
    wire = _Wire(sock)
    try:
        _keep_lively(sock)
        remote = format_address(sock.getpeername())
        local = format_address(sock.getsockname())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        stream = context.wrap_bio(incoming, outgoing, server_side=server_side)
        attempt = _Handshake(wire, stream, incoming, outgoing)
        async with asyncio.timeout(timeout):
            peer, certificate = await attempt.run(pinned, server_side=server_side, address=remote)
    except TimeoutError as error:
        wire.close()
        raise LinkError(
            f"The device at {remote} did not finish the handshake within {timeout:g} s. Try again."
        ) from error
    except OSError as error:
        wire.close()
        if isinstance(error, LinkError):
            raise
        raise LinkClosedError(f"The connection was lost: {error.strerror or error}.") from error
    except BaseException:
        wire.close()
        raise
    return TlsLink(
        wire,
        stream,
        incoming,
        outgoing,
        peer=peer,
        peer_certificate=certificate,
        remote_address=remote,
        local_address=local,
    )

"""The link: an authenticated, encrypted byte stream between two devices over one TCP connection.

TLS runs through `ssl.MemoryBIO` over raw reads of 256 KiB: asyncio's own TLS transport reaches
less than half of the throughput.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from p2psync.core.ids import DeviceID
from p2psync.errors import P2psyncError
from p2psync.net.tcp import TcpStream, format_address
from p2psync.net.tls import ALPN, pinned_peer
from p2psync.ports import DialRefusedError

_READ_SIZE = 256 * 1024
"""Bytes asked of the socket at once, and the room for what they decrypt to."""
_SLICE = 256 * 1024
"""Bytes encrypted at once: some 0.2 ms of the event loop's time."""
_JOINED = 64 * 1024
"""Buffers shorter than this are joined: to send one by itself costs more than to copy it."""
_HANDSHAKE_READ = 16 * 1024
_MAX_UNASKED = 64 * 1024
"""Bytes of TLS's own replies that may wait for the next send; only a hostile peer causes more."""
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


class LinkRefusedError(LinkError, DialRefusedError):
    """One side does not accept the other."""

    exit_code = 5


class LinkClosedError(LinkError):
    """The link ended without the peer's goodbye, or was closed on this side."""


class TlsLink:
    """The stream to one authenticated peer; made by `handshake`, ended by `close`.

    One task may receive while others send. Raises LinkClosedError once the stream is broken; the
    owner still has to `close` it.
    """

    def __init__(
        self,
        wire: TcpStream,
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
        self._ended = False
        self._closing = False
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether `close` has done its work."""
        return self._closed.is_set()

    @property
    def bytes_received(self) -> int:
        """Off the network so far, encryption included."""
        return self._wire.bytes_received

    @property
    def bytes_sent(self) -> int:
        """Handed to the network so far, encryption included."""
        return self._wire.bytes_sent

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
                # Given a buffer it returns a count, which its type does not tell.
                count = cast(int, self._stream.read(len(view) - size, view[size:]))
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
                    if self._broken:
                        raise ConnectionAbortedError("an earlier message was cut short")
                    if self._closing:
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
        except OSError:  # TimeoutError too: the peer does not listen
            pass
        finally:
            self._wire.close()
            # The rest of this may be held for a while, by an error that tells how it ended.
            self._raw = memoryview(b"")
            self._incoming.read()
            self._closed.set()

    def _lost(self, error: OSError) -> LinkClosedError:
        if self._closing:
            return LinkClosedError(f"The link to {self.remote_address} was closed on this side.")
        if isinstance(error, ssl.SSLError):
            reason = f"what came was not what the peer encrypted ({error.reason})"
        else:
            reason = error.strerror or str(error)
        return LinkClosedError(
            f"The link to {self.remote_address} ended: {reason}. "
            "Check that the device is on and can be reached."
        )


def _pieces(data: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in the same order, in pieces of at most 256 KiB: short buffers are joined."""
    short: list[memoryview] = []
    size = 0
    for buffer in data:
        view = memoryview(buffer).cast("B")
        joins = len(view) < _JOINED
        if size and (not joins or size + len(view) > _SLICE):
            yield b"".join(short)
            short, size = [], 0
        if joins:
            short.append(view)
            size += len(view)
        else:
            for at in range(0, len(view), _SLICE):
                yield view[at : at + _SLICE]
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

    Only a peer that `pinned` (device to certificate in DER) holds when the handshake ends is
    accepted. Takes the socket over: it is closed unless a link is returned. In TLS 1.3 a client
    believes itself connected before the server has judged its certificate; so the server's first
    byte is a welcome, and the client waits for it.

    Raises LinkRefusedError when a side does not accept the other, LinkClosedError when the
    connection was lost, LinkError when time ran out.
    """
    wire = TcpStream(sock)
    try:
        remote, local = format_address(sock.getpeername()), format_address(sock.getsockname())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as error:
        wire.close()
        raise LinkClosedError(
            "The other side ended the connection as soon as it was made. Try again."
        ) from error
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    stream = context.wrap_bio(incoming, outgoing, server_side=server_side)
    attempt = _Handshake(wire, stream, incoming, outgoing, remote)
    try:
        async with asyncio.timeout(timeout):
            await attempt.negotiate()
            peer = attempt.check(pinned)
            await (attempt.welcome() if server_side else attempt.await_welcome())
    except BaseException as error:
        wire.close()
        if isinstance(error, TimeoutError):
            raise LinkError(
                f"The device at {remote} did not finish the handshake within {timeout:g} s. "
                "Check the connection to it, and try again."
            ) from error
        raise
    device, certificate = peer
    return TlsLink(
        wire,
        stream,
        incoming,
        outgoing,
        peer=device,
        peer_certificate=certificate,
        remote_address=remote,
        local_address=local,
    )


class _Handshake:
    """The steps of `handshake`, each of which raises a LinkError that tells what went wrong."""

    def __init__(
        self,
        wire: TcpStream,
        stream: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        remote: str,
    ) -> None:
        self._wire = wire
        self._stream = stream
        self._incoming = incoming
        self._outgoing = outgoing
        self._remote = remote
        self._raw = memoryview(bytearray(_HANDSHAKE_READ))

    async def negotiate(self) -> None:
        """Run TLS up to our own last flight, which stays unsent."""
        try:
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    self._stream.do_handshake()
                    return
                await self._exchange()
        except OSError as error:
            raise self._failure(error, otherwise=_LOST) from error

    def check(self, pinned: Mapping[DeviceID, bytes]) -> tuple[DeviceID, bytes]:
        """The device at the other end. A client has not yet shown who it is when this raises."""
        if self._stream.selected_alpn_protocol() != ALPN:
            raise LinkRefusedError(_FOREIGN.format(address=self._remote))
        peer = pinned_peer(self._stream, pinned)
        if peer is None:
            raise LinkRefusedError(_REFUSED_HERE.format(address=self._remote))
        return peer

    async def welcome(self) -> None:
        try:
            self._stream.write(_WELCOME)
            await self._wire.send_all(self._outgoing.read())
        except OSError as error:
            raise self._failure(error, otherwise=_LOST) from error

    async def await_welcome(self) -> None:
        try:
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    word = self._stream.read(1)
                    break
                await self._exchange()
        except OSError as error:
            raise self._failure(error, otherwise=_REFUSED_THERE) from error
        if word != _WELCOME:
            raise LinkRefusedError(_REFUSED_THERE.format(address=self._remote))

    async def _exchange(self) -> None:
        await self._wire.send_all(self._outgoing.read())
        count = await self._wire.receive_into(self._raw)
        if not count:
            raise ConnectionResetError("ended by the other side")
        self._incoming.write(self._raw[:count])

    def _failure(self, error: OSError, *, otherwise: str) -> LinkError:
        if not isinstance(error, ssl.SSLError):
            kind = LinkClosedError if otherwise is _LOST else LinkRefusedError
            return kind(otherwise.format(address=self._remote))
        # The alert that tells the other side why.
        self._wire.send_now(self._outgoing.read())
        sentence = _SENTENCES.get(error.reason or "", _FOREIGN)
        return LinkRefusedError(sentence.format(address=self._remote))

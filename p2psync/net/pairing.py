"""Pairing over TCP: the window of the device that shows a secret, and the joiner's call.

Plain TCP on purpose: neither side has a certificate of the other yet, and `protocol.pairing`
proves and seals all by itself. Joiners come in at the port of the endpoint, which hands over their
sockets (`PairingHost.attend`, or `turn_away` where no window is open).
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from p2psync.errors import NotFoundError, P2psyncError, TimedOutError
from p2psync.net.streams import LAST_WORD_S, READ_SIZE, closing, first_message, streams
from p2psync.net.tcp import format_address
from p2psync.protocol.pairing import (
    HostPairing,
    JoinerPairing,
    PairedPeer,
    PairingProtocolError,
    Refusal,
)
from p2psync.protocol.pairing_code import (
    MAX_FAILURES,
    WINDOW_S,
    PairingSecret,
    PairingWindow,
    WindowState,
)
from p2psync.protocol.pairing_wire import HostRefusal, Stream

ATTEMPT_S = 20.0
"""A joiner that has not confirmed by then has failed."""
JOIN_S = 60.0
MAX_WAITING = 8
_FIRST_WORD_S = 5.0
"""For the whole first message."""
_LOOK_S = 1.0
"""How often the window's clock is looked at: it may run when the event loop's does not."""
_REFUSALS = {
    WindowState.EXPIRED: Refusal.EXPIRED,
    WindowState.BURNED: Refusal.BURNED,
    WindowState.USED: Refusal.USED,
}

Accept = Callable[[PairedPeer], Awaitable[None]]


class PairingEnd(Enum):
    PAIRED = "paired"
    EXPIRED = "expired"
    BURNED = "burned"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class PairingOutcome:
    """How a window ended; with `peer` if it is PAIRED."""

    end: PairingEnd
    peer: PairedPeer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """For the log. `counted` if it used up one of the window's failures."""

    address: str
    error: P2psyncError
    counted: bool
    failures_left: int


class PairingHost:
    """A pairing window. It opens with `start` and closes by itself.

    Joiners have their attempts one after the other; up to MAX_WAITING wait for their turn. More are
    hung up on, those first that have not said their first message. `accept` is called with the peer
    that knew the secret, before it is told that it is in: what it stores is stored then. It turns
    the peer down by raising a P2psyncError, which leaves the window open; it may be cancelled by
    `close`.
    """

    def __init__(
        self,
        secret: PairingSecret,
        *,
        certificate: bytes,
        payload: bytes,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        accept: Accept,
        on_failed_attempt: Callable[[FailedAttempt], None],
        ttl: float = WINDOW_S,
        max_failures: int = MAX_FAILURES,
        attempt_s: float = ATTEMPT_S,
    ) -> None:
        self._secret = secret
        self._certificate = certificate
        self._payload = payload
        self._clock = clock
        self._random_bytes = random_bytes
        self._accept = accept
        self._on_failed_attempt = on_failed_attempt
        self._attempt_s = attempt_s
        self._window = PairingWindow(clock(), ttl=ttl, max_failures=max_failures)
        self._waiting = 0
        self._silent: dict[asyncio.Task[None], None] = {}
        """Attempts that have not got as far as a first message, the oldest first."""
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._outcome: asyncio.Future[PairingOutcome] | None = None
        self._running: asyncio.Task[None] | None = None
        self._attempts: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    @property
    def expires_s(self) -> float:
        """Seconds that the window has left."""
        return self._window.remaining(self._clock())

    def start(self) -> None:
        """Attend to joiners from now on."""
        self._outcome = asyncio.get_running_loop().create_future()
        # Ends when the window does, or with `close`.
        self._running = asyncio.create_task(self._run(), name="pairing window")
        self._running.add_done_callback(lambda _task: self._end(PairingEnd.CANCELLED))

    async def attend(self, sock: socket.socket) -> None:
        """Take over the connected socket of a joiner; returns when its attempt is over.

        After the window's end it is told why it comes too late.
        """
        if self._attempts is None:
            await turn_away(sock, _REFUSALS.get(self._window.state(self._clock()), Refusal.CLOSED))
            return
        if self._waiting > MAX_WAITING:
            if not self._silent:
                sock.close()
                return
            # Who means to pair says so at once: a crowd that does not keeps nobody out.
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.cancel()
        self._waiting += 1
        # Ends with the attempt, and that is bounded in time.
        attempt = self._attempts.create_task(self._serve(sock))
        self._silent[attempt] = None
        attempt.add_done_callback(lambda _: self._left(attempt, sock))
        await asyncio.wait([attempt])

    def _left(self, attempt: asyncio.Task[None], sock: socket.socket) -> None:
        self._waiting -= 1
        self._silent.pop(attempt, None)
        # Closed already, unless the attempt was ended before it began.
        sock.close()

    async def result(self) -> PairingOutcome:
        """How it ended, as soon as it has. Any number of tasks may wait, and stop waiting."""
        if self._outcome is None:
            raise RuntimeError("the pairing window was not started")
        return await asyncio.shield(self._outcome)

    async def close(self) -> None:
        """Drop every attempt; what has not ended is CANCELLED. Idempotent."""
        if self._running is None:
            return
        self._attempts = None
        self._running.cancel()
        await asyncio.wait([self._running])
        if not self._running.cancelled():
            self._running.result()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._attempts = tasks
                await self._until_ended()
        finally:
            self._attempts = None

    async def _until_ended(self) -> None:
        while self._window.state(self._clock()) is WindowState.OPEN:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self.expires_s, _LOOK_S)):
                    await self._changed.wait()
        # An attempt that began in time may still end well.
        async with self._turn:
            burned = self._window.state(self._clock()) is WindowState.BURNED
            self._end(PairingEnd.BURNED if burned else PairingEnd.EXPIRED)

    def _end(self, end: PairingEnd, peer: PairedPeer | None = None) -> None:
        """The first end is the one that counts: after PAIRED nothing changes it."""
        if self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(PairingOutcome(end, peer))

    async def _serve(self, sock: socket.socket) -> None:
        try:
            async with streams(sock) as (reader, writer):
                # Who says nothing does not get a turn, and so does not keep others from theirs.
                # In its turn a hello is answered at once, and from then on dawdling costs a guess.
                async with asyncio.timeout(_FIRST_WORD_S):
                    first = await first_message(reader)
                self._silent.pop(_this_task(), None)
                if first:
                    async with self._turn:
                        await self._attempt(first, reader, writer)
        except (TimeoutError, OSError):
            return

    async def _attempt(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        pairing = HostPairing(
            self._secret,
            certificate=self._certificate,
            payload=self._payload,
            random_bytes=self._random_bytes,
        )
        refusal = _REFUSALS.get(self._window.state(self._clock()))
        if refusal is not None:
            self._changed.set()
            pairing.refuse(refusal)
            await _send_last(pairing, writer)
            return
        try:
            peer = await self._converse(pairing, first, reader, writer)
        except TimeoutError:
            self._failed(pairing, writer, TimedOutError("A device took too long to pair."))
        except OSError:
            lost = PairingProtocolError("The connection to a device that was pairing broke.")
            self._failed(pairing, writer, lost)
        except P2psyncError as error:
            self._failed(pairing, writer, error)
            await _send_last(pairing, writer)
        else:
            await self._decide(pairing, peer, writer)

    async def _converse(
        self,
        pairing: HostPairing,
        data: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> PairedPeer:
        async with asyncio.timeout(self._attempt_s) as limit:
            while True:
                was_confirmed = pairing.confirmed
                await asyncio.to_thread(pairing.receive_data, data)
                if pairing.peer is not None:
                    return pairing.peer
                await _send(pairing, writer)
                if pairing.confirmed and not was_confirmed:
                    limit.reschedule(asyncio.get_running_loop().time() + self._attempt_s)
                data = await reader.read(READ_SIZE)
                if not data:
                    pairing.receive_eof()

    async def _decide(
        self, pairing: HostPairing, peer: PairedPeer, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._accept(peer)
        except P2psyncError as error:
            self._failed(pairing, writer, error)
            pairing.refuse(Refusal.DECLINED)
        else:
            # From here on it is a peer, whether or not it hears so.
            self._window.attempt_succeeded()
            self._changed.set()
            self._end(PairingEnd.PAIRED, peer)
            pairing.accept()
        await _send_last(pairing, writer)

    def _failed(
        self, pairing: HostPairing, writer: asyncio.StreamWriter, error: P2psyncError
    ) -> None:
        counted = pairing.cost_a_guess
        if counted:
            self._window.attempt_failed()
            self._changed.set()
        remote = writer.get_extra_info("peername")
        self._on_failed_attempt(
            FailedAttempt(
                address=format_address(remote) if remote else "an address unknown",
                error=error,
                counted=counted,
                failures_left=self._window.failures_left,
            )
        )


async def turn_away(sock: socket.socket, refusal: Refusal = Refusal.CLOSED) -> None:
    """Tell whoever came to pair at this connected socket why it cannot, and close it."""
    word = Stream()
    word.send(HostRefusal(refusal))
    with contextlib.suppress(OSError, TimeoutError):
        async with streams(sock) as (reader, writer), asyncio.timeout(LAST_WORD_S):
            # Read first: an unread word would have the answer cut off by a reset.
            await reader.read(READ_SIZE)
            writer.write(word.take_outgoing())
            await writer.drain()


async def join(
    host: str,
    port: int,
    secret: PairingSecret,
    *,
    certificate: bytes,
    payload: bytes,
    random_bytes: Callable[[int], bytes],
    timeout: float = JOIN_S,  # noqa: ASYNC109 - the sentence needs it
) -> PairedPeer:
    """Pair with the host that listens there. On return both sides know that it is done.

    Every call gives a false host one guess at the code: do not try many addresses unasked. Raises
    PairingRefusedError, PairingProtocolError, NotFoundError if the address cannot be reached, and
    TimedOutError after `timeout` seconds.
    """
    address = format_address((host, port))
    pairing = JoinerPairing(
        secret, certificate=certificate, payload=payload, random_bytes=random_bytes
    )
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _connect(host, port, address)
            async with closing(writer):
                return await _ask(pairing, reader, writer)
    except TimeoutError:
        raise TimedOutError(
            f"The device at {address} did not finish pairing within {timeout:.0f} seconds. "
            "Another device may be pairing with it, or a firewall is in between; try again."
        ) from None
    except OSError:
        raise PairingProtocolError(
            f"The connection to {address} broke before the pairing was done. Look at `p2psync "
            "device list` on the other device; if this one is not there, try again."
        ) from None


async def _connect(
    host: str, port: int, address: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(host, port)
    except (OSError, UnicodeError) as error:  # UnicodeError: what no name can look like
        reason = getattr(error, "strerror", None) or error
        raise NotFoundError(
            f"The address {address} cannot be reached: {reason}. Check it, and that both devices "
            "are on one network."
        ) from None


async def _ask(
    pairing: JoinerPairing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> PairedPeer:
    while True:
        await _send(pairing, writer)
        data = await reader.read(READ_SIZE)
        if not data:
            pairing.receive_eof()
        await asyncio.to_thread(pairing.receive_data, data)
        if pairing.peer is not None:
            return pairing.peer


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def _send(pairing: HostPairing | JoinerPairing, writer: asyncio.StreamWriter) -> None:
    if data := pairing.data_to_send():
        writer.write(data)
        await writer.drain()


async def _send_last(pairing: HostPairing, writer: asyncio.StreamWriter) -> None:
    """Send what is left to say, if the other side still listens."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(LAST_WORD_S):
            await _send(pairing, writer)

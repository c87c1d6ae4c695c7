"""One link's life: messages in and out, requests and their replies, a sign of life.

Goals: a reply finds its request, a lost link fails every waiting request at once, a dead peer is
noticed, bulk never delays control messages by more than one frame. Non-goals: what any message
means for folders (`exchange`, `supplier`) or membership (`cluster`).

The reader never waits for the writer: two devices that both waited so would wait for ever. What
the reader itself causes to be sent is posted to a queue whose overflow ends the session.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from p2psync.core.entry import Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.manifest import decode_manifest
from p2psync.errors import P2psyncError
from p2psync.ports import Clock, Link
from p2psync.protocol.connection import PeerConnection
from p2psync.protocol.messages import (
    MISSING,
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    Goodbye,
    Hello,
    ManifestReply,
    ManifestRequest,
)
from p2psync.protocol.wire import RemoteProtocolError, encode_frame

REQUEST_SECONDS = 60.0
REQUESTS_AT_ONCE = 8
"""Per session and direction; a peer that has more outstanding breaks the protocol."""
_MAX_POSTED = 8192
_BULK_QUEUE = 4
_STRIKES = 3
"""Wrong replies after which the peer is dropped."""

Handler = Callable[["Session", AnyMessage, bytes], Awaitable[None]]


class SessionClosedError(P2psyncError):
    """The link to the peer ended before it answered."""


class Session:
    def __init__(self, link: Link, hello: Hello, clock: Clock) -> None:
        self.link = link
        self.peer: DeviceID = link.peer
        self._clock = clock
        self._connection = PeerConnection(hello, clock.monotonic())
        self._posted: deque[tuple[AnyMessage, bytes]] = deque()
        self._bulk: deque[tuple[AnyMessage, bytes]] = deque()
        self._bulk_room = asyncio.Semaphore(_BULK_QUEUE)
        self._to_send = asyncio.Event()
        self._requests: dict[int, asyncio.Future[tuple[AnyMessage, bytes]]] = {}
        self._request_room = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._next_request = 1
        self._strikes = 0
        self._dropped: str | None = None
        self._dropping = asyncio.Event()
        self.closed = asyncio.Event()
        self.ready = False
        """Whether the peer has introduced itself."""

    async def run(self, handle: Handler) -> str:
        """Serve the link until it ends; the reason, as a sentence. Never raises but on cancel."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self.link.send([self._connection.opening()])
            # Each ends when the link fails, the peer breaks the protocol or `drop` is called.
            tasks = [
                asyncio.create_task(part, name=name)
                for name, part in (
                    ("session-read", self._read(handle)),
                    ("session-write", self._write()),
                    ("session-timer", self._watch()),
                    ("session-drop", self._wait_for_drop()),
                )
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return self._reason(done)
        except (P2psyncError, OSError) as error:
            return str(error)
        finally:
            self.closed.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for waiting in self._requests.values():
                if not waiting.done():
                    waiting.set_exception(SessionClosedError("The connection to the peer ended."))
            await self.link.close()

    def _reason(self, done: set[asyncio.Task[None]]) -> str:
        for task in done:
            error = task.exception()
            if isinstance(error, P2psyncError | OSError):
                return str(error)
            if error is not None:
                raise error
        return self._dropped or "The peer closed the connection."

    def drop(self, reason: str) -> None:
        """End the session soon, telling the peer why."""
        if self._dropped is None:
            self._dropped = reason
            self._dropping.set()

    def strike(self) -> None:
        """Count a wrong reply; too many end the session."""
        self._strikes += 1
        if self._strikes >= _STRIKES:
            self.drop("The peer sent wrong data several times.")

    def post(self, message: AnyMessage, payload: bytes = b"") -> None:
        """Send without waiting. Raises RemoteProtocolError when the peer reads nothing."""
        if len(self._posted) >= _MAX_POSTED:
            raise RemoteProtocolError("The peer does not read what it asks for.")
        self._posted.append((message, payload))
        self._to_send.set()

    async def send(self, message: AnyMessage, payload: bytes = b"") -> None:
        """Send after what is queued; waits while the queue is full. Not for the reader's use."""
        await self._bulk_room.acquire()
        self._bulk.append((message, payload))
        self._to_send.set()

    async def request_chunks(self, folder: str, digests: Sequence[Digest]) -> list[bytes | None]:
        """The chunks in the order asked for, None for what the peer lacks; unverified.

        Raises SessionClosedError and TimeoutError.
        """
        number = self._number()
        reply, payload = await self._ask(number, ChunkRequest(number, folder, tuple(digests)))
        if not isinstance(reply, ChunkReply) or len(reply.sizes) != len(digests):
            raise self._wrong_reply()
        if any(size < MISSING for size in reply.sizes):
            raise self._wrong_reply()
        if sum(size for size in reply.sizes if size != MISSING) != len(payload):
            raise self._wrong_reply()
        chunks: list[bytes | None] = []
        at = 0
        for size in reply.sizes:
            if size == MISSING:
                chunks.append(None)
            else:
                chunks.append(payload[at : at + size])
                at += size
        return chunks

    async def request_manifest(self, folder: str, content: bytes) -> Manifest | None:
        """Unverified. Raises SessionClosedError and TimeoutError."""
        number = self._number()
        reply, payload = await self._ask(number, ManifestRequest(number, folder, content))
        if not isinstance(reply, ManifestReply):
            raise self._wrong_reply()
        return decode_manifest(payload) if payload else None

    def _wrong_reply(self) -> SessionClosedError:
        self.drop("The peer sent a reply that does not fit its request.")
        return SessionClosedError("The peer sent a reply that does not fit its request.")

    def _number(self) -> int:
        self._next_request += 1
        return self._next_request

    async def _ask(self, number: int, message: AnyMessage) -> tuple[AnyMessage, bytes]:
        async with self._request_room:
            if self.closed.is_set():
                raise SessionClosedError("The connection to the peer ended.")
            self._requests[number] = asyncio.get_running_loop().create_future()
            try:
                self.post(message)
                async with asyncio.timeout(REQUEST_SECONDS):
                    return await self._requests[number]
            finally:
                del self._requests[number]

    async def _read(self, handle: Handler) -> None:
        while data := await self.link.receive():
            self._connection.receive_data(data, self._clock.monotonic())
            while (event := self._connection.next_event()) is not None:
                message, payload = event
                if isinstance(message, Goodbye):
                    raise SessionClosedError(f"The peer closed the connection: {message.reason}")
                if (answer := PeerConnection.reply_to(message)) is not None:
                    self.post(answer)
                elif isinstance(message, ChunkReply | ManifestReply):
                    waiting = self._requests.get(message.request)
                    # A reply may come after its request timed out.
                    if waiting is not None and not waiting.done():
                        waiting.set_result((message, payload))
                else:
                    self.ready = True
                    await handle(self, message, payload)

    async def _write(self) -> None:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            while self._posted or self._bulk:
                frames: list[bytes | memoryview] = []
                while self._posted and len(frames) < 64:
                    frames += self._frame(*self._posted.popleft())
                if self._bulk:
                    frames += self._frame(*self._bulk.popleft())
                    self._bulk_room.release()
                await self.link.send(frames)

    @staticmethod
    def _frame(message: AnyMessage, payload: bytes) -> list[bytes | memoryview]:
        head = encode_frame(message, payload)
        return [head, payload] if payload else [head]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._connection.next_timeout() - self._clock.monotonic()))
            for message in self._connection.handle_timeout(self._clock.monotonic()):
                self.post(message)

    async def _wait_for_drop(self) -> None:
        await self._dropping.wait()
        with contextlib.suppress(TimeoutError, P2psyncError, OSError):
            async with asyncio.timeout(1.0):
                await self.link.send([encode_frame(Goodbye((self._dropped or "")[:300]))])

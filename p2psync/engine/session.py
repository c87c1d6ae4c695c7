"""One link's life: messages in and out, requests and their replies, a sign of life.

Goals: a reply finds its request, a lost link fails every waiting request at once, a dead peer is
noticed, bulk never delays control messages by more than one frame. Non-goals: what any message
means for folders (`exchange`, `supplier`) or membership (`cluster`).

The reader never waits for the writer: two devices that both waited so would wait for ever. What
the reader itself causes to be sent is posted to a queue whose overflow ends the session, or is the
work of a task (`answer`), of which a peer may have few.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NoReturn

from p2psync.core.entry import Manifest
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.manifest import decode_manifest
from p2psync.core.window import Window
from p2psync.engine.packing import Packing
from p2psync.engine.tasks import together
from p2psync.errors import P2psyncError
from p2psync.ports import Clock, Link
from p2psync.protocol.chunks import Data, cut_chunks
from p2psync.protocol.connection import DEAD_AFTER, PeerConnection
from p2psync.protocol.messages import (
    ZSTD,
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    Goodbye,
    Hello,
    Holding,
    ManifestReply,
    ManifestRequest,
    Ping,
    Roster,
)
from p2psync.protocol.wire import RemoteProtocolError, encode_frame

PATIENCE_S = 5.0
"""How long a reply is waited for while hardly anything comes from the peer. It may be at work or
stand still: others are asked, and it is not until it has answered."""
_SLOWEST = 4 * 1024
"""Bytes in that time which show that replies are on their way through a slow network."""
_LONGEST_REQUEST = 120
"""Times PATIENCE_S."""
_OWING_S = 60.0
"""A peer that answers nothing for so long is dropped."""
REQUESTS_AT_ONCE = 8
"""Outstanding per session and direction."""
_MOST_REQUESTS = 4 * REQUESTS_AT_ONCE
"""The peer may have given up on some that are still being answered; beyond, it is dropped."""
_ANSWERED_AT_ONCE = 4
_LAST_WORDS_S = 1.0
_MAX_POSTED = 8192
_BULK_QUEUE = 4
_STRIKES = 3
"""Wrong replies after which the peer is dropped."""
_UNREAD_S = 600.0
"""A peer may be busy with its disk for minutes. One that takes not a byte for so long would have us
hold what waits for it, some 250 MiB at worst, for as long as it likes."""

Reply = tuple[AnyMessage, Sequence[bytes]]
"""A message and the pieces of its payload."""
Handler = Callable[["Session", AnyMessage, bytes], Awaitable[None]]


def _is_replaced(message: AnyMessage, *, by: Roster | Holding) -> bool:
    if isinstance(message, Holding) and isinstance(by, Holding):
        return message.folder == by.folder
    return isinstance(message, Roster) and isinstance(by, Roster)


class SessionClosedError(P2psyncError):
    """The link to the peer ended before it answered."""


class Session:
    def __init__(self, link: Link, hello: Hello, clock: Clock) -> None:
        self.link = link
        self.peer: DeviceID = link.peer
        self._clock = clock
        self._connection = PeerConnection(hello, clock.monotonic())
        self._posted: deque[Reply] = deque()
        self._bulk: deque[Reply] = deque()
        self._bulk_room = asyncio.Semaphore(_BULK_QUEUE)
        self._packing = Packing(clock)
        self._to_send = asyncio.Event()
        self._requests: dict[int, asyncio.Future[tuple[AnyMessage, bytes]]] = {}
        self._request_room = asyncio.Semaphore(REQUESTS_AT_ONCE)
        self._owed: set[int] = set()
        """Requests that are no longer waited for."""
        self._owing_since = 0.0
        self.lapses = 0
        """How often it began to owe answers."""
        self.caught_up: set[Callable[[], None]] = set()
        """Called when the peer has answered all that it owed."""
        self._next_request = 1
        self._tasks: asyncio.TaskGroup | None = None
        self._reading: asyncio.Task[NoReturn] | None = None
        self._sending = False
        self._began = clock.monotonic()
        self._taken = (0, self._began)
        """Bytes that the peer took, and when there were last more of them or nothing to send."""
        self._answer_room = asyncio.Semaphore(_ANSWERED_AT_ONCE)
        self._answers = 0
        self._handling = False
        self._strikes = 0
        self.window = Window()
        """Of requests for chunks, by what came of those so far."""
        self._dropped: str | None = None
        self._dropping = asyncio.Event()
        self.closed = asyncio.Event()
        self.ready = False
        """Whether the peer has introduced itself."""

    async def run(self, handle: Handler) -> str:
        """Serve the link until it ends; the reason, as a sentence. Never raises but on cancel."""
        try:
            await self.link.send([self._connection.opening()])
            # Each raises when the link fails, the peer breaks the protocol or `drop` is called.
            async with together() as tasks:
                self._tasks = tasks
                self._reading = tasks.create_task(self._read(handle), name="session-read")
                tasks.create_task(self._write(), name="session-write")
                tasks.create_task(self._watch(), name="session-timer")
                tasks.create_task(self._leave(), name="session-leave")
            raise AssertionError("each of the tasks raises")
        except (P2psyncError, OSError) as error:
            return self._dropped or str(error)
        finally:
            self.closed.set()
            self._tasks = None
            for waiting in self._requests.values():
                if not waiting.done():
                    waiting.set_exception(SessionClosedError("The connection to the peer ended."))
            # Whoever waits for room sees that it is over and passes the room on.
            self._bulk_room.release()
            # What ended in an error may be held for a while, until the garbage collector comes.
            self._connection.end()
            self._posted.clear()
            self._bulk.clear()
            await self.link.close()

    @property
    def features(self) -> tuple[str, ...]:
        """What the peer said that it understands."""
        hello = self._connection.peer_hello
        return hello.features if hello is not None else ()

    @property
    def packing(self) -> Packing | None:
        """What compresses chunks for the peer, if it understands that."""
        return self._packing if ZSTD in self.features else None

    @property
    def has_ended(self) -> bool:
        """Or is about to: nothing more is to come of it."""
        return self._dropped is not None or self.closed.is_set()

    @property
    def owes(self) -> bool:
        """Whether the peer left a request unanswered, so that it is of no use to ask it more."""
        return bool(self._owed)

    def drop(self, reason: str) -> None:
        """End the session soon, telling the peer why. Nothing that it says is acted on any more,
        not even what is half worked on: it may be a device that was removed just now."""
        if self._dropped is None:
            self._dropped = reason
            self._dropping.set()
            self._to_send.set()
            if self._reading is not None:
                self._reading.cancel()

    def strike(self) -> None:
        """Count a wrong reply; too many end the session."""
        self._strikes += 1
        if self._strikes >= _STRIKES:
            self.drop("The peer sent wrong data several times.")

    def post(self, message: AnyMessage, *payload: bytes) -> None:
        """Send without waiting. A peer that reads nothing of it is dropped."""
        if self.closed.is_set():
            return
        if len(self._posted) >= _MAX_POSTED:
            self.drop("The peer does not read what it asks for.")
            return
        if isinstance(message, Roster | Holding):
            # Large, and each holds all that the one before it did.
            self._posted = deque(
                one for one in self._posted if not _is_replaced(one[0], by=message)
            )
        self._posted.append((message, payload))
        self._to_send.set()

    async def send(self, message: AnyMessage, *payload: bytes) -> None:
        """Send after what is queued; waits while the queue is full. Not for the reader's use.

        Raises SessionClosedError.
        """
        await self._bulk_room.acquire()
        if self.closed.is_set():
            self._bulk_room.release()
            raise SessionClosedError("The connection to the peer ended.")
        self._bulk.append((message, payload))
        self._to_send.set()

    def answer(self, reply: Coroutine[Any, Any, Reply]) -> None:
        """Send what `reply` comes to, while the reader goes on. Few are worked on at a time, and a
        peer that asks for far more is dropped."""
        if self._answers >= _MOST_REQUESTS:
            self.drop("The peer asks for more at once than the protocol allows.")
        if self._tasks is None or self._dropped is not None:
            reply.close()
            return
        work = self._answer(reply)
        try:
            task = self._tasks.create_task(work, name="session-answer")
        except RuntimeError:
            # The tasks are being cancelled.
            work.close()
            reply.close()
            return
        self._answers += 1
        task.add_done_callback(lambda _: self._answered(reply))

    async def _answer(self, reply: Coroutine[Any, Any, Reply]) -> None:
        async with self._answer_room:
            message, payload = await reply
            await self.send(message, *payload)

    def _answered(self, reply: Coroutine[Any, Any, Reply]) -> None:
        self._answers -= 1
        # It may never have been begun.
        reply.close()

    async def request_chunks(self, folder: str, digests: Sequence[Digest]) -> list[Data | None]:
        """The chunks in the order asked for, None for what the peer lacks; unverified.

        Raises SessionClosedError and TimeoutError.
        """
        number = self._number()
        reply, payload = await self._ask(number, ChunkRequest(number, folder, tuple(digests)))
        if not isinstance(reply, ChunkReply):
            raise self._wrong_reply()
        try:
            if reply.packed:
                return await asyncio.to_thread(cut_chunks, reply, len(digests), payload)
            return cut_chunks(reply, len(digests), payload)
        except RemoteProtocolError as error:
            raise self._wrong_reply() from error

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
            waiting: asyncio.Future[tuple[AnyMessage, bytes]]
            waiting = asyncio.get_running_loop().create_future()
            self._requests[number] = waiting
            try:
                self.post(message)
                await self._reply_came(waiting)
                return waiting.result()
            except TimeoutError:
                if not self._owed:
                    self.lapses += 1
                    self._owing_since = self._clock.monotonic()
                self._owed.add(number)
                raise
            finally:
                del self._requests[number]

    async def _reply_came(self, waiting: asyncio.Future[tuple[AnyMessage, bytes]]) -> None:
        """Raises TimeoutError when the peer seems to have nothing to say to it."""
        received = self.link.bytes_received
        for _ in range(_LONGEST_REQUEST):
            done, _ = await asyncio.wait([waiting], timeout=PATIENCE_S)
            if done:
                return
            before, received = received, self.link.bytes_received
            # What is being worked on holds up the reader: that is no silence of the peer.
            if received - before < _SLOWEST and not self._handling:
                break
        raise TimeoutError

    async def _read(self, handle: Handler) -> NoReturn:
        while data := await self.link.receive():
            self._connection.receive_data(data, self._clock.monotonic())
            while (event := self._connection.next_event()) is not None:
                await self._take(handle, *event)
        raise SessionClosedError("The peer closed the connection.")

    async def _take(self, handle: Handler, message: AnyMessage, payload: bytes) -> None:
        if self._dropped is not None:
            # The cancellation comes at the next wait, and the next message may come before.
            return
        if isinstance(message, Goodbye):
            raise SessionClosedError(f"The peer closed the connection: {message.reason}")
        if (answer := PeerConnection.reply_to(message)) is not None:
            self.post(answer)
        elif isinstance(message, ChunkReply | ManifestReply):
            self._reply(message, payload)
        else:
            self.ready = True
            self._handling = True
            try:
                await handle(self, message, payload)
            finally:
                self._handling = False

    def _reply(self, message: ChunkReply | ManifestReply, payload: bytes) -> None:
        waiting = self._requests.get(message.request)
        if waiting is not None and not waiting.done():
            waiting.set_result((message, payload))
        elif message.request in self._owed:
            self._owed.remove(message.request)
            self._owing_since = self._clock.monotonic()
            if not self._owed:
                for tell in list(self.caught_up):
                    tell()

    async def _write(self) -> NoReturn:
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            while (self._posted or self._bulk) and self._dropped is None:
                frames: list[bytes | memoryview] = []
                while self._posted and len(frames) < 64:
                    frames += self._frame(*self._posted.popleft())
                if self._bulk:
                    frames += self._frame(*self._bulk.popleft())
                    self._bulk_room.release()
                self._sending = True
                began = self._clock.monotonic()
                await self.link.send(frames)
                self._packing.sent(sum(map(len, frames)), self._clock.monotonic() - began)
                self._sending = False
            if self._dropped is not None:
                await self.link.send([encode_frame(Goodbye(self._dropped[:300]))])
                raise SessionClosedError(self._dropped)

    @staticmethod
    def _frame(message: AnyMessage, payload: Sequence[bytes]) -> list[bytes | memoryview]:
        return [encode_frame(message, *payload), *payload]

    async def _watch(self) -> NoReturn:
        while True:
            due = self._connection.next_timeout()
            awaited = self._connection.peer_hello is None and not self._handling
            if awaited:
                due = min(due, self._began + DEAD_AFTER)
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))
            now = self._clock.monotonic()
            if awaited and now >= self._began + DEAD_AFTER:
                # Byte by byte it would never be silent, and hold the link for ever.
                raise SessionClosedError("The peer did not introduce itself and stayed silent.")
            if self._handling:
                # What the peer said is still being worked on, so its silence tells nothing; and
                # nothing but this shows it that we live.
                self._connection.receive_data(b"", now)
                self.post(Ping())
            for message in self._connection.handle_timeout(now):
                self.post(message)
            if self._owed and not self._handling and now - self._owing_since >= _OWING_S:
                raise SessionClosedError("The peer does not answer what it is asked.")
            taken, since = self._taken
            if not self._sending or taken != self.link.bytes_sent:
                self._taken = (self.link.bytes_sent, now)
            elif now - since >= _UNREAD_S:
                raise SessionClosedError("The peer does not read what is sent to it.")

    async def _leave(self) -> NoReturn:
        """End soon after `drop`, even if the peer takes no goodbye."""
        await self._dropping.wait()
        await asyncio.sleep(_LAST_WORDS_S)
        raise SessionClosedError(self._dropped or "")

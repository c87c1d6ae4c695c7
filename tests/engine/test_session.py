import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NoReturn

import blake3
import pytest

from p2psync.core.entry import SINGLE_CHUNK_MAX, Chunk
from p2psync.core.ids import Digest
from p2psync.core.manifest import encode_manifest
from p2psync.engine import session as module
from p2psync.engine.session import REQUESTS_AT_ONCE, Reply, Session, SessionClosedError
from p2psync.protocol.chunks import Data, cut_chunks, packer
from p2psync.protocol.connection import DEAD_AFTER, PING_AFTER
from p2psync.protocol.messages import (
    MISSING,
    PROTOCOL_VERSION,
    ZSTD,
    AnyMessage,
    ChunkReply,
    ChunkRequest,
    Hello,
    ManifestReply,
    ManifestRequest,
    Ping,
    Roster,
    Status,
)
from p2psync.protocol.wire import encode_frame
from tests.support.devices import device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_link import MemoryLink, linked

ADA, BOB = device_id("ada"), device_id("bob")
HELLO = Hello(PROTOCOL_VERSION, (), "test", b"\0" * 32, 0)
ONE = Digest(blake3.blake3(b"one").digest())
BOMB = packer()(bytes(1024 * 1024))
TWO = Digest(blake3.blake3(b"two").digest())

Answer = Callable[[Session, AnyMessage, bytes], Awaitable[None]]


class Side:
    """A session that runs, and what it was sent."""

    def __init__(self, link: MemoryLink, clock: ManualClock, *features: str) -> None:
        hello = Hello(PROTOCOL_VERSION, features, "test", b"\0" * 32, 0)
        self.session = Session(link, hello, clock)
        self.heard: list[AnyMessage] = []
        self.handle: Answer | None = None
        self._changed = asyncio.Event()
        self.running = asyncio.create_task(self.session.run(self._handle))

    async def _handle(self, session: Session, message: AnyMessage, payload: bytes) -> None:
        self.heard.append(message)
        self._changed.set()
        if self.handle is not None:
            await self.handle(session, message, payload)

    async def hears(self, count: int) -> list[AnyMessage]:
        """The messages but for the first Hello, once there are so many."""
        async with asyncio.timeout(2):
            while len(self.heard) <= count:
                self._changed.clear()
                await self._changed.wait()
        return self.heard[1:]

    async def ends(self) -> str:
        async with asyncio.timeout(2):
            return await self.running


class Pair:
    def __init__(self, *features: str) -> None:
        self.clock = ManualClock()
        links = linked(ADA, BOB)
        self.link, self.link_of_bob = links
        self.ada = Side(links[0], self.clock, *features)
        self.bob = Side(links[1], self.clock)


@contextlib.asynccontextmanager
async def running(pair: Pair) -> AsyncIterator[Pair]:
    yield pair
    for side in (pair.ada, pair.bob):
        side.running.cancel()
    await asyncio.gather(pair.ada.running, pair.bob.running, return_exceptions=True)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with running(Pair()) as pair:
        yield pair


def status(number: int) -> Status:
    return Status("folder", number, 0)


def serving(chunks: dict[bytes, bytes]) -> Answer:
    async def reply(request: ChunkRequest) -> Reply:
        found = [chunks.get(digest) for digest in request.digests]
        sizes = tuple(MISSING if data is None else len(data) for data in found)
        return ChunkReply(request.request, sizes), [data for data in found if data]

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, ChunkRequest):
            session.answer(reply(message))

    return handle


async def test_what_is_posted_and_sent_arrives_in_order(pair: Pair) -> None:
    for number in range(50):
        pair.ada.session.post(status(number))
    assert await pair.bob.hears(50) == [status(number) for number in range(50)]
    for number in range(20):
        await pair.ada.session.send(status(number), b"x" * 1000)
    assert (await pair.bob.hears(70))[50:] == [status(number) for number in range(20)]


async def test_a_post_passes_what_waits_to_be_sent(pair: Pair) -> None:
    await pair.link.stall()
    bulk = asyncio.gather(*(pair.ada.session.send(status(n), bytes(100_000)) for n in range(10)))
    for _ in range(20):
        await asyncio.sleep(0)
    pair.ada.session.post(status(99))
    await pair.link.flow()
    await bulk
    heard = await pair.bob.hears(11)
    assert heard.index(status(99)) < 7


async def test_each_reply_finds_its_request(pair: Pair) -> None:
    pair.bob.handle = serving({ONE: b"one", TWO: b"two"})
    ask = pair.ada.session.request_chunks
    async with asyncio.timeout(2):
        answers = await asyncio.gather(*(ask("f", [digest]) for digest in (ONE, TWO) * 20))
    assert answers == [[b"one"], [b"two"]] * 20


async def test_chunks_that_are_missing_are_told_apart(pair: Pair) -> None:
    pair.bob.handle = serving({ONE: b"one", TWO: b""})
    none = Digest(bytes(32))
    assert await pair.ada.session.request_chunks("f", [none, ONE, none, TWO]) == [
        None,
        b"one",
        None,
        b"",
    ]


async def test_a_manifest_is_asked_for_and_read(pair: Pair) -> None:
    manifest = (Chunk(ONE, SINGLE_CHUNK_MAX), Chunk(TWO, 3))

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, ManifestRequest):
            known = message.content == ONE
            session.post(
                ManifestReply(message.request), encode_manifest(manifest) if known else b""
            )

    pair.bob.handle = handle
    assert await pair.ada.session.request_manifest("f", ONE) == manifest
    assert await pair.ada.session.request_manifest("f", TWO) is None


@pytest.mark.parametrize(
    "reply",
    [
        (ManifestReply(2), b""),
        (ChunkReply(2, (3, 3)), b"oneone"),
        (ChunkReply(2, (3,)), b"on"),
        (ChunkReply(2, (-2,)), b""),
        (ChunkReply(2, (-1,)), b"one"),
        (ChunkReply(2, (3,), (3, 3)), b"oneone"),
        (ChunkReply(2, (300,), (9,)), b"no frame."),
        (ChunkReply(2, (300,), (len(BOMB),)), BOMB),
    ],
)
async def test_a_reply_that_does_not_fit_ends_the_session(
    pair: Pair, reply: tuple[AnyMessage, bytes]
) -> None:
    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, ChunkRequest):
            session.post(*reply)

    pair.bob.handle = handle
    with pytest.raises(SessionClosedError):
        await pair.ada.session.request_chunks("f", [ONE])
    assert "does not fit" in await pair.ada.ends()
    assert "does not fit" in await pair.bob.ends()


# --- compression ------------------------------------------------------------------------------


@pytest.fixture
async def understanding() -> AsyncIterator[Pair]:
    """Ada says that she understands what is packed."""
    async with running(Pair(ZSTD)) as pair:
        yield pair


def packing(data: bytes, said: list[ChunkReply]) -> Answer:
    """Answers each request for a chunk with these bytes, packed where the session says so."""

    async def reply(session: Session, request: ChunkRequest) -> Reply:
        payload: Sequence[bytes] = [data]
        lengths: tuple[int, ...] = ()
        if session.packing is not None and (attempt := session.packing.attempt()) is not None:
            packed = attempt.pack([data])
            session.packing.learn(packed)
            payload, lengths = packed.payload, packed.lengths
        said.append(ChunkReply(request.request, (len(data),), lengths))
        return said[-1], payload

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, ChunkRequest):
            session.answer(reply(session, message))

    return handle


async def asked(pair: Pair, rate: float) -> list[ChunkReply]:
    """What bob replies to a few requests for a text, over a link that takes so many bytes a
    second."""
    said: list[ChunkReply] = []
    text = b"said and said again, " * 20_000
    pair.bob.handle = packing(text, said)
    pair.link_of_bob.takes = lambda size: pair.clock.advance(size / rate)
    for _ in range(6):
        assert await pair.ada.session.request_chunks("f", [ONE]) == [text]
    return said


async def test_over_a_slow_link_chunks_are_sent_packed(understanding: Pair) -> None:
    said = await asked(understanding, rate=10e6)
    # Until the rate is known nothing is.
    assert [bool(reply.packed) for reply in said] == [False] * 3 + [True] * 3


async def test_what_is_packed_is_unpacked_beside_the_loop(
    understanding: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def cut(reply: ChunkReply, asked: int, payload: bytes) -> list[Data | None]:
        if reply.packed:
            threads.append(threading.current_thread())
        return cut_chunks(reply, asked, payload)

    monkeypatch.setattr(module, "cut_chunks", cut)
    await asked(understanding, rate=10e6)
    assert threads and threading.main_thread() not in threads


async def test_over_a_fast_link_nothing_is_packed(understanding: Pair) -> None:
    assert not any(reply.packed for reply in await asked(understanding, rate=500e6))


async def test_a_peer_that_does_not_say_that_it_understands_gets_nothing_packed(
    pair: Pair,
) -> None:
    assert not any(reply.packed for reply in await asked(pair, rate=10e6))


async def test_a_lost_link_fails_whoever_waits(pair: Pair) -> None:
    await pair.bob.hears(0)
    await pair.link.stall()
    asking = [
        asyncio.create_task(pair.ada.session.request_chunks("f", [ONE]))
        for _ in range(REQUESTS_AT_ONCE + 5)
    ]
    sending = [
        asyncio.create_task(pair.ada.session.send(status(1), bytes(70_000))) for _ in range(20)
    ]
    for _ in range(20):
        await asyncio.sleep(0)
    await pair.link.cut()
    await pair.ada.ends()
    async with asyncio.timeout(2):
        results = await asyncio.gather(*asking, *sending, return_exceptions=True)
    assert all(isinstance(each, SessionClosedError) or each is None for each in results)
    assert all(isinstance(each, SessionClosedError) for each in results[: len(asking)])
    assert isinstance(results[-1], SessionClosedError)
    with pytest.raises(SessionClosedError):
        await pair.ada.session.send(status(2))
    pair.ada.session.post(status(3))


async def test_a_request_without_a_reply_times_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    with pytest.raises(TimeoutError):
        await pair.ada.session.request_chunks("f", [ONE])
    assert not pair.ada.running.done()


async def unanswered(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> ChunkRequest:
    """Ada has asked bob for something, and waited long enough."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    with pytest.raises(TimeoutError):
        await pair.ada.session.request_chunks("f", [ONE])
    (request,) = await pair.bob.hears(1)
    assert isinstance(request, ChunkRequest)
    return request


async def given_up(pair: Pair, pause_s: float, lates: Sequence[bool]) -> asyncio.Task[NoReturn]:
    """Time passes while bob shows that it lives: after each pause, whether ada's timer gives it
    up. The timer as it was last."""
    session = pair.ada.session
    for late in lates:
        pair.clock.advance(pause_s)
        session._connection.receive_data(b"", pair.clock.monotonic() - PING_AFTER)
        timer = asyncio.create_task(session._watch())
        for _ in range(20):
            await asyncio.sleep(0)
        assert timer.done() == late
        timer.cancel()
    return timer


async def test_a_peer_owes_its_answer_until_it_comes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()
    pair.ada.session.caught_up.add(told.set)
    assert not pair.ada.session.owes
    request = await unanswered(pair, monkeypatch)
    assert pair.ada.session.owes
    pair.bob.session.post(ChunkReply(request.request + 1, ()))
    pair.bob.session.post(status(0))
    await pair.ada.hears(1)
    assert pair.ada.session.owes
    assert not told.is_set()
    pair.bob.session.post(ChunkReply(request.request, (3,)), b"one")
    async with asyncio.timeout(2):
        await told.wait()
    assert not pair.ada.session.owes


async def test_a_peer_that_talks_and_does_not_answer_is_given_up_in_the_end(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.ada.hears(0)
    await unanswered(pair, monkeypatch)
    timer = await given_up(pair, module._OWING_S / 2 + 1, [False, True])
    with pytest.raises(SessionClosedError, match="does not answer"):
        await timer


async def test_what_is_being_worked_on_is_no_silence_of_the_peer(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def work(session: Session, message: AnyMessage, payload: bytes) -> None:
        begun.set()
        await go_on.wait()

    await pair.ada.hears(0)
    pair.ada.handle = work
    pair.bob.session.post(status(0))
    await begun.wait()
    asking = asyncio.create_task(pair.ada.session.request_chunks("f", [ONE]))
    request = (await pair.bob.hears(1))[0]
    assert isinstance(request, ChunkRequest)
    pair.bob.session.post(ChunkReply(request.request, (3,)), b"one")
    done, _ = await asyncio.wait([asking], timeout=0.1)
    assert not done
    go_on.set()
    assert await asking == [b"one"]


async def test_a_reply_may_take_long_through_a_slow_network(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)
    asking = asyncio.create_task(pair.ada.session.request_chunks("f", [ONE]))
    await pair.bob.hears(1)
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.06
    while loop.time() < until:
        await pair.bob.session.send(status(0), bytes(100_000))
    assert not asking.done()
    request = pair.bob.heard[1]
    assert isinstance(request, ChunkRequest)
    pair.bob.session.post(ChunkReply(request.request, (3,)), b"one")
    assert await asking == [b"one"]


async def test_the_reader_goes_on_while_an_answer_is_made(pair: Pair) -> None:
    go_on = asyncio.Event()

    async def slow() -> Reply:
        await go_on.wait()
        return status(2), []

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        if message == status(0):
            session.answer(slow())

    pair.bob.handle = handle
    pair.ada.session.post(status(0))
    pair.ada.session.post(status(1))
    await pair.bob.hears(2)
    go_on.set()
    assert await pair.ada.hears(1) == [status(2)]


async def test_few_answers_are_made_at_a_time_and_a_flood_ends_the_session(pair: Pair) -> None:
    under_way = most = 0
    never = asyncio.Event()

    async def slow() -> Reply:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await never.wait()
        return status(2), []

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, Status):
            session.answer(slow())

    pair.bob.handle = handle
    for _ in range(100):
        pair.ada.session.post(status(0))
    assert "more at once" in await pair.bob.ends()
    assert "more at once" in await pair.ada.ends()
    assert most == 4


async def test_an_answer_that_fails_ends_the_session_with_its_reason(pair: Pair) -> None:
    async def failing() -> Reply:
        raise SessionClosedError("The index is damaged.")

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        if isinstance(message, Status):
            session.answer(failing())

    pair.bob.handle = handle
    pair.ada.session.post(status(0))
    assert await pair.bob.ends() == "The index is damaged."


async def test_both_sides_know_why_a_session_was_dropped(pair: Pair) -> None:
    pair.ada.session.drop("This device is stopping.")
    assert await pair.ada.ends() == "This device is stopping."
    assert "This device is stopping." in await pair.bob.ends()


async def test_a_drop_ends_the_session_though_the_peer_reads_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LAST_WORDS_S", 0.02)
    await pair.link.stall()
    pair.ada.session.post(status(0), bytes(1_000_000))
    for _ in range(10):
        await asyncio.sleep(0)
    pair.ada.session.drop("Enough.")
    assert await pair.ada.ends() == "Enough."


async def test_three_wrong_replies_end_the_session(pair: Pair) -> None:
    for _ in range(3):
        pair.ada.session.strike()
    assert "wrong data" in await pair.ada.ends()


async def test_a_peer_that_reads_nothing_of_what_it_asks_for_is_dropped(pair: Pair) -> None:
    await pair.link.stall()
    for _ in range(20_000):
        pair.ada.session.post(status(0), bytes(100))
    assert "does not read" in await pair.ada.ends()


async def test_a_silent_peer_is_noticed() -> None:
    clock = ManualClock()
    link, _ = linked(ADA, BOB)
    session = Session(link, HELLO, clock)
    # As if the time had passed before the timer was set.
    clock.advance(20)

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        raise AssertionError("nothing came")

    async with asyncio.timeout(2):
        assert "silent" in await session.run(handle)


async def test_a_peer_is_not_silent_while_its_message_is_being_worked_on(pair: Pair) -> None:
    go_on = asyncio.Event()
    watching = Session(linked(ADA, BOB)[0], HELLO, pair.clock)

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        await go_on.wait()

    taking = asyncio.create_task(watching._take(handle, status(0), b""))
    await asyncio.sleep(0)
    pair.clock.advance(20)
    timer = asyncio.create_task(watching._watch())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not timer.done()
    assert Ping() in [message for message, _ in watching._posted]
    go_on.set()
    await taking
    timer.cancel()


async def test_a_malformed_frame_ends_the_session_with_a_reason() -> None:
    ours, theirs = linked(ADA, BOB)
    session = Session(ours, HELLO, ManualClock())

    async def handle(session: Session, message: AnyMessage, payload: bytes) -> None:
        pass

    running = asyncio.create_task(session.run(handle))
    await theirs.send([encode_frame(HELLO), b"\xff" * 20])
    async with asyncio.timeout(2):
        assert "larger than the protocol allows" in await running


async def test_a_peer_that_introduces_itself_byte_by_byte_is_given_up() -> None:
    clock = ManualClock()
    session = Session(linked(ADA, BOB)[0], HELLO, clock)
    clock.advance(DEAD_AFTER)
    session._connection.receive_data(b"\0", clock.monotonic())
    async with asyncio.timeout(2):
        with pytest.raises(SessionClosedError, match="introduce"):
            await session._watch()


async def test_a_peer_that_talks_and_takes_nothing_is_given_up_in_the_end(pair: Pair) -> None:
    await pair.ada.hears(0)
    session = pair.ada.session
    await pair.link.stall()
    await session.send(status(0), bytes(200_000))
    for _ in range(20):
        await asyncio.sleep(0)
    timer = await given_up(pair, module._UNREAD_S / 2 + 1, [False, False, True])
    with pytest.raises(SessionClosedError, match="does not read"):
        await timer


async def test_of_rosters_that_wait_only_the_latest_is_sent(pair: Pair) -> None:
    for number in range(3):
        pair.ada.session.post(Roster(), bytes(number))
        pair.ada.session.post(status(number))
    assert await pair.bob.hears(4) == [status(0), status(1), Roster(), status(2)]


async def test_an_ended_session_keeps_nothing_of_what_was_half_said(pair: Pair) -> None:
    """Whoever holds it, as an error that tells how it ended, must not hold megabytes."""
    session = pair.bob.session
    whole = encode_frame(ChunkReply(1, (10**6,)), bytes(10**6)) + bytes(10**6)
    await pair.ada.session.link.send([whole[:-1]])
    reader = session._connection._reader
    for _ in range(1000):
        # As often as it takes the reader to come to its end.
        await asyncio.sleep(0)
    assert reader._size > 10**6
    pair.ada.session.drop("That was all.")
    await session.closed.wait()
    assert reader._size == len(reader._came) == 0

import asyncio
import errno
import os
import threading
from collections.abc import Sequence
from typing import cast

import blake3
import pytest

from p2psync.core.ids import DeviceID, Digest
from p2psync.core.window import LARGE_REQUEST_BYTES, MOST, REQUEST_BYTES, Window
from p2psync.engine.fetch import Chunks, Need, fetch_chunks
from p2psync.engine.session import Session, SessionClosedError
from p2psync.protocol.chunks import Data
from tests.support.devices import device_id


def digest_of(data: Data) -> Digest:
    return Digest(blake3.blake3(data).digest())


def data_of(number: int, size: int = 1000) -> bytes:
    return f"{number:08}".encode() * (size // 8)


class Peer:
    """As much of a session as a fetch uses."""

    def __init__(self, name: str, chunks: Sequence[bytes]) -> None:
        self.peer = device_id(name)
        self.chunks = {digest_of(data): data for data in chunks}
        self.lies: set[Digest] = set()
        self.asked: list[list[Digest]] = []
        self.strikes = 0
        self.under_way = self.most = 0
        self.fails_after: int | None = None
        self.error: Exception = SessionClosedError("gone")
        self.gate: asyncio.Event | None = None
        self.was_asked = asyncio.Event()
        self.window = Window()

    async def request_chunks(self, folder: str, digests: Sequence[Digest]) -> list[bytes | None]:
        self.asked.append(list(digests))
        self.was_asked.set()
        if self.fails_after is not None and len(self.asked) > self.fails_after:
            raise self.error
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        self.under_way -= 1
        return [b"a lie" if digest in self.lies else self.chunks.get(digest) for digest in digests]

    def strike(self) -> None:
        self.strikes += 1


class Fetched:
    def __init__(self, *peers: Peer) -> None:
        self.peers = list(peers)
        self.got: list[Digest] = []
        self.left: list[Need] = []

    def sessions(self) -> dict[DeviceID, Session]:
        return {peer.peer: cast(Session, peer) for peer in self.peers}

    def keep(self, chunks: Chunks) -> list[Digest]:
        assert threading.current_thread() is not threading.main_thread()
        assert all(digest_of(data) == digest for digest, data in chunks)
        return [digest for digest, _ in chunks]

    async def fetch(self, chunks: Sequence[bytes], *, sources: Sequence[Peer] = ()) -> None:
        offering = frozenset(peer.peer for peer in sources or self.peers)
        needs = [Need(digest_of(data), len(data), offering) for data in chunks]
        async with asyncio.timeout(5):
            self.left = await fetch_chunks("f", needs, self.sessions, self.keep, self.got.extend)

    def check(self, chunks: Sequence[bytes]) -> None:
        """These were delivered, each once."""
        assert sorted(self.got) == sorted(digest_of(data) for data in chunks)


CHUNKS = [data_of(number) for number in range(100)]


async def test_all_is_fetched_in_requests_of_bounded_size() -> None:
    big = [data_of(number, 300_000) for number in range(20)]
    bob = Peer("bob", big)
    fetched = Fetched(bob)
    await fetched.fetch(big)
    fetched.check(big)
    assert fetched.left == []
    assert all(len(asked) * 300_000 <= LARGE_REQUEST_BYTES for asked in bob.asked)
    assert 1 < bob.most <= MOST // REQUEST_BYTES


@pytest.mark.parametrize(("rate", "most"), [(1e6, 1), (1e9, MOST // LARGE_REQUEST_BYTES)])
async def test_as_many_requests_are_under_way_as_the_peer_has_shown_to_be_worth(
    rate: float, most: int
) -> None:
    big = [data_of(number, 1_000_000) for number in range(40)]
    bob = Peer("bob", big)
    bob.window = Window(rate)
    bob.gate = asyncio.Event()
    fetched = Fetched(bob)
    fetching = asyncio.create_task(fetched.fetch(big))
    await bob.was_asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert bob.under_way == most
    bob.gate.set()
    await fetching
    fetched.check(big)
    assert bob.window.rate != rate, "what came of them counts for the next"


async def test_a_peer_that_turns_out_to_be_fast_is_asked_for_more_at_once() -> None:
    big = [data_of(number, 1_000_000) for number in range(60)]
    bob = Peer("bob", big)
    bob.window = Window(1e6)
    fetched = Fetched(bob)
    await fetched.fetch(big)
    fetched.check(big)
    assert bob.most > 1
    assert max(map(len, bob.asked)) == 2


async def test_a_chunk_larger_than_a_request_is_asked_for_alone() -> None:
    big = [data_of(number, 2 * REQUEST_BYTES) for number in range(3)]
    bob = Peer("bob", big)
    fetched = Fetched(bob)
    await fetched.fetch(big)
    fetched.check(big)
    assert [len(asked) for asked in bob.asked] == [1, 1, 1]


async def test_several_peers_share_the_work() -> None:
    big = [data_of(number, 400_000) for number in range(40)]
    bob, cyd = Peer("bob", big), Peer("cyd", big)
    fetched = Fetched(bob, cyd)
    await fetched.fetch(big)
    fetched.check(big)
    assert min(sum(map(len, peer.asked)) for peer in (bob, cyd)) > 10


async def test_what_one_peer_lacks_comes_from_another() -> None:
    bob, cyd = Peer("bob", CHUNKS[:50]), Peer("cyd", CHUNKS[40:])
    fetched = Fetched(bob, cyd)
    await fetched.fetch(CHUNKS)
    fetched.check(CHUNKS)
    assert bob.strikes == cyd.strikes == 0


async def test_wrong_bytes_count_against_a_peer_and_come_from_another() -> None:
    bob, cyd = Peer("bob", CHUNKS), Peer("cyd", CHUNKS)
    bob.lies = {digest_of(data) for data in CHUNKS}
    fetched = Fetched(bob, cyd)
    await fetched.fetch(CHUNKS)
    fetched.check(CHUNKS)
    assert bob.strikes > 0
    assert cyd.strikes == 0


@pytest.mark.parametrize("error", [SessionClosedError("gone"), TimeoutError()])
async def test_a_peer_that_fails_halfway_is_replaced(error: Exception) -> None:
    big = [data_of(number, 400_000) for number in range(40)]
    bob, cyd = Peer("bob", big), Peer("cyd", big)
    bob.fails_after, bob.error = 3, error
    fetched = Fetched(bob, cyd)
    await fetched.fetch(big)
    fetched.check(big)


async def test_only_those_that_offer_a_chunk_are_asked_for_it() -> None:
    bob, cyd = Peer("bob", CHUNKS), Peer("cyd", CHUNKS)
    fetched = Fetched(bob, cyd)
    await fetched.fetch(CHUNKS, sources=[cyd])
    fetched.check(CHUNKS)
    assert bob.asked == []


async def test_what_nobody_has_is_told_and_asked_for_once_of_each() -> None:
    bob, cyd = Peer("bob", CHUNKS[:10]), Peer("cyd", CHUNKS[:10])
    fetched = Fetched(bob, cyd)
    await fetched.fetch(CHUNKS)
    fetched.check(CHUNKS[:10])
    assert sorted(need.digest for need in fetched.left) == sorted(
        digest_of(data) for data in CHUNKS[10:]
    )
    asked = [digest for request in bob.asked for digest in request]
    assert len(asked) == len(set(asked))


async def test_without_peers_all_is_left() -> None:
    fetched = Fetched()
    await fetched.fetch(CHUNKS, sources=[Peer("bob", [])])
    assert len(fetched.left) == len(CHUNKS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ETIMEDOUT])
async def test_what_cannot_be_kept_ends_the_fetch_as_such(code: int) -> None:
    bob = Peer("bob", CHUNKS)
    needs = [Need(digest_of(data), len(data), frozenset([bob.peer])) for data in CHUNKS]
    kept: list[None] = []

    def keep(_chunks: Chunks) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(OSError, match=os.strerror(code)):
        await fetch_chunks("f", needs, Fetched(bob).sessions, keep, kept.append)
    assert kept == []


async def test_a_cancelled_fetch_leaves_nothing_running() -> None:
    bob = Peer("bob", CHUNKS)
    bob.gate = asyncio.Event()
    before = asyncio.all_tasks()
    fetching = asyncio.create_task(Fetched(bob).fetch(CHUNKS))
    await bob.was_asked.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert asyncio.all_tasks() == before

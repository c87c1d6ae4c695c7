"""A large file that several devices fetch at a time."""

import asyncio
import random
from itertools import combinations

import pytest

from p2psync.core.ids import DeviceID, Digest
from p2psync.core.relpath import RelPath
from p2psync.engine import fetch, swarm
from p2psync.engine.packing import Packing
from p2psync.engine.swarm import MAX_BITS, Swarm
from p2psync.protocol.messages import ChunkReply, ChunkRequest, Holding
from p2psync.protocol.wire import RemoteProtocolError
from tests.support.devices import FOLDER, Device, Lab, device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import chunked

DATA = random.Random(3).randbytes(24 * 1024 * 1024)
MANIFEST = chunked(DATA)
CONTENT = b"c" * 32
FILE = RelPath("file")
ADA, BOB, CYD = (device_id(name) for name in ("ada", "bob", "cyd"))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # The lab's clock stands still while files are fetched.
    monkeypatch.setattr(swarm, "_TELL_EVERY_S", 0.0)
    monkeypatch.setattr(fetch, "NEWS_S", 0.2)
    # The file is small: what is asked for at once is a smaller part of it so, as of a large one.
    monkeypatch.setattr(fetch, "REQUEST_BYTES", 1)


async def _wanting(lab: Lab, names: str) -> list[Device]:
    """Devices that are all connected, of which the first has a file that the others know of."""
    devices = await lab.devices(names)
    for one, other in combinations(devices, 2):
        lab.connect(one, other)
    author, *others = devices
    author.disk.write("file", DATA)
    await author.scan()
    for other in others:
        async with asyncio.timeout(10):
            while not (await other.index.counts()).need_files:
                lab.changed.clear()
                await lab.changed.wait()
    return devices


def _has_all(device: Device) -> bool:
    return device.disk.tree().get("file") == DATA


async def test_the_author_sends_each_chunk_hardly_more_than_once(lab: Lab) -> None:
    author, *others = await _wanting(lab, "ada bob cyd dan")
    async with asyncio.TaskGroup() as group:
        for other in others:
            group.create_task(other.puller.run_until_idle())
    assert all(_has_all(other) for other in others)
    assert author.requests < 1.6 * len(MANIFEST), "with none of them helping it would be 3 times"
    assert sum(device.requests for device in (author, *others)) < 3.2 * len(MANIFEST)


async def test_one_alone_asks_in_order_and_is_told_of_nothing(lab: Lab) -> None:
    author, other = await _wanting(lab, "ada bob")
    await other.puller.run_until_idle()
    assert _has_all(other)
    assert author.requests == len(MANIFEST)


async def test_an_author_that_leaves_halfway_leaves_what_the_others_have_together(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    author, bob, cyd = await _wanting(lab, "ada bob cyd")
    given: set[Digest] = set()
    chunks = author.supplier.chunks

    async def leaving(request: ChunkRequest, _: Packing | None) -> tuple[ChunkReply, bytes]:
        given.update(map(Digest, request.digests))
        if len(given) == len({chunk.digest for chunk in MANIFEST}):
            for session in list(author.exchanges):
                lab.forget(author, bob)
                lab.forget(author, cyd)
                session.drop("The author leaves.")
        return await chunks(request)

    monkeypatch.setattr(author.supplier, "chunks", leaving)
    async with asyncio.TaskGroup() as group:
        for other in (bob, cyd):
            group.create_task(other.puller.run_until_idle())
    lacking = [
        {chunk.digest for chunk in MANIFEST if device.swarm.place_of(chunk.digest) is None}
        for device in (bob, cyd)
        if "file" not in device.disk.tree()
    ]
    # What was on its way when it left may be missing on both, but nothing is on one of them only.
    assert all(lacks == lacking[0] for lacks in lacking)


async def test_a_peer_that_says_to_have_all_and_gives_nothing_costs_nothing_but_time(
    lab: Lab,
) -> None:
    author, bob, liar = await _wanting(lab, "ada bob eve")
    (session,) = [each for each in liar.exchanges if each.peer == bob.id]
    content = (await author.index.held([FILE]))[FILE].entry.content
    session.post(Holding(FOLDER, content), b"\xff" * 1000)
    await bob.puller.run_until_idle()
    assert _has_all(bob)


async def test_a_chunk_of_an_unfinished_file_is_served_once_it_is_there(lab: Lab) -> None:
    _, bob, _ = await _wanting(lab, "ada bob cyd")
    first = MANIFEST[0]
    assert bob.swarm.place_of(first.digest) is None
    await bob.puller.run_until_idle()
    place = bob.swarm.place_of(first.digest)
    assert place is not None and (place.offset, place.size) == (0, first.size)


# --- what is told -------------------------------------------------------------------------------


def _swarm() -> Swarm:
    return Swarm(FOLDER, ManualClock(), dict, own=BOB)


def _told(made: Swarm, peer: DeviceID, *numbers: int) -> None:
    bits = sum(1 << number for number in numbers)
    made.heard(peer, Holding(FOLDER, CONTENT), bits.to_bytes(8, "little"))


def test_what_was_told_before_and_after_the_beginning_counts() -> None:
    made = _swarm()
    _told(made, ADA, 0, 9)
    share = made.begin(CONTENT, MANIFEST, "c-1", [False] * len(MANIFEST), frozenset())
    _told(made, CYD, 9)
    assert [share.hold(ADA, number) for number in (0, 1, 9, 10_000)] == [True, False, True, False]
    assert [len(share.holders(number)) for number in (0, 1, 9)] == [1, 0, 2]
    made.forget(ADA)
    assert [len(share.holders(number)) for number in (0, 1, 9)] == [0, 0, 1]
    _told(made, CYD, 1)
    assert [len(share.holders(number)) for number in (0, 1, 9)] == [0, 1, 0]


def test_what_is_told_of_another_file_does_not_count() -> None:
    made = _swarm()
    made.heard(ADA, Holding(FOLDER, b"d" * 32), b"\xff")
    share = made.begin(CONTENT, MANIFEST, "c-1", [False] * len(MANIFEST), frozenset())
    assert not share.hold(ADA, 0)
    made.heard(ADA, Holding(FOLDER, CONTENT), b"\xff")
    assert share.hold(ADA, 0)


def test_more_than_a_file_can_have_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        _swarm().heard(ADA, Holding(FOLDER, CONTENT), bytes(MAX_BITS + 1))


def test_every_device_has_an_order_of_its_own() -> None:
    digests = [chunk.digest for chunk in MANIFEST]
    orders = [
        sorted(digests, key=Swarm(FOLDER, ManualClock(), dict, own=own).order)
        for own in (ADA, BOB, CYD)
    ]
    assert len({tuple(order) for order in orders}) == 3

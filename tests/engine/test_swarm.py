"""A large file that several devices fetch at a time."""

import asyncio
import random
import sys
from collections.abc import Sequence
from itertools import combinations

import pytest

from p2psync.core.entry import Chunk
from p2psync.core.ids import DeviceID, Digest
from p2psync.core.relpath import RelPath
from p2psync.core.window import REQUEST_BYTES, Window
from p2psync.engine import fetch, swarm
from p2psync.engine.fetch import Need
from p2psync.engine.packing import Packing
from p2psync.engine.swarm import MAX_BITS, Share, Swarm
from p2psync.ports import Result, StagedPlace, Step
from p2psync.protocol.messages import ChunkReply, ChunkRequest, Holding
from p2psync.protocol.wire import RemoteProtocolError
from tests.support.devices import FOLDER, Device, Lab, device_id
from tests.support.manual_clock import ManualClock
from tests.support.memory_disk import chunked

DATA = random.Random(3).randbytes(48 * 1024 * 1024)
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
    monkeypatch.setattr(Window, "request_bytes", 1)
    monkeypatch.setattr(Window, "requests", lambda _window, most: most // REQUEST_BYTES)


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

    async def leaving(
        request: ChunkRequest, _: Packing | None
    ) -> tuple[ChunkReply, Sequence[bytes]]:
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


async def test_a_chunk_of_an_unfinished_file_is_served_from_when_it_is_there_until_it_is_placed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bob, _ = await _wanting(lab, "ada bob cyd")
    first = MANIFEST[0]
    assert bob.swarm.place_of(first.digest) is None
    seen: list[StagedPlace | None] = []
    commit = bob.disk.commit

    def seen_at_the_commit(steps: Sequence[Step], *, damaged: bool = False) -> list[Result]:
        seen.append(bob.swarm.place_of(first.digest))
        return commit(steps, damaged=damaged)

    monkeypatch.setattr(bob.disk, "commit", seen_at_the_commit)
    await bob.puller.run_until_idle()
    (place,) = seen
    assert place is not None and (place.offset, place.size) == (0, first.size)
    assert bob.swarm.place_of(first.digest) is None


async def test_what_was_had_last_is_told_though_nothing_comes_after_it(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two that have it all between them would not know of it."""
    monkeypatch.setattr(swarm, "_TELL_EVERY_S", 0.05)
    _, bob, cyd = await _wanting(lab, "ada bob cyd")
    content = (await bob.index.wanted_at([FILE]))[FILE].offers[0].entry.content
    share = bob.swarm.begin(content, MANIFEST, "c-1", [False] * len(MANIFEST), frozenset())
    share.got([MANIFEST[0].digest])
    async with asyncio.timeout(10):
        while not cyd.swarm.told_of(content):
            lab.changed.clear()
            await lab.changed.wait()
    assert cyd.swarm.told_of(content) == {bob.id: 1}
    share.end()


async def test_one_who_tells_of_all_and_does_not_answer_does_not_hold_up_the_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = _swarm()
    share = _begun(made)
    _tell(made, CYD, *range(len(MANIFEST)))
    needs = [Need(c.digest, c.size, frozenset({ADA}), number=n) for n, c in enumerate(MANIFEST)]
    fetching = fetch._Fetch[None](FOLDER, needs, _nowhere, _nowhere, share)
    first = fetching.take(ADA, 1)
    assert first is not None and first.is_common
    assert fetching.take(ADA, 1) is None, "the others have the rest"
    fetching.fell_silent(CYD)
    rare = [fetching.take(ADA, 1) for _ in range(3)]
    assert all(batch is not None and not batch.is_common for batch in rare)


def test_to_look_for_what_a_peer_can_serve_does_not_take_longer_for_larger_files() -> None:
    """Counted in steps of the interpreter, which do not depend on the machine."""

    def steps(chunks: int) -> int:
        made = _swarm()
        manifest = tuple(
            Chunk(Digest(number.to_bytes(32, "big")), 1000) for number in range(1, chunks + 1)
        )
        share = made.begin(CONTENT, manifest, "c-1", [False] * chunks, frozenset())
        needs = [Need(c.digest, c.size, frozenset(), number=n) for n, c in enumerate(manifest)]
        fetching = fetch._Fetch[None](FOLDER, needs, _nowhere, _nowhere, share)
        made.heard(ADA, Holding(FOLDER, CONTENT), b"\1" + bytes(chunks // 8))
        count = 0

        def counted(_frame: object, _event: str, _argument: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(counted)
        try:
            batch = fetching.take(ADA, 1)
        finally:
            sys.setprofile(None)
        assert batch is not None and batch.numbers == [0]
        return count

    assert steps(20_000) <= 2 * steps(200)


def _nowhere(_chunks: object) -> None:
    raise AssertionError("nothing is delivered")


# --- what is told -------------------------------------------------------------------------------


def _swarm(*, own: DeviceID = BOB, helped: list[str] | None = None) -> Swarm:
    came = (lambda: helped.append("help")) if helped is not None else (lambda: None)
    return Swarm(FOLDER, ManualClock(), dict, own=own, help_came=came)


def _begun(made: Swarm) -> Share:
    return made.begin(CONTENT, MANIFEST, "c-1", [False] * len(MANIFEST), frozenset())


def _tell(made: Swarm, peer: DeviceID, *numbers: int) -> None:
    bits = sum(1 << number for number in numbers)
    made.heard(peer, Holding(FOLDER, CONTENT), bits.to_bytes(len(MANIFEST) // 8 + 1, "little"))


def test_what_was_told_before_and_after_the_beginning_counts() -> None:
    made = _swarm()
    _tell(made, ADA, 0, 9)
    share = _begun(made)
    _tell(made, CYD, 9)
    assert share.told() == {ADA: 1 << 0 | 1 << 9, CYD: 1 << 9}
    made.forget(ADA)
    assert share.told() == {CYD: 1 << 9}
    _tell(made, CYD, 1)
    assert share.told() == {CYD: 1 << 1}


def test_what_is_told_of_another_file_does_not_count() -> None:
    made = _swarm()
    made.heard(ADA, Holding(FOLDER, b"d" * 32), b"\xff")
    share = _begun(made)
    assert share.told() == {}
    made.heard(ADA, Holding(FOLDER, CONTENT), b"\xff")
    assert share.told() == {ADA: 255}


async def test_news_wake_only_who_waits_for_that_peer() -> None:
    made = _swarm()
    share = _begun(made)
    of_ada, of_cyd = share.news_of(ADA), share.news_of(CYD)
    _tell(made, ADA, 1)
    assert of_ada.is_set() and not of_cyd.is_set()
    assert not share.news_of(ADA).is_set()


def test_help_for_what_could_not_be_had_is_noticed_once() -> None:
    helped: list[str] = []
    made = _swarm(helped=helped)
    share = _begun(made)
    _tell(made, ADA, 1)
    assert helped == [], "it is being fetched"
    share.end()
    _tell(made, ADA, 1)
    assert helped == [], "that was known"
    _tell(made, ADA, 1, 2)
    assert helped == ["help"]
    _tell(made, CYD, 3)
    assert helped == ["help"], "not again so soon"


def test_more_than_a_file_can_have_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        _swarm().heard(ADA, Holding(FOLDER, CONTENT), bytes(MAX_BITS + 1))


def test_chance_is_another_one_on_each_device() -> None:
    shares = [_begun(_swarm(own=own)) for own in (ADA, BOB, CYD)]
    assert len({share.chance(1) for share in shares}) == 3
    assert shares[0].chance(1) == shares[0].chance(1) != shares[0].chance(2)

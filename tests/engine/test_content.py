import asyncio
import random
from collections.abc import Sequence

import blake3
import msgspec
import pytest

from p2psync.core.entry import Chunk, Entry, Kind
from p2psync.core.ids import Digest
from p2psync.core.manifest import content_id_of_manifest
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, first_version
from p2psync.engine import content
from p2psync.engine import session as session_module
from p2psync.engine.content import FileWanted, Staged
from p2psync.engine.packing import Packing
from p2psync.protocol.messages import ChunkReply, ChunkRequest
from tests.support.devices import Device, Lab
from tests.support.memory_disk import chunked
from tests.support.steps import file, stage

BIG = random.Random(1).randbytes(2 * 1024 * 1024)
OTHER_BIG = BIG[:700_000] + b"an insertion" + BIG[700_000:]


def small(path: str, data: bytes, *sources: Device) -> FileWanted:
    return FileWanted(RelPath(path), file(data).entry, frozenset(each.id for each in sources))


def large(path: str, data: bytes, *sources: Device) -> FileWanted:
    manifest = chunked(data)
    version = first_version(Dot(7, 1), stamp=1, author="bob")
    entry = Entry(Kind.FILE, version, content_id_of_manifest(manifest), len(data))
    return FileWanted(RelPath(path), entry, frozenset(each.id for each in sources))


def staged_bytes(device: Device, staged: object) -> bytes:
    assert isinstance(staged, Staged)
    return device.disk.staged_bytes(staged.name)


@pytest.fixture
async def bob(lab: Lab, ada: Device) -> Device:
    """A peer of ada's."""
    bob = await lab.device("bob")
    lab.connect(ada, bob)
    return bob


async def _dropped(device: Device) -> None:
    """When the sessions that were begun for it have ended, if they have not already."""
    async with asyncio.timeout(5):
        for session in list(device.exchanges):
            await session.closed.wait()


async def hold(device: Device, **files: bytes) -> None:
    for name, data in files.items():
        device.disk.write(name, data)
    await device.scan()


async def test_what_lies_here_is_copied_and_nobody_asked(ada: Device, bob: Device) -> None:
    await hold(ada, one=b"1", empty=b"")
    staged = await ada.contents.stage_small([small("a", b"1", bob), small("b", b"", bob)])
    assert staged_bytes(ada, staged[RelPath("a")]) == b"1"
    assert staged_bytes(ada, staged[RelPath("b")]) == b""
    assert bob.requests == 0


async def test_what_is_not_what_the_index_says_is_fetched(ada: Device, bob: Device) -> None:
    await hold(ada, one=b"1")
    await hold(bob, one=b"1")
    ada.disk.write("one", b"2")
    staged = await ada.contents.stage_small([small("a", b"1", bob)])
    assert staged_bytes(ada, staged[RelPath("a")]) == b"1"
    assert bob.requests == 1


async def test_another_copy_here_serves_when_the_first_has_changed(ada: Device) -> None:
    await hold(ada, one=b"1", two=b"1", three=b"1")
    ada.disk.write("one", b"2")
    ada.disk.write("two", b"2")
    staged = await ada.contents.stage_small([small("a", b"1")])
    assert staged_bytes(ada, staged[RelPath("a")]) == b"1"


async def test_equal_files_are_fetched_once_and_staged_each(ada: Device, bob: Device) -> None:
    await hold(bob, one=b"1")
    staged = await ada.contents.stage_small([small(name, b"1", bob) for name in "abc"])
    assert [staged_bytes(ada, each) for each in staged.values()] == [b"1"] * 3
    assert len({each.name for each in staged.values() if isinstance(each, Staged)}) == 3
    assert bob.requests == 1


async def test_what_nobody_has_is_left_out(ada: Device, bob: Device) -> None:
    await hold(bob, one=b"1")
    wanted = [small("a", b"1", bob), small("b", b"nobody's", bob), small("c", b"1x", bob)]
    assert list(await ada.contents.stage_small(wanted)) == ["a"]


async def test_a_file_that_lies_about_its_size_is_not_staged(ada: Device, bob: Device) -> None:
    await hold(bob, one=b"1")
    liar = small("a", b"1", bob)
    entry = Entry(Kind.FILE, liar.entry.version, liar.entry.content, 5)
    assert await ada.contents.stage_small([liar._replace(entry=entry)]) == {}


async def test_who_says_another_size_than_it_sends_is_dropped_in_the_end(
    ada: Device, bob: Device
) -> None:
    await hold(bob, one=b"1")
    liar = small("a", b"1", bob)
    entry = Entry(Kind.FILE, liar.entry.version, liar.entry.content, 5)
    for _ in range(3):
        assert await ada.contents.stage_small([liar._replace(entry=entry)]) == {}
    await _dropped(ada)


async def test_where_peers_tell_two_sizes_of_one_content_who_sends_it_is_not_to_blame(
    lab: Lab, ada: Device, bob: Device
) -> None:
    await hold(bob, one=b"1")
    cyd = await lab.device("cyd")
    lab.connect(ada, cyd)
    honest, liar = small("a", b"1", bob), small("b", b"1", cyd)
    liar = liar._replace(entry=Entry(Kind.FILE, liar.entry.version, liar.entry.content, 5))
    for _ in range(5):
        staged = await ada.contents.stage_small([liar, honest])
        assert list(staged) == ["a"]
        await ada.contents.drop(each for each in staged.values() if isinstance(each, Staged))
    assert ada.is_connected_to(bob)


async def test_a_file_that_cannot_be_staged_keeps_no_other_from_it(
    ada: Device, bob: Device
) -> None:
    await hold(bob, one=b"1", two=b"2", three=b"3")
    ada.disk.fail("stage_whole", "s-2")
    wanted = [small(name, data, bob) for name, data in (("a", b"1"), ("b", b"2"), ("c", b"3"))]
    outcomes = await ada.contents.stage_small(wanted)
    assert sorted(type(each).__name__ for each in outcomes.values()) == [
        "PermissionError",
        "Staged",
        "Staged",
    ]


async def test_bytes_of_a_size_that_nobody_told_are_no_reason_to_write(
    ada: Device, bob: Device
) -> None:
    await hold(bob, one=b"123")
    wanted = [small(name, b"123", bob) for name in ("a", "b")]
    wanted = [
        told._replace(entry=msgspec.structs.replace(told.entry, size=size))
        for told, size in zip(wanted, (1, 2), strict=True)
    ]
    ada.disk.fail("stage_whole", "")
    assert await ada.contents.stage_small(wanted) == {}
    assert "stage_whole" not in ada.disk.calls


async def test_names_left_by_an_earlier_process_are_dropped_first(ada: Device) -> None:
    await hold(ada, one=b"1")
    for name in ("s-1", "c-1"):
        stage(ada.disk, name, bytes(3))
    await ada.contents.stage_small([small("a", b"1")])
    assert ada.disk.staged_names() == ["c-1", "s-1"]
    assert ada.disk.staged_bytes("s-1") == b"1"


async def test_what_was_not_placed_is_dropped_but_for_large_files(ada: Device) -> None:
    for name in ("s-1", "c-1"):
        stage(ada.disk, name, bytes(3))
    await ada.contents.drop([Staged("s-1", None), Staged("c-1", None)])
    assert ada.disk.staged_names() == ["c-1"]


# --- large files ----------------------------------------------------------------------------------


async def test_a_large_file_is_fetched_with_its_manifest(ada: Device, bob: Device) -> None:
    await hold(bob, big=BIG)
    staged = await ada.contents.stage_large(large("a", BIG, bob))
    assert staged is not None and staged.manifest == chunked(BIG)
    assert staged_bytes(ada, staged) == BIG


async def test_only_chunks_that_are_not_here_are_fetched(ada: Device, bob: Device) -> None:
    await hold(ada, big=BIG)
    await hold(bob, big=OTHER_BIG)
    staged = await ada.contents.stage_large(large("a", OTHER_BIG, bob))
    assert staged_bytes(ada, staged) == OTHER_BIG
    new = {chunk.digest for chunk in chunked(OTHER_BIG)} - {chunk.digest for chunk in chunked(BIG)}
    assert 0 < bob.requests == len(new) < len(chunked(OTHER_BIG))


async def test_chunks_here_that_have_changed_are_fetched(ada: Device, bob: Device) -> None:
    await hold(ada, big=BIG)
    await hold(bob, big=BIG)
    ada.disk.write("big", BIG[:5] + b"!" + BIG[6:])
    assert staged_bytes(ada, await ada.contents.stage_large(large("a", BIG, bob))) == BIG
    assert bob.requests == 1


async def test_neighbours_are_copied_in_one_go_and_nothing_is_read_again(
    ada: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random.Random(2).randbytes(6 * 1024 * 1024)
    edited = data[:3_000_000] + b"an insertion" + data[3_000_000:]
    await hold(ada, big=data)
    await hold(bob, big=edited)
    ada.disk.calls.clear()
    staged = await ada.contents.stage_large(large("a", edited, bob))
    assert staged_bytes(ada, staged) == edited
    # What lies before the insertion, and what lies behind it.
    assert ada.disk.calls.count("stage_copy") == 2
    assert ada.disk.calls.count("prepare") == 1

    # A copy of all of it would hold everything else up for long.
    monkeypatch.setattr(content, "_COPY_BYTES", 2_500_000)
    ada.disk.unstage(ada.disk.staged_names())
    ada.disk.calls.clear()
    assert staged_bytes(ada, await ada.contents.stage_large(large("a", data))) == data
    assert ada.disk.calls.count("stage_copy") == 3


async def test_long_runs_of_zeros_are_asked_of_nobody(ada: Device, bob: Device) -> None:
    data = BIG + bytes(5 * 1024 * 1024)
    await hold(ada, big=BIG)
    await hold(bob, big=data)
    staged = await ada.contents.stage_large(large("a", data, bob))
    assert staged_bytes(ada, staged) == data
    # The last chunk of what is known goes on into the zeros.
    assert bob.requests == 1


@pytest.mark.parametrize("method", ["stage_copy", "stage_pieces"])
async def test_a_cancelled_pull_ends_when_nothing_writes_to_the_file_any_more(
    ada: Device, bob: Device, method: str
) -> None:
    """It could be placed, and become a user's."""
    await hold(ada if method == "stage_copy" else bob, big=BIG)
    await bob.index.save_manifest(large("a", BIG).entry.content, chunked(BIG))
    loop = asyncio.get_running_loop()
    staging = asyncio.create_task(ada.contents.stage_large(large("a", BIG, bob)))
    ended_too_soon = True

    async def turns() -> None:
        nonlocal ended_too_soon
        for _ in range(20):
            await asyncio.sleep(0)
        ended_too_soon = staging.done()

    def cancel() -> None:
        loop.call_soon_threadsafe(staging.cancel)
        asyncio.run_coroutine_threadsafe(turns(), loop).result()

    ada.disk.before(method, cancel)
    with pytest.raises(asyncio.CancelledError):
        await staging
    assert not ended_too_soon


async def test_a_large_file_goes_on_where_it_stopped(lab: Lab, ada: Device, bob: Device) -> None:
    await hold(bob, big=BIG)
    cyd = await lab.device("cyd")
    await hold(cyd, big=OTHER_BIG)
    # Bob's disk fails for all but the first chunk.
    first = chunked(BIG)[0].size
    bob.disk.write("big", BIG[:first] + bytes(len(BIG) - first))
    assert await ada.contents.stage_large(large("a", BIG, bob, cyd)) is None
    await bob.integrity.judge_suspects()
    assert bob.local.pending
    lab.connect(ada, cyd)
    asked = bob.requests
    assert staged_bytes(ada, await ada.contents.stage_large(large("a", BIG, cyd, bob))) == BIG
    assert cyd.requests < len(chunked(BIG))
    assert bob.requests - asked < len(chunked(BIG))


async def test_without_a_manifest_nothing_is_staged(ada: Device, bob: Device) -> None:
    assert await ada.contents.stage_large(large("a", BIG, bob)) is None
    assert await ada.contents.stage_large(large("a", BIG)) is None
    assert ada.disk.staged_names() == []


async def test_a_manifest_that_is_another_counts_against_the_peer(ada: Device, bob: Device) -> None:
    await hold(bob, big=BIG)
    wanted = large("a", OTHER_BIG, bob)
    await bob.index.save_manifest(wanted.entry.content, chunked(BIG))
    for _ in range(3):
        assert await ada.contents.stage_large(wanted) is None
    await _dropped(ada)


async def _lie(bob: Device, *chunks: tuple[bytes, int]) -> FileWanted:
    """A file whose manifest bob has, and that says of each of these data that it has a size."""
    await hold(bob, **{f"part{number}": data for number, (data, _) in enumerate(chunks)})
    manifest = tuple(Chunk(Digest(blake3.blake3(data).digest()), size) for data, size in chunks)
    content = content_id_of_manifest(manifest)
    await bob.index.save_manifest(content, manifest)
    version = first_version(Dot(7, 1), stamp=1, author="bob")
    entry = Entry(Kind.FILE, version, content, sum(size for _, size in chunks))
    return FileWanted(RelPath("a"), entry, frozenset([bob.id]))


@pytest.mark.parametrize(
    "sizes",
    [(200_000, 200_000), (200_000, 50_000), (99_999, 200_001), (100_001, 199_999)],
    ids=["shorter", "one longer", "the first longer", "the first shorter"],
)
async def test_a_manifest_that_lies_about_sizes_gives_no_file_and_ends_the_session(
    ada: Device, bob: Device, sizes: tuple[int, int]
) -> None:
    parts = (BIG[:100_000], BIG[100_000:200_000])
    wanted = await _lie(bob, (parts[0], sizes[0]), (parts[1], sizes[1] + 100_000))
    for _ in range(3):
        assert await ada.contents.stage_large(wanted) is None
    await _dropped(ada)


async def test_a_manifest_that_gives_one_chunk_two_sizes_counts_against_the_peer(
    ada: Device, bob: Device
) -> None:
    wanted = await _lie(bob, (BIG[:200_000], 200_000), (BIG[:200_000], 100_000))
    for _ in range(3):
        assert await ada.contents.stage_large(wanted) is None
    await _dropped(ada)


async def test_a_silent_peer_is_not_asked_again_before_it_has_answered(
    lab: Lab, ada: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "PATIENCE_S", 0.02)
    cyd = await lab.device("cyd")
    lab.connect(ada, cyd)
    await hold(bob, one=b"1")
    await hold(cyd, two=b"2")
    go_on = asyncio.Event()
    answer = bob.supplier.chunks

    async def late(request: ChunkRequest, _: Packing | None) -> tuple[ChunkReply, Sequence[bytes]]:
        await go_on.wait()
        return await answer(request)

    monkeypatch.setattr(bob.supplier, "chunks", late)
    wanted = [small("one", b"1", bob), small("two", b"2", cyd)]
    for _ in range(3):
        staged = await ada.contents.stage_small(wanted)
        assert staged_bytes(ada, staged[RelPath("two")]) == b"2"
        assert RelPath("one") not in staged
        await ada.contents.drop(each for each in staged.values() if isinstance(each, Staged))
    assert bob.requests == 1
    assert [session.peer for session, _ in ada.contents.available()] == [cyd.id]
    assert ada.contents.is_connected(frozenset({bob.id}))

    asked = next(session for session in ada.exchanges if session.peer == bob.id)
    caught_up = asyncio.Event()
    asked.caught_up.add(caught_up.set)
    go_on.set()
    async with asyncio.timeout(5):
        await caught_up.wait()
    assert {(session.peer, lapses) for session, lapses in ada.contents.available()} == {
        (bob.id, 1),
        (cyd.id, 0),
    }
    staged = await ada.contents.stage_small(wanted)
    assert staged_bytes(ada, staged[RelPath("one")]) == b"1"

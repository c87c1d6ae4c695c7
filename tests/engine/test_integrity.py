"""Bytes that changed under an unchanged fingerprint: found, told, replaced, and never published."""

import asyncio
import errno
import random

import blake3
import msgspec
import pytest

from p2psync.core.entry import Chunk, Entry, Kind
from p2psync.core.ids import Digest
from p2psync.core.manifest import content_id_of_manifest
from p2psync.core.merge import conflict_copy
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, first_version, join
from p2psync.engine import damaged, mend
from p2psync.engine.integrity import Verdict
from p2psync.errors import P2psyncError
from p2psync.ports import Action, Cursor, RootUnavailableError, Row, Step
from p2psync.protocol.messages import MISSING, ChunkRequest
from tests.support.devices import Device, Lab, conflicts, device_id
from tests.support.memory_disk import MemoryDisk, chunked

BIG = random.Random(1).randbytes(2 * 1024 * 1024)
PLAN = RelPath("plan")


async def entry_of(device: Device, path: str = "plan") -> Entry:
    return (await device.index.held([RelPath(path)]))[RelPath(path)].entry


async def verdict_on(device: Device, path: str = "plan", *, again: bool = False) -> Verdict:
    return await device.integrity.judge(RelPath(path), again=again)


async def is_damaged(device: Device, path: str = "plan") -> bool:
    return RelPath(path) in dict(await device.index.damaged(10))


def told(device: Device) -> list[str]:
    return [problem.reason for problem in device.problems.listed()]


@pytest.fixture
async def pair(lab: Lab, ada: Device) -> tuple[Device, Device]:
    """Two connected devices with one file."""
    bob = await lab.device("bob")
    lab.connect(ada, bob)
    ada.disk.write("plan", "as it was written")
    await lab.converge([ada, bob])
    return ada, bob


@pytest.fixture
async def alone(ada: Device) -> Device:
    ada.disk.write("plan", "as it was written")
    await ada.work()
    return ada


# --- the judgement -------------------------------------------------------------------------------


async def test_what_is_as_the_index_says_is_sound(alone: Device) -> None:
    assert await verdict_on(alone) is Verdict.SOUND
    assert not alone.local.pending


async def test_other_bytes_under_the_same_fingerprint_are_damage_and_no_version(
    alone: Device,
) -> None:
    before, sequence = await entry_of(alone), alone.index.sequence
    alone.disk.rot("plan")

    assert await verdict_on(alone) is Verdict.DAMAGED
    assert await verdict_on(alone) is Verdict.DAMAGED

    await alone.work()
    assert await entry_of(alone) == before
    assert (alone.index.sequence, await is_damaged(alone)) == (sequence, True)
    assert alone.disk.trash() == alone.disk.set_aside() == []


async def test_what_a_peer_cut_in_a_way_of_its_own_is_sound(lab: Lab, ada: Device) -> None:
    cyd = await lab.device("cyd")
    cyd.disk.write("plan", BIG[:400_000])
    await cyd.scan()
    held = (await cyd.index.held([PLAN]))[PLAN]
    pieces = BIG[:150_000], BIG[150_000:400_000]
    odd = tuple(Chunk(Digest(blake3.blake3(each).digest()), len(each)) for each in pieces)
    entry = msgspec.structs.replace(held.entry, content=content_id_of_manifest(odd))
    await cyd.index.record([Row(PLAN, entry, held.fingerprint, odd)])
    lab.connect(ada, cyd)
    await lab.until(lambda: "plan" in ada.disk.tree(), ada)

    assert (await entry_of(ada)).content == entry.content
    assert await verdict_on(ada) is Verdict.SOUND
    ada.disk.rot("plan", at=200_000)
    assert await verdict_on(ada) is Verdict.DAMAGED


@pytest.mark.parametrize("edit", ["content", "times kept", "same bytes"])
async def test_what_has_another_fingerprint_is_an_edit(alone: Device, edit: str) -> None:
    before = await entry_of(alone)
    data = "as it was written" if edit == "same bytes" else "as it was WRITTEN"
    mtime_ns = None if edit == "content" else before.mtime_ns
    alone.disk.write("plan", data, mtime_ns=mtime_ns)

    assert await verdict_on(alone) is Verdict.EDITED
    assert alone.local.pending
    await alone.work()
    assert (await entry_of(alone) == before) == (edit == "same bytes")
    assert not await is_damaged(alone)


async def test_what_could_have_changed_within_a_tick_is_an_edit(lab: Lab) -> None:
    disk = MemoryDisk(lab.clock.now_ns, granularity_ns=10**10)
    ada = await lab.device("ada", disk=disk)
    disk.write("plan", "one")
    ada.local.mark(None)
    lab.clock.advance(1)
    await ada.local.scan()
    disk.rot("plan")

    assert await verdict_on(ada) is Verdict.EDITED
    lab.clock.advance(20)
    await ada.work()
    assert (await entry_of(ada)).content == blake3.blake3(disk.tree()["plan"]).digest()  # type: ignore[arg-type]


async def test_what_is_gone_or_no_file_is_left_to_the_scan(alone: Device) -> None:
    alone.disk.make_directory("d")
    assert await verdict_on(alone, "nothing") is Verdict.EDITED
    assert await verdict_on(alone, "d") is Verdict.EDITED
    alone.disk.remove("plan")
    assert await verdict_on(alone) is Verdict.EDITED
    assert not await is_damaged(alone)


async def test_a_file_that_is_being_written_is_judged_later(lab: Lab, alone: Device) -> None:
    alone.disk.rot("plan")
    alone.disk.written.add("plan")
    alone.integrity.suspect([PLAN])
    await alone.integrity.judge_suspects()
    assert not await is_damaged(alone)

    alone.disk.written.clear()
    await alone.integrity.judge_suspects()
    assert not await is_damaged(alone)
    lab.clock.advance(61)
    await alone.integrity.judge_suspects()
    assert await is_damaged(alone)


async def test_what_cannot_be_judged_now_is_judged_later(
    lab: Lab, alone: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: object) -> object:
        raise P2psyncError("The disk is full.")

    alone.disk.rot("plan")
    alone.integrity.suspect([PLAN])
    with monkeypatch.context() as patch:
        patch.setattr(alone.index, "held", full)
        await alone.integrity.judge_suspects()
    lab.clock.advance(61)
    await alone.integrity.judge_suspects()
    assert await is_damaged(alone)


async def test_an_edit_while_it_is_judged_is_an_edit(alone: Device) -> None:
    alone.disk.rot("plan")
    # Of the looks of a judgement, the second one is the last.
    alone.disk.before("hash_file", lambda: alone.disk.before("look", lambda: edit()))

    def edit() -> None:
        alone.disk.make_executable("plan")

    assert await verdict_on(alone) is Verdict.EDITED
    assert not await is_damaged(alone)


async def test_a_row_that_comes_while_it_is_judged_does_not_hide_the_damage(alone: Device) -> None:
    held = (await alone.index.held([PLAN]))[PLAN]
    version = msgspec.structs.replace(
        held.entry.version, vector=join(held.entry.version.vector, ((1, 1),))
    )
    row = Row(PLAN, msgspec.structs.replace(held.entry, version=version), held.fingerprint)
    loop = asyncio.get_running_loop()

    def record() -> None:
        asyncio.run_coroutine_threadsafe(alone.index.record([row]), loop).result()

    alone.disk.rot("plan")
    alone.disk.before("hash_file", record)
    assert await verdict_on(alone) is Verdict.DAMAGED
    assert await is_damaged(alone)


async def test_a_new_time_of_a_peer_that_is_not_recorded_yet_is_no_edit(
    lab: Lab, alone: Device
) -> None:
    held = (await alone.index.held([PLAN]))[PLAN]
    entry = msgspec.structs.replace(held.entry, mtime_ns=1)
    alone.disk.rot("plan")
    async with alone.turn:
        (done,) = alone.disk.commit([Step(Action.SET_METADATA, PLAN, entry, held.fingerprint)])
        judging = asyncio.ensure_future(verdict_on(alone))
        await lab.settle()
        await alone.index.record([Row(PLAN, entry, done.fingerprint)])
    assert await judging is Verdict.DAMAGED
    assert await is_damaged(alone)


async def test_what_rots_between_the_look_and_the_reading_of_a_scan_is_no_version(
    alone: Device,
) -> None:
    """A peer's new time is placed and recorded between the two."""
    held = (await alone.index.held([PLAN]))[PLAN]
    loop = asyncio.get_running_loop()
    alone.disk.make_executable("plan")
    entry = msgspec.structs.replace(held.entry, executable=True)
    mark = alone.disk.look([PLAN])[PLAN]
    assert mark is not None
    row = Row(PLAN, entry, mark.fingerprint)

    def rot() -> None:
        asyncio.run_coroutine_threadsafe(alone.index.record([row]), loop).result()
        alone.disk.rot("plan")

    alone.disk.before("hash_file", rot)
    await alone.scan()
    assert await entry_of(alone) == entry


@pytest.mark.parametrize(
    ("code", "verdict"), [(errno.EIO, Verdict.DAMAGED), (errno.EACCES, Verdict.UNREADABLE)]
)
async def test_bytes_that_the_disk_does_not_give_are_damage(
    alone: Device, code: int, verdict: Verdict
) -> None:
    alone.disk.fail("hash_file", "plan", code)

    assert await verdict_on(alone) is verdict
    assert await is_damaged(alone) == (verdict is Verdict.DAMAGED)


async def test_a_disk_that_is_well_again_ends_the_damage(alone: Device) -> None:
    alone.disk.fail("hash_file", "plan", errno.EIO)
    assert await verdict_on(alone) is Verdict.DAMAGED
    assert await verdict_on(alone, again=True) is Verdict.DAMAGED
    alone.disk.mend()

    announced = alone.announced
    assert await verdict_on(alone, again=True) is Verdict.SOUND
    assert alone.announced == announced + 1
    await alone.work()
    assert not await is_damaged(alone)
    assert told(alone) == []


async def test_a_root_that_is_gone_is_no_verdict(alone: Device) -> None:
    alone.disk.lose_root()
    with pytest.raises(RootUnavailableError):
        await verdict_on(alone)


# --- with a peer that has it ---------------------------------------------------------------------


async def test_it_is_fetched_again_and_the_damaged_bytes_are_kept(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    before = await entry_of(ada)
    ada.disk.rot("plan")
    rotten = ada.disk.tree()["plan"]
    assert await verdict_on(ada) is Verdict.DAMAGED

    tree = await lab.converge([ada, bob])

    assert tree == {"plan": b"as it was written"}
    assert await entry_of(ada) == await entry_of(bob) == before
    assert (ada.disk.set_aside(), ada.disk.trash()) == ([rotten], [])
    assert bob.disk.trash() == []
    assert told(ada) == []
    assert [finding.is_damaged for finding in await ada.index.findings()] == [False]


async def test_of_a_large_file_the_wrong_chunk_alone_is_fetched(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.write("big", BIG)
    await lab.converge([ada, bob])
    chunks = chunked(BIG)
    assert len(chunks) > 2
    ada.disk.rot("big", at=chunks[0].size + 7)
    bob.requests = 0

    assert await verdict_on(ada, "big") is Verdict.DAMAGED
    tree = await lab.converge([ada, bob])

    assert tree["big"] == BIG
    assert bob.requests == 1
    assert len(ada.disk.set_aside()) == 1


async def test_pulls_go_on_between_large_files(lab: Lab, pair: tuple[Device, Device]) -> None:
    ada, bob = pair
    for name in ("big", "huge"):
        ada.disk.write(name, BIG + name.encode())
    await lab.converge([ada, bob])
    for name in ("big", "huge"):
        ada.disk.rot(name)
        await verdict_on(ada, name)

    assert await ada.mender.mend()
    assert [path for path, _ in await ada.index.damaged(10)] == ["huge"]
    assert ada.mender.next_retry() == 0
    assert await ada.mender.mend()
    assert await ada.index.damaged(10) == []
    assert not await ada.mender.mend()
    assert ada.mender.next_retry() is None


async def test_two_files_that_are_damaged_in_different_places_mend_each_other(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.write("big", BIG)
    await lab.converge([ada, bob])
    ada.disk.rot("big", at=5)
    bob.disk.rot("big", at=len(BIG) - 5)
    for device in pair:
        assert await verdict_on(device, "big") is Verdict.DAMAGED

    assert (await lab.converge([ada, bob]))["big"] == BIG


async def test_another_file_here_with_the_same_content_is_enough(alone: Device) -> None:
    alone.disk.write("copy", "as it was written")
    await alone.work()
    alone.disk.rot("plan")
    await verdict_on(alone)
    await alone.work()

    assert alone.disk.read_text("plan") == "as it was written"
    assert not await is_damaged(alone)


async def test_an_edit_just_before_it_is_replaced_stays(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    await verdict_on(ada)
    ada.disk.before("commit", lambda: ada.disk.write("plan", "written anew"))

    assert await lab.converge([ada, bob]) == {"plan": b"written anew"}
    assert ada.disk.set_aside() == []


async def test_damage_that_the_supplier_meets_is_judged_and_mended(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    digest = Digest(blake3.blake3(b"as it was written").digest())

    reply, payload = await ada.supplier.chunks(ChunkRequest(1, "shared", (digest,)))
    assert (reply.sizes, payload) == ((MISSING,), [])
    await ada.integrity.judge_suspects()
    assert await is_damaged(ada)

    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}


async def test_an_edit_that_the_supplier_meets_becomes_a_version(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    digest = Digest(blake3.blake3(b"as it was written").digest())
    lab.clock.advance(1)
    ada.disk.write("plan", "as it was WRITTEN", mtime_ns=(await entry_of(ada)).mtime_ns)

    await ada.supplier.chunks(ChunkRequest(1, "shared", (digest,)))
    await ada.integrity.judge_suspects()

    assert ada.local.pending
    assert await lab.converge([ada, bob]) == {"plan": b"as it was WRITTEN"}


# --- without one ---------------------------------------------------------------------------------


async def test_where_nobody_has_it_it_stays_and_is_told(alone: Device) -> None:
    alone.disk.rot("plan")
    rotten = alone.disk.tree()
    await verdict_on(alone)
    await alone.work()

    assert alone.disk.tree() == rotten
    assert alone.disk.set_aside() == []
    (problem,) = alone.problems.listed()
    assert problem.path == "plan"
    assert "no device that holds the right ones is connected" in problem.reason
    assert (await alone.index.counts()).need_files == 1


async def test_others_hear_of_it_and_are_given_nothing(lab: Lab, alone: Device) -> None:
    alone.disk.write("other", "well")
    alone.disk.rot("plan")
    await verdict_on(alone)
    bob = await lab.device("bob")
    lab.connect(alone, bob)
    await lab.until(lambda: "other" in bob.disk.tree(), alone, bob)

    assert bob.disk.tree() == {"other": b"well"}
    assert (await bob.index.counts()).need_files == 1


async def test_what_is_damaged_after_it_was_moved_is_not_deleted_elsewhere(
    lab: Lab, ada: Device
) -> None:
    bob = await lab.device("bob")
    connection = lab.connect(ada, bob)
    ada.disk.write("old", "precious")
    await lab.converge([ada, bob])
    await connection.cut()
    ada.disk.rename("old", "new")
    await ada.scan()
    ada.disk.rot("new")
    await verdict_on(ada, "new")

    lab.connect(ada, bob)
    await lab.until(lambda: "old" not in bob.disk.tree(), bob)
    assert bob.disk.tree() == {"new": b"precious"}
    assert await lab.converge([ada, bob]) == {"new": b"precious"}


async def test_a_conflict_copy_that_is_damaged_before_it_is_told_is_made_by_others(
    lab: Lab, ada: Device
) -> None:
    bob = await lab.device("bob")
    bob.disk.write("plan", "by bob")
    await bob.scan()
    lab.clock.advance(60)
    ada.disk.write("plan", "by ada")
    await ada.scan()
    connection = lab.connect(ada, bob)
    await lab.until(lambda: bool(conflicts(ada.disk.tree())), ada)
    await connection.cut()
    # As if he had heard of nothing yet.
    await bob.index.reset_peer(ada.id)
    (copy,) = conflicts(ada.disk.tree())
    ada.disk.rot(copy)
    await verdict_on(ada, copy)

    lab.connect(ada, bob)
    await lab.until(lambda: bob.disk.tree()["plan"] == b"by ada", bob)
    assert bob.disk.tree() == {"plan": b"by ada", copy: b"by bob"}
    assert await lab.converge([ada, bob]) == {"plan": b"by ada", copy: b"by bob"}


async def test_a_conflict_copy_that_is_damaged_is_not_held(ada: Device) -> None:
    ada.disk.write("plan", "mine")
    await ada.scan()
    mine = await entry_of(ada)
    name, copy = conflict_copy(PLAN, mine)
    bob, epoch = device_id("bob"), 1
    await ada.index.receive(bob, Cursor(epoch, 1), [(1, name, copy)], after=0)
    await ada.puller.run_until_idle()
    ada.disk.rot(name)
    await verdict_on(ada, name)

    later = first_version(Dot(2, 1), stamp=mine.version.stamp + 1, author="bob")
    theirs = Entry(Kind.SYMLINK, later, b"theirs")
    await ada.index.receive(bob, Cursor(epoch, 2), [(2, PLAN, theirs)], after=0)
    await ada.puller.run_until_idle()
    assert ada.disk.tree() == {"plan": "theirs", name: b"mine"}
    assert not await is_damaged(ada, name)


@pytest.mark.parametrize("size", [10, 300_000])
async def test_many_that_nobody_has_do_not_keep_others_from_being_mended(
    lab: Lab, pair: tuple[Device, Device], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(mend, "_MOST", 2)
    ada, bob = pair
    ada.disk.write("z", bytes(size))
    await lab.converge([ada, bob])
    for name in "abcde":
        ada.disk.write(name, f"nobody else ever had {name}")
        await ada.scan()
        ada.disk.rot(name)
        await verdict_on(ada, name)
    ada.disk.rot("z")
    await verdict_on(ada, "z")
    for _ in range(8):
        await ada.work()
        lab.clock.advance(6)
    assert ada.disk.tree()["z"] == bytes(size)
    # Once all were tried, there is a longer pause than between them.
    pauses = []
    for _ in range(9):
        await ada.work()
        pauses.append(ada.mender.next_retry() or 0)
        lab.clock.advance(pauses[-1])
    assert max(pauses) >= 120


async def test_a_peer_that_comes_later_mends_it(lab: Lab, pair: tuple[Device, Device]) -> None:
    ada, bob = pair
    (session,) = ada.exchanges
    lab.forget(ada, bob)
    session.drop("gone for a while")
    await session.closed.wait()
    ada.disk.rot("plan")
    await verdict_on(ada)
    await ada.work()
    assert await is_damaged(ada)

    lab.connect(ada, bob)
    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}


async def test_it_is_mended_after_a_restart(lab: Lab, pair: tuple[Device, Device]) -> None:
    ada, bob = pair
    await lab.stop(ada)
    ada = await lab.device("ada", disk=ada.disk)
    ada.disk.rot("plan")
    await verdict_on(ada)
    await lab.stop(ada)
    ada = await lab.device("ada", disk=ada.disk)
    await ada.work()
    assert [problem.path for problem in ada.problems.listed()] == ["plan"]

    lab.connect(ada, bob)
    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}


async def test_a_peer_that_gets_it_back_from_a_backup_mends_it_here(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    for device in pair:
        device.disk.rot("plan")
    for device in pair:
        await verdict_on(device)
        await device.work()
    assert await is_damaged(ada)

    lab.clock.advance(1)
    bob.disk.write("plan", "as it was written", mtime_ns=(await entry_of(bob)).mtime_ns)

    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}
    assert told(ada) == told(bob) == []


async def test_what_can_be_read_again_is_not_replaced(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.fail("hash_file", "plan", errno.EIO)
    assert await verdict_on(ada) is Verdict.DAMAGED
    ada.disk.mend()
    bob.requests = 0

    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}
    assert (ada.disk.set_aside(), bob.requests) == ([], 0)
    assert told(ada) == []


async def test_a_disk_that_takes_long_to_fail_is_not_asked_for_every_file(
    lab: Lab, alone: Device
) -> None:
    names = ("one", "plan", "two")
    for name in names:
        alone.disk.write(name, "as it was written")
    await alone.work()
    alone.disk.fail("hash_file", "", errno.EIO)
    for name in names:
        assert await verdict_on(alone, name) is Verdict.DAMAGED
    alone.disk.calls.clear()
    alone.disk.before("hash_file", lambda: lab.clock.advance(30))
    await alone.mender.mend()
    assert alone.disk.calls.count("hash_file") == 1


async def test_what_a_program_may_write_to_is_not_replaced_under_it(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    await verdict_on(ada)
    ada.disk.written.add("plan")
    await ada.work()
    assert await is_damaged(ada)
    assert [reason for reason in told(ada) if "open for writing" in reason]
    assert ada.disk.set_aside() == []

    ada.disk.written.clear()
    lab.clock.advance(61)
    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}


async def test_a_peer_cannot_make_it_try_without_a_pause(lab: Lab, alone: Device) -> None:
    alone.disk.fail("hash_file", "plan", errno.EIO)
    await verdict_on(alone)
    await alone.work()
    alone.disk.calls.clear()
    for _ in range(5):
        alone.may_be_mended()
        await alone.mender.mend()
    assert "hash_file" not in alone.disk.calls

    wait = alone.mender.next_retry()
    assert wait is not None and 0 < wait <= 5
    lab.clock.advance(wait)
    await alone.mender.mend()
    assert "hash_file" in alone.disk.calls


async def test_a_full_disk_is_told_and_it_is_tried_again(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    ada.disk.fail("stage_whole", "", errno.ENOSPC)
    await verdict_on(ada)
    await ada.work()
    assert [(each.path, each.reason) for each in ada.problems.listed()] == [
        ("plan", "No space left on device")
    ]
    wait = ada.mender.next_retry()
    assert wait is not None and 0 < wait <= 60

    ada.disk.mend()
    lab.clock.advance(61)
    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}
    assert ada.mender.next_retry() is None


# --- what people and peers do meanwhile ----------------------------------------------------------


async def test_touching_it_says_that_it_is_right(lab: Lab, alone: Device) -> None:
    alone.disk.rot("plan")
    rotten = alone.disk.tree()["plan"]
    await verdict_on(alone)
    lab.clock.advance(1)
    assert isinstance(rotten, bytes)
    alone.disk.write("plan", rotten)
    await alone.work()

    assert (await entry_of(alone)).content == blake3.blake3(rotten).digest()
    assert not await is_damaged(alone)
    assert told(alone) == []


async def test_a_new_mode_does_not_make_it_a_version(lab: Lab, pair: tuple[Device, Device]) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    await verdict_on(ada)
    lab.clock.advance(1)
    ada.disk.make_executable("plan")
    await ada.scan()
    assert await is_damaged(ada)

    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}
    assert bob.disk.is_executable("plan") and ada.disk.is_executable("plan")


async def test_moved_elsewhere_it_is_still_what_it_should_be(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    await verdict_on(ada)
    lab.clock.advance(1)
    ada.disk.rename("plan", "old plan")

    assert await lab.converge([ada, bob]) == {"old plan": b"as it was written"}
    assert not await is_damaged(ada, "old plan")


async def test_of_very_many_each_is_still_what_it_should_be_where_it_is_moved_to(
    alone: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damaged, "_AT_A_TIME", 1)
    for name in ("before", "plan"):
        alone.disk.write(name, f"as {name} was written")
        await alone.scan()
        alone.disk.rot(name)
        await verdict_on(alone, name)
    should_be = await entry_of(alone)
    alone.disk.rename("plan", "moved")
    await alone.scan()
    assert (await entry_of(alone, "moved")).content == should_be.content
    assert await is_damaged(alone, "moved")


async def test_moved_over_another_file_it_is_still_what_it_should_be(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.write("other", "something else")
    await lab.converge([ada, bob])
    ada.disk.rot("plan")
    await verdict_on(ada)
    lab.clock.advance(1)
    ada.disk.remove("other")
    ada.disk.rename("plan", "other")

    assert await lab.converge([ada, bob]) == {"other": b"as it was written"}


async def test_another_file_with_the_same_bytes_is_meant_so(lab: Lab, alone: Device) -> None:
    alone.disk.rot("plan")
    rotten = alone.disk.tree()["plan"]
    assert isinstance(rotten, bytes)
    await verdict_on(alone)
    lab.clock.advance(1)
    mtime_ns = (await entry_of(alone)).mtime_ns
    alone.disk.write("copy", rotten, mtime_ns=mtime_ns)
    await alone.work()

    assert (await entry_of(alone, "copy")).content == blake3.blake3(rotten).digest()
    assert not await is_damaged(alone, "copy")


async def test_a_directory_in_the_place_of_an_unreadable_file_is_one(
    lab: Lab, alone: Device
) -> None:
    alone.disk.write("plan", "as of old", mtime_ns=0)
    await alone.work()
    alone.disk.fail("hash_file", "plan", errno.EIO)
    assert await verdict_on(alone) is Verdict.DAMAGED
    alone.disk.remove("plan")
    alone.disk.make_directory("plan")
    await alone.work()

    assert (await entry_of(alone)).kind is Kind.DIRECTORY
    assert not await is_damaged(alone)


async def test_an_edit_of_a_peer_replaces_it(lab: Lab, pair: tuple[Device, Device]) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    await verdict_on(ada)
    lab.clock.advance(1)
    bob.disk.write("plan", "edited by bob")

    assert await lab.converge([ada, bob]) == {"plan": b"edited by bob"}
    assert told(ada) == []


async def test_a_new_time_from_a_peer_comes_with_the_right_bytes(
    lab: Lab, pair: tuple[Device, Device]
) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    await verdict_on(ada)
    ada.disk.fail("stage_whole", "", errno.ENOSPC)
    lab.clock.advance(1)
    bob.disk.write("plan", "as it was written")
    for _ in range(3):
        await bob.work()
        await lab.settle()
        await ada.work()
    assert await is_damaged(ada)

    ada.disk.mend()
    lab.clock.advance(400)
    assert await lab.converge([ada, bob]) == {"plan": b"as it was written"}
    assert (await entry_of(ada)).mtime_ns == (await entry_of(bob)).mtime_ns


async def test_a_deletion_by_a_peer_deletes_it(lab: Lab, pair: tuple[Device, Device]) -> None:
    ada, bob = pair
    ada.disk.rot("plan")
    await verdict_on(ada)
    bob.disk.remove("plan")

    assert await lab.converge([ada, bob]) == {}
    assert not await is_damaged(ada)


@pytest.mark.parametrize("later", ["ada", "bob"])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_damaged_side_of_a_conflict_is_mended_before_it_is_settled(
    lab: Lab, ada: Device, later: str, is_known: bool
) -> None:
    bob, cyd = await lab.devices("bob cyd")
    first, second = (bob, ada) if later == "ada" else (ada, bob)
    first.disk.write("plan", f"of {first.name}")
    lab.clock.advance(1)
    second.disk.write("plan", f"of {second.name}")
    for device in (ada, bob):
        await device.work()
    # Cyd has what ada wrote, at that name only.
    away = lab.connect(ada, cyd)
    await lab.converge([ada, cyd])
    await away.cut()
    ada.disk.rot("plan")
    if is_known:
        await verdict_on(ada)
    lab.connect(ada, bob)
    for _ in range(2):
        lab.clock.advance(1)
        await ada.work()
        await bob.work()
        await lab.settle()
    lab.connect(ada, cyd)

    tree = await lab.converge([ada, bob, cyd])

    assert tree["plan"] == f"of {later}".encode()
    (copy,) = conflicts(tree)
    assert tree[copy] == f"of {first.name}".encode()

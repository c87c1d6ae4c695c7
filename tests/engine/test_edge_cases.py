"""What users, programs and file systems do, on whole devices in memory. docs/edge-cases.md lists
these cases, and where the others are tested."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from p2psync.core.entry import Entry, Kind
from p2psync.core.merge import conflict_copy
from p2psync.core.relpath import RelPath
from p2psync.ports import Result, Step
from tests.engine.test_pull import BOB, held, link, offer, pull, scan_and_pull, tombstone, wanted
from tests.support.devices import Device, Lab, conflicts, device_id
from tests.support.memory_disk import MemoryDisk

DAY_S = 86_400.0
SECOND_NS = 1_000_000_000


# --- names --------------------------------------------------------------------------------------


async def test_a_name_that_changes_in_case_alone_is_a_move(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    ada.disk.write("Notes/Plan.txt", "x" * 1000)
    lab.connect(ada, bob)
    await lab.converge(devices)
    asked = ada.requests
    ada.disk.rename("Notes/Plan.txt", "Notes/plan.txt")
    ada.disk.rename("Notes", "notes")
    assert set(await lab.converge(devices)) == {"notes", "notes/plan.txt"}
    assert ada.requests == asked


async def test_a_users_file_that_is_named_like_a_conflict_copy_is_a_file_like_any_other(
    lab: Lab,
) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    name = "plan (conflict bob 2026-03-01 7f3a9c).txt"
    ada.disk.write(name, "mine")
    lab.connect(ada, bob)
    await lab.converge(devices)
    assert [await device.index.conflicts() for device in devices] == [[], []]
    for device in devices:
        device.disk.write(name, f"by {device.name}")
        await device.scan()
    tree = await lab.converge(devices)
    assert set(tree.values()) == {b"by ada", b"by bob"}
    assert name in tree
    assert [len(await device.index.conflicts()) for device in devices] == [1, 1]


# --- conflicts ----------------------------------------------------------------------------------


async def test_of_many_conflicting_contents_every_one_stays(ada: Device) -> None:
    peers = range(2, 32)
    for number in peers:
        await offer(ada, device_id(f"peer {number}"), ("it", link(f"by {number}", number, 1)))
    await pull(ada)
    tree = ada.disk.tree()
    assert set(tree.values()) == {f"by {number}" for number in peers}
    assert len(conflicts(tree)) == len(peers) - 1


async def test_while_a_losing_content_cannot_be_kept_the_winner_waits(
    lab: Lab, ada: Device
) -> None:
    ada.disk.link("it", "mine")
    await ada.scan()
    mine = await held(ada, "it")
    name, _ = conflict_copy(RelPath("it"), mine)
    ada.disk.fail("commit", name)
    later = link("theirs", 2, mine.version.stamp)
    await offer(ada, BOB, ("it", later))
    await pull(ada)
    assert ada.disk.tree() == {"it": "mine"}
    assert (await held(ada, "it")) == mine
    assert [problem.path for problem in ada.problems.listed()] == ["it"]
    ada.disk.mend()
    lab.clock.advance(400)
    await pull(ada)
    assert ada.disk.tree() == {"it": "theirs", name: "mine"}
    assert await wanted(ada) == []


@pytest.mark.slow
async def test_counters_of_a_removed_device_make_no_conflict_and_nothing_pending(lab: Lab) -> None:
    ada, bob, cyd = await lab.devices("ada bob cyd")
    links = [lab.connect(ada, cyd), lab.connect(bob, cyd)]
    cyd.disk.write("it", "by cyd")
    cyd.disk.write("other", "by cyd too")
    await lab.converge([ada, bob, cyd])
    for each in links:
        await each.cut()
    for device in (ada, bob):
        await device.index.forget_peer(cyd.id)
    lab.connect(ada, bob)
    for device in (ada, bob, ada):
        device.disk.write("it", f"by {device.name} at {lab.clock.now_ns()}")
        tree = await lab.converge([ada, bob])
        assert not conflicts(tree)
    ada.disk.remove("other")
    assert set(await lab.converge([ada, bob])) == {"it"}

    dan = await lab.device("dan")
    lab.connect(dan, bob)
    assert set(await lab.converge([ada, bob, dan])) == {"it"}
    for device in (ada, bob, dan):
        counts = await device.index.counts()
        assert (counts.need_files, counts.need_deletes) == (0, 0)


# --- content that changes under us --------------------------------------------------------------


async def test_what_changed_after_it_was_announced_arrives_as_it_is_now(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    for name, size in (("small", 1), ("large", 700_000)):
        ada.disk.write(name, b"1" * size)
    await ada.scan()
    for name, size in (("small", 1), ("large", 700_000)):
        ada.disk.write(name, b"2" * size)
    lab.connect(ada, bob)
    assert await lab.converge(devices) == {"small": b"2", "large": b"2" * 700_000}
    assert not bob.disk.trash(), "what was announced first was never there to be shown"


@pytest.mark.parametrize("granularity_ns", [1, 2 * SECOND_NS])
async def test_an_edit_that_keeps_size_time_and_inode_is_found_by_the_next_scan(
    lab: Lab, granularity_ns: int
) -> None:
    """Within the clock's tick not even the ctime tells; a file read in it is read again."""
    ada = await lab.device("ada", disk=MemoryDisk(lab.clock.now_ns, granularity_ns=granularity_ns))
    lab.clock.advance(2.0 - lab.clock.now_ns() % (2 * SECOND_NS) / SECOND_NS)
    ada.disk.write("it", "one", mtime_ns=SECOND_NS)
    ada.local.mark(None)
    lab.clock.advance(0.05)
    await ada.local.scan()
    first = await held(ada, "it")
    ada.disk.write("it", "two", mtime_ns=SECOND_NS)
    lab.clock.advance(0.05)
    await ada.scan()
    second = await held(ada, "it")
    assert (first.size, first.mtime_ns) == (second.size, second.mtime_ns)
    assert first.content != second.content
    assert second.version.covers(first.version.dot)


async def test_an_editors_save_by_a_temporary_file_makes_one_version(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    lab.connect(ada, bob)
    ada.disk.write("it", "one")
    await lab.converge(devices)
    counter, sequence = ada.index.counter, bob.index.sequence
    ada.disk.write(".it.swp", "two")
    ada.disk.rename(".it.swp", "it")
    assert await lab.converge(devices) == {"it": b"two"}
    assert ada.index.counter == counter + 1
    assert bob.index.sequence == sequence + 1


async def test_edits_after_the_clock_was_set_back_are_edits(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    lab.connect(ada, bob)
    ada.disk.write("it", "first")
    ada.disk.write("other", "stays")
    await lab.converge(devices)
    lab.clock.set_by(-3 * 365 * DAY_S)
    for number, device in enumerate((ada, bob, ada)):
        device.disk.write("it", f"edit {number}")
        tree = await lab.converge(devices)
        assert tree == {"it": f"edit {number}".encode(), "other": b"stays"}
    bob.disk.remove("it")
    assert await lab.converge(devices) == {"other": b"stays"}


class PoorDisk(MemoryDisk):
    """Keeps whole seconds, shows every file as executable, and has to be read once more after each
    change."""

    def commit(self, steps: Sequence[Step], *, damaged: bool = False) -> list[Result]:
        shown = [step._replace(entry=_shown(step.entry)) for step in steps]
        return [
            result._replace(step=step, fingerprint=mark and mark._replace(racy=True))
            for step, result in zip(steps, super().commit(shown, damaged=damaged), strict=True)
            for mark in [result.fingerprint]
        ]


def _shown(entry: Entry) -> Entry:
    second = entry.mtime_ns - entry.mtime_ns % SECOND_NS
    return replace(entry, mtime_ns=second, executable=entry.kind == Kind.FILE)


async def test_what_a_poor_file_system_makes_of_metadata_is_not_told_to_others(lab: Lab) -> None:
    ada = await lab.device("ada")
    bob = await lab.device("bob", disk=PoorDisk(lab.clock.now_ns))
    lab.connect(ada, bob)
    for name in ("it", "program"):
        ada.disk.write(name, name, mtime_ns=1_600_000_000_123_456_789)
    await lab.converge([ada, bob])
    ada.disk.make_executable("program")
    await lab.converge([ada, bob])
    counter, sequence = bob.index.counter, ada.index.sequence
    await bob.scan()
    await lab.converge([ada, bob])
    assert (bob.index.counter, ada.index.sequence) == (counter, sequence)
    for name in ("it", "program"):
        entry = await held(bob, name)
        assert entry == await held(ada, name)
        assert entry.mtime_ns == 1_600_000_000_123_456_789
        assert entry.executable == (name == "program")

    bob.disk.write("it", "edited there")
    await lab.converge([ada, bob])
    assert ada.disk.read_text("it") == "edited there"
    assert not ada.disk.is_executable("it")
    assert ada.disk.is_executable("program")


# --- deletions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["an edit", "a file in its place", "a directory in its place"])
async def test_what_is_written_while_a_deletion_is_carried_out_stays(
    lab: Lab, ada: Device, new: str
) -> None:
    ada.disk.write("it", "old")
    await ada.scan()
    await offer(ada, BOB, ("it", tombstone(2, 1, after=await held(ada, "it"))))

    def write() -> None:
        if new != "an edit":
            ada.disk.remove("it")
        if new == "a directory in its place":
            ada.disk.write("it/new", "new")
        else:
            ada.disk.write("it", "new")

    ada.disk.before("commit", write)
    await scan_and_pull(lab, ada)
    await scan_and_pull(lab, ada)
    assert b"new" in ada.disk.tree().values()
    assert ada.disk.trash() == []
    assert (await held(ada, "it")).is_live
    assert await wanted(ada) == []


async def test_a_file_that_nobody_scanned_yet_stands_against_a_deletion(ada: Device) -> None:
    """It took the place of one that was deleted here, and both unseen."""
    ada.disk.write("it", "old")
    await ada.scan()
    deleted = tombstone(2, 1, after=await held(ada, "it"))
    ada.disk.remove("it")
    ada.disk.write("it", "new and never scanned")
    await offer(ada, BOB, ("it", deleted))
    await pull(ada)
    assert ada.disk.tree() == {"it": b"new and never scanned"}
    await ada.work()
    assert (await held(ada, "it")).kind == Kind.FILE


async def test_a_device_that_was_away_for_years_brings_nothing_back(lab: Lab) -> None:
    ada, bob, cyd = await lab.devices("ada bob cyd")
    links = [lab.connect(ada, bob), lab.connect(ada, cyd)]
    ada.disk.write("d/it", "1")
    ada.disk.write("stays", "2")
    await lab.converge([ada, bob, cyd])
    await links[1].cut()
    ada.disk.remove("d")
    assert set(await lab.converge([ada, bob])) == {"stays"}
    lab.clock.advance(3 * 365 * DAY_S)
    cyd.disk.write("d/new", "made meanwhile")
    await cyd.scan()
    lab.connect(bob, cyd)
    tree = await lab.converge([ada, bob, cyd])
    assert set(tree) == {"d", "d/new", "stays"}


@pytest.mark.parametrize("is_edited", [False, True])
async def test_a_device_set_back_with_index_and_files_undoes_nobodys_work(
    lab: Lab, tmp_path: Path, *, is_edited: bool
) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    ada.disk.write("edited", "first")
    ada.disk.write("deleted", "gone later")
    lab.connect(ada, bob)
    await lab.converge(devices)
    await lab.stop(ada)
    shutil.copy(lab.index_file(ada), tmp_path / "backup")
    backup = dict(ada.disk._nodes)
    ada = await lab.device("ada", disk=ada.disk)
    lab.connect(ada, bob)
    ada.disk.write("edited", "second")
    ada.disk.write("by ada", "new")
    bob.disk.write("by bob", "new too")
    bob.disk.remove("deleted")
    after = await lab.converge([ada, bob])
    await lab.stop(ada)

    shutil.copy(tmp_path / "backup", lab.index_file(ada))
    ada.disk._nodes = backup
    ada = await lab.device("ada", disk=ada.disk)
    if is_edited:
        # Before it meets anybody, and not having seen what it forgot.
        lab.clock.advance(1)
        ada.disk.write("edited", "third")
        await ada.scan()
    lab.connect(ada, bob)
    tree = await lab.converge([ada, bob])
    if is_edited:
        copies = [tree.pop(path) for path in conflicts(tree)]
        assert [tree.pop("edited"), *copies] == [b"third", b"second"]
        del after["edited"]
    assert tree == after

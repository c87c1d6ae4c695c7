import asyncio
import errno

import blake3
import pytest

from p2psync.core.entry import Entry, Kind
from p2psync.core.relpath import RelPath
from p2psync.engine import finding, local
from p2psync.engine.local import Brakes
from p2psync.ports import Damage, RootUnavailableError
from tests.support import memory_disk
from tests.support.devices import Device, Lab

FEW = Brakes(files=5, percent=10)


async def held(device: Device, path: str) -> Entry | None:
    found = (await device.index.held([RelPath(path)])).get(RelPath(path))
    return found.entry if found is not None else None


async def kinds(device: Device) -> dict[str, Kind]:
    entries = await device.index.entries_after(0, 10_000)
    return {path: entry.kind for _, path, entry in entries}


async def look_once(device: Device, *paths: str) -> None:
    """One scan, now, of these paths alone."""
    device.local.mark([RelPath(path) for path in paths])
    await device.local.wait(0)
    await device.local.scan()


async def test_everything_is_found_and_its_parents_are_recorded_before_it(ada: Device) -> None:
    ada.disk.write("d/e/file", "1")
    ada.disk.link("to", "d")
    await ada.scan()
    entries = await ada.index.entries_after(0, 10)
    assert [path for _, path, _ in entries] == ["d", "to", "d/e", "d/e/file"]
    dots = [entry.version.dot for _, _, entry in entries]
    assert len({dot.counter for dot in dots}) == 4
    assert max(dot.counter for dot in dots) == ada.index.counter


async def test_what_many_changes_are_is_recorded_before_all_have_been_seen_but_large_files_last(
    ada: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_disk, "MOST_CHANGED", 3)
    monkeypatch.setattr(finding, "_MUCH", 6)
    monkeypatch.setattr(local, "_LARGE", 100)
    names = [f"d{number // 5}/{number:02d}" for number in range(20)]
    for name in names:
        ada.disk.write(name, "1")
    ada.disk.write("d0/large", "1" * 100)
    walks: list[int] = []
    ada.local.recorded = lambda: walks.append(ada.disk.calls.count("walk"))

    await ada.scan()

    entries = await ada.index.entries_after(0, 100)
    assert {path for _, path, _ in entries} == {*names, "d0", "d1", "d2", "d3", "d0/large"}
    assert entries[-1][1] == "d0/large"
    assert walks[0] == 2 and walks == sorted(walks) and walks[-1] > 6
    assert await ada.index.counts() == (21, 120, 0, 0, 0, 0, 0)


async def test_a_move_across_a_scan_that_records_early_is_no_deletion(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await lab.device("ada", brakes=FEW)
    for number in range(12):
        ada.disk.write(f"z/{number:02d}", str(number))
    await ada.scan()
    monkeypatch.setattr(memory_disk, "MOST_CHANGED", 3)
    monkeypatch.setattr(finding, "_MUCH_MOVED", 3)
    ada.disk.make_directory("a")
    for number in range(12):
        ada.disk.rename(f"z/{number:02d}", f"a/{number:02d}")

    await ada.scan()

    assert not ada.local.braked
    assert sum(kind == Kind.FILE for kind in (await kinds(ada)).values()) == 12


async def test_a_second_look_at_the_same_records_nothing(ada: Device) -> None:
    ada.disk.write("file", "1", mtime_ns=1)
    await ada.scan()
    sequence = ada.index.sequence
    ada.disk.write("file", "1", mtime_ns=1)
    await ada.scan()
    assert ada.index.sequence == sequence


async def test_an_edit_a_touch_and_a_deletion_are_versions_of_the_path(ada: Device) -> None:
    ada.disk.write("file", "1")
    await ada.scan()
    first = await held(ada, "file")
    ada.disk.make_executable("file")
    await ada.scan()
    touched = await held(ada, "file")
    ada.disk.remove("file")
    await ada.scan()
    gone = await held(ada, "file")
    assert first and touched and gone
    assert touched.executable and touched.version.origin == first.version.origin
    assert gone.kind == Kind.TOMBSTONE and gone.version.covers(touched.version.dot)


async def test_a_file_that_is_being_written_waits_and_is_pending(lab: Lab, ada: Device) -> None:
    ada.disk.write("file", "1")
    await look_once(ada, "file")
    assert await held(ada, "file") is None
    assert ada.local.pending
    lab.clock.advance(0.05)
    await look_once(ada)
    assert await held(ada, "file") is not None
    assert not ada.local.pending


async def test_a_file_that_is_written_without_a_pause_is_read_now_and_then(
    lab: Lab, ada: Device
) -> None:
    await ada.scan()
    for number in range(400):
        ada.disk.write("log", f"line {number}")
        await look_once(ada, "log")
        if await held(ada, "log") is not None:
            break
        lab.clock.advance(0.03)
    assert 300 < number < 350


async def test_a_file_that_vanishes_before_it_is_read_is_no_problem(ada: Device) -> None:
    ada.disk.write("file", "1")
    ada.disk.before("hash_file", lambda: ada.disk.remove("file"))
    await ada.scan()
    assert await kinds(ada) == {}
    assert ada.problems.listed() == []
    assert not ada.local.pending


async def test_what_was_edited_after_it_was_read_is_read_again(ada: Device) -> None:
    ada.disk.write("file", "1")

    def edit_after_hashing() -> None:
        ada.disk.before("look", lambda: ada.disk.write("file", "two"))

    ada.disk.before("hash_file", edit_after_hashing)
    await ada.scan()
    assert ada.index.sequence and (await ada.index.entries_after(0, 9))[0][2].size == 3
    assert len(await ada.index.entries_after(0, 9)) == 1


@pytest.mark.parametrize("become", ["gone", "file"])
async def test_a_directory_that_is_none_any_more_is_not_recorded(ada: Device, become: str) -> None:
    ada.disk.make_directory("d")

    def change() -> None:
        ada.disk.remove("d")
        if become == "file":
            ada.disk.write("d", "1")

    ada.disk.before("look", change)
    await ada.scan()
    assert await kinds(ada) == ({} if become == "gone" else {"d": Kind.FILE})


async def test_a_file_in_place_of_a_directory_takes_the_children_along(ada: Device) -> None:
    ada.disk.write("d/file", "1")
    await ada.scan()
    ada.disk.remove("d")
    ada.disk.write("d", "2")
    await look_once(ada, "d/file")
    await ada.scan()
    assert await kinds(ada) == {"d": Kind.FILE, "d/file": Kind.TOMBSTONE}


async def test_a_file_that_cannot_be_read_is_a_problem_until_it_can(ada: Device) -> None:
    ada.disk.write("good", "1")
    ada.disk.write("bad", "2")
    ada.disk.fail("hash_file", "bad")
    await ada.scan()
    assert await kinds(ada) == {"good": Kind.FILE}
    assert [problem.path for problem in ada.problems.listed()] == ["bad"]
    ada.disk.mend()
    await ada.scan()
    assert await kinds(ada) == {"good": Kind.FILE, "bad": Kind.FILE}
    assert ada.problems.listed() == []


@pytest.mark.parametrize("everything", [True, False])
async def test_the_problem_of_a_file_goes_with_it(ada: Device, everything: bool) -> None:
    ada.disk.write("bad", "2")
    ada.disk.fail("hash_file", "bad", errno.EIO)
    await ada.scan()
    ada.disk.remove("bad")
    if everything:
        await ada.scan()
    else:
        await look_once(ada, "bad")
    assert ada.problems.listed() == []


async def test_without_the_root_everything_stays_marked(ada: Device) -> None:
    ada.disk.write("file", "1")
    ada.disk.lose_root()
    with pytest.raises(RootUnavailableError):
        await ada.local.scan()
    assert ada.local.pending
    ada.disk.root_is_lost = False
    await ada.scan()
    assert await kinds(ada) == {"file": Kind.FILE}


async def test_a_mark_during_a_scan_is_not_lost(ada: Device) -> None:
    await ada.scan()
    ada.disk.write("one", "1")
    ada.disk.write("two", "2")
    ada.disk.before("look", lambda: ada.local.mark([RelPath("two")]))
    await look_once(ada, "one")
    async with asyncio.timeout(1):
        await ada.local.wake.wait()
    await ada.scan()
    assert await kinds(ada) == {"one": Kind.FILE, "two": Kind.FILE}


# --- deletions -----------------------------------------------------------------------------------


async def braked(lab: Lab) -> Device:
    """A device on which 20 of 40 files have vanished."""
    ada = await lab.device("ada", brakes=FEW)
    for number in range(40):
        ada.disk.write(f"d{number % 2}/{number}", f"content {number}")
    await ada.scan()
    ada.disk.remove("d0")
    await ada.scan()
    return ada


async def test_many_deletions_wait_for_approval_and_others_go_on(lab: Lab) -> None:
    ada = await braked(lab)
    assert len(ada.local.braked) == 21
    ada.disk.write("new", "n")
    await ada.scan()
    found = await kinds(ada)
    assert found["new"] == Kind.FILE and Kind.TOMBSTONE not in found.values()

    assert ada.local.approve() == 21
    await ada.local.wait(0)
    await ada.local.scan()
    found = await kinds(ada)
    assert list(found.values()).count(Kind.TOMBSTONE) == 21
    assert not ada.local.braked


async def test_an_approval_is_for_what_was_waiting_then(lab: Lab) -> None:
    ada = await braked(lab)
    ada.local.approve()
    ada.disk.remove("d1")
    await ada.scan()
    found = await kinds(ada)
    assert {path for path, kind in found.items() if kind == Kind.TOMBSTONE} == {
        path for path in found if path.startswith("d0")
    }
    assert len(ada.local.braked) == 21


async def test_an_approval_does_not_outlive_what_it_was_for(lab: Lab) -> None:
    ada = await braked(lab)
    ada.local.approve()
    for number in range(0, 40, 2):
        ada.disk.write(f"d0/{number}", f"content {number}")
    await ada.scan()
    assert not ada.local.braked
    ada.disk.remove("d0")
    await ada.scan()
    assert len(ada.local.braked) == 21


async def test_a_burst_of_deletions_is_counted_as_one(lab: Lab) -> None:
    ada = await lab.device("ada", brakes=Brakes(files=50, percent=10))
    for number in range(90):
        ada.disk.write(f"d/{number}", f"content {number}")
    await ada.scan()
    for first in (0, 30, 60):
        gone = [f"d/{number}" for number in range(first, first + 30)]
        for path in gone:
            ada.disk.remove(path)
        await look_once(ada, *gone)
        lab.clock.advance(0.1)
    await ada.scan()
    assert len(ada.local.braked) == 90
    assert Kind.TOMBSTONE not in (await kinds(ada)).values()


async def test_deletions_in_several_portions_within_a_minute_are_counted_together(
    lab: Lab,
) -> None:
    ada = await lab.device("ada", brakes=Brakes(files=50, percent=10))
    for number in range(90):
        ada.disk.write(f"d/{number}", f"content {number}")
    await ada.scan()
    for first in (0, 10, 20, 30, 40):
        for number in range(first, first + 10):
            ada.disk.remove(f"d/{number}")
        await ada.scan()
        lab.clock.advance(5.0)
    assert not ada.local.braked
    ada.disk.remove("d/50")
    await ada.scan()
    assert ada.local.braked == {"d/50"}
    lab.clock.advance(120.0)
    await ada.scan()
    assert ada.local.braked == {"d/50"}, "only a person lets it go"
    ada.local.approve()
    await ada.scan()
    assert not ada.local.braked
    ada.disk.remove("d/51")
    await ada.scan()
    assert not ada.local.braked, "that was long ago"


async def test_a_move_of_many_files_is_no_deletion(lab: Lab) -> None:
    ada = await lab.device("ada", brakes=FEW)
    for number in range(40):
        ada.disk.write(f"d/{number}", f"content {number}")
    await ada.scan()
    ada.disk.rename("d", "e")
    await look_once(ada, "d", "e")
    lab.clock.advance(0.3)
    await look_once(ada)
    found = await kinds(ada)
    assert found["d/1"] == Kind.TOMBSTONE and found["e/1"] == Kind.FILE
    assert not ada.local.braked


async def test_the_new_name_of_a_file_is_recorded_before_the_old_one_goes(
    lab: Lab, ada: Device
) -> None:
    ada.disk.write("old", "x")
    await ada.scan()
    ada.disk.rename("old", "new")
    await look_once(ada, "old", "new")
    entries = await ada.index.entries_after(0, 9)
    assert [(path, entry.kind) for _, path, entry in entries] == [
        ("new", Kind.FILE),
        ("old", Kind.TOMBSTONE),
    ]


async def test_what_was_moved_to_where_the_same_was_is_news(lab: Lab) -> None:
    """Another device has deleted that, and this one ended when it had done so and not recorded."""
    ada, bob = await lab.devices("ada bob")
    connection = lab.connect(ada, bob)
    for name in ("it", "other"):
        ada.disk.write(name, "content", mtime_ns=5)
    await lab.converge([ada, bob])
    await connection.cut()
    bob.disk.remove("it")
    await bob.scan()
    ada.disk.remove("it")
    ada.disk.rename("other", "it")
    ada.disk.make_directory("other")
    lab.connect(ada, bob)
    assert await lab.converge([ada, bob]) == {"it": b"content", "other": None}


async def test_hard_links_are_not_taken_for_moved(lab: Lab, ada: Device) -> None:
    ada.disk.write("one", "content")
    ada.disk.hard_link("one", "two")
    await ada.scan()
    before = ada.index.sequence
    # Both have another ctime now, as after a chmod and back.
    ada.disk.hard_link("one", "two")
    await ada.scan()
    assert ada.index.sequence == before


async def test_files_that_moved_with_their_directory_are_told_in_pairs_and_not_read_again(
    ada: Device,
) -> None:
    for name in "12":
        ada.disk.write(f"old/{name}", name)
    await ada.scan()
    before = {path[-1]: entry.content for _, path, entry in await ada.index.entries_after(0, 9)}
    ada.disk.calls.clear()
    ada.disk.rename("old", "new")
    await look_once(ada, "old", "new")

    assert "hash_file" not in ada.disk.calls
    entries = await ada.index.entries_after(0, 9)
    assert [path for _, path, _ in entries] == ["new", "new/1", "old/1", "new/2", "old/2", "old"]
    assert [entry.content for _, path, entry in entries if path.startswith("new/")] == [
        before["1"],
        before["2"],
    ]


async def test_files_that_are_seen_to_come_after_they_were_seen_to_go_are_told_in_pairs_too(
    lab: Lab, ada: Device
) -> None:
    names = [f"{number:02d}" for number in range(30)]
    for name in names:
        ada.disk.write(f"old/{name}", name)
    await ada.scan()
    ada.disk.rename("old", "new")
    await look_once(ada, "old")
    await look_once(ada, "new")
    lab.clock.advance(0.3)
    await look_once(ada)
    files = [path for _, path, _ in await ada.index.entries_after(0, 99) if "/" in path]
    assert files == [f"{place}/{name}" for name in names for place in ("new", "old")]


async def test_a_file_that_moved_and_was_edited_is_read(ada: Device) -> None:
    ada.disk.write("old/it", "content")
    await ada.scan()
    ada.disk.rename("old", "new")
    found = ada.disk.look([RelPath("new/it")])[RelPath("new/it")]
    assert found is not None
    # Such as a program leaves that puts the time back.
    ada.disk.write("new/it", "CONTENT", mtime_ns=found.fingerprint.mtime_ns)
    await ada.scan()
    entry = await held(ada, "new/it")
    assert entry is not None and entry.content == blake3.blake3(b"CONTENT").digest()
    assert (await kinds(ada))["old/it"] == Kind.TOMBSTONE


async def test_a_file_that_moved_once_it_was_known_as_damaged_is_read(ada: Device) -> None:
    ada.disk.write("old/it", "content")
    await ada.scan()
    mark = (await ada.index.held([RelPath("old/it")]))[RelPath("old/it")].fingerprint
    assert mark is not None
    await ada.index.mark_damaged([Damage(RelPath("old/it"), mark, b"")], now_ns=1)
    ada.disk.calls.clear()
    ada.disk.rename("old", "new")
    await ada.scan()
    assert "hash_file" in ada.disk.calls


async def test_of_two_new_names_of_one_file_the_deletion_of_the_old_one_is_told_once(
    ada: Device,
) -> None:
    ada.disk.write("old/it", "content")
    await ada.scan()
    before = ada.index.counter
    ada.disk.rename("old", "new")
    ada.disk.hard_link("new/it", "new/same")
    await ada.scan()
    entries = await ada.index.entries_after(0, 9)
    assert sorted(path for _, path, _ in entries) == ["new", "new/it", "new/same", "old", "old/it"]
    assert ada.index.counter == before + 5


async def test_a_deletion_waits_for_a_copy_that_is_being_written(lab: Lab, ada: Device) -> None:
    ada.disk.write("old", "x")
    await ada.scan()
    ada.disk.write("new", "x")
    ada.disk.remove("old")
    await look_once(ada, "old", "new")
    assert await kinds(ada) == {"old": Kind.FILE}
    await ada.scan()
    entries = await ada.index.entries_after(0, 9)
    assert [path for _, path, _ in entries] == ["new", "old"]


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_large_file_is_read_soon_after_it_was_closed(
    lab: Lab, ada: Device, is_open: bool
) -> None:
    ada.disk.write("it", b"x" * 5_000_000)
    if is_open:
        ada.disk.written.add("it")
    await look_once(ada, "it")
    assert await kinds(ada) == {}
    lab.clock.advance(0.3)
    await look_once(ada, "it")
    assert await kinds(ada) == ({} if is_open else {"it": Kind.FILE})
    lab.clock.advance(0.8)
    await look_once(ada, "it")
    assert await kinds(ada) == {"it": Kind.FILE}


async def test_a_deletion_does_not_wait_for_ever_for_new_files(lab: Lab, ada: Device) -> None:
    ada.disk.write("old", "x")
    await ada.scan()
    ada.disk.remove("old")
    waited = 0.0
    while (entry := await held(ada, "old")) and entry.is_live:
        ada.disk.write("log", f"after {waited}")
        await look_once(ada, "log", "old")
        lab.clock.advance(0.03)
        waited += 0.03
        assert waited < 4
    assert waited > 2

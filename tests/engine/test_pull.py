import asyncio
import errno
from collections.abc import Sequence

import msgspec
import pytest

from p2psync.core.decide import Copy
from p2psync.core.entry import SINGLE_CHUNK_MAX, Entry, Fingerprint, Kind
from p2psync.core.ids import DeviceID
from p2psync.core.merge import conflict_copy
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, content_successor, first_version
from p2psync.engine.content import FileWanted, Staged
from p2psync.engine.local import Brakes
from p2psync.ports import (
    Action,
    Cursor,
    Damage,
    Outcome,
    Result,
    RootUnavailableError,
    Row,
    Step,
    Wanted,
)
from tests.support.devices import Device, Lab, conflicts, device_id
from tests.support.steps import stage

BOB = device_id("bob")
CYD = device_id("cyd")


def version(replica: int, counter: int, *, after: Entry | None = None) -> Entry:
    """A directory of that version."""
    seen = after.version if after is not None else None
    return Entry(
        Kind.DIRECTORY,
        content_successor(seen, Dot(replica, counter), now_ns=10 * counter, author="bob"),
    )


def link(target: str, replica: int, counter: int, *, after: Entry | None = None) -> Entry:
    """Links need no bytes, so nobody has to be connected."""
    made = version(replica, counter, after=after)
    return Entry(Kind.SYMLINK, made.version, target.encode())


def tombstone(replica: int, counter: int, *, after: Entry | None) -> Entry:
    return Entry(Kind.TOMBSTONE, version(replica, counter, after=after).version)


async def offer(device: Device, peer: DeviceID, *offers: tuple[str, Entry]) -> None:
    cursor = await device.index.cursor(peer)
    numbered = [
        (cursor.sequence + number, RelPath(path), entry)
        for number, (path, entry) in enumerate(offers, start=1)
    ]
    await device.index.receive(peer, Cursor(1, cursor.sequence + len(offers)), numbered, after=0)


async def held(device: Device, path: str) -> Entry:
    return (await device.index.held([RelPath(path)]))[RelPath(path)].entry


async def wanted(device: Device) -> list[str]:
    return [
        each.path
        for tombstones in (False, True)
        for each in await device.index.wanted(limit=100, tombstones=tombstones)
    ]


async def pull(device: Device) -> None:
    async with asyncio.timeout(5):
        await device.puller.run_until_idle()


async def scan_and_pull(lab: Lab, device: Device) -> None:
    """As a daemon does it, until nothing is due any more."""
    for _ in range(8):
        await device.work()
        if device.puller.next_retry() is None:
            break
        lab.clock.advance(1)


# --- what is carried out --------------------------------------------------------------------------


async def test_offers_become_held_and_nothing_is_wanted_any_more(ada: Device) -> None:
    await offer(ada, BOB, ("d/to", link("x", 2, 1)), ("d", version(2, 2)))
    await pull(ada)
    assert ada.disk.tree() == {"d": None, "d/to": "x"}
    assert (await held(ada, "d")).version == version(2, 2).version
    assert await wanted(ada) == []
    assert await ada.index.applied(BOB) == 2


async def test_a_deleted_parent_comes_back_with_its_child(ada: Device) -> None:
    await offer(ada, BOB, ("d", tombstone(2, 1, after=None)), ("d/e/to", link("x", 2, 2)))
    await pull(ada)
    assert ada.disk.tree() == {"d": None, "d/e": None, "d/e/to": "x"}
    assert (await held(ada, "d")).version.dot.replica == ada.index.replica
    assert await wanted(ada) == []


async def test_deletions_go_deepest_first(ada: Device) -> None:
    ada.disk.write("d/e/f/g", "1")
    await ada.scan()
    before = ada.disk.calls.count("commit")
    for path in ("d", "d/e", "d/e/f", "d/e/f/g"):
        await offer(ada, BOB, (path, tombstone(2, 1, after=await held(ada, path))))
    await pull(ada)
    assert ada.disk.tree() == {}
    assert ada.disk.calls.count("commit") == before + 1


async def test_offers_that_change_nothing_are_settled_and_told(ada: Device) -> None:
    ada.disk.link("to", "x")
    await ada.scan()
    mine = await held(ada, "to")
    sequence = ada.index.sequence
    announced = ada.announced
    await offer(ada, BOB, ("to", mine))
    await pull(ada)
    assert await wanted(ada) == []
    assert ada.index.sequence == sequence
    assert ada.announced > announced


async def test_a_file_gives_way_to_a_directory_with_children(ada: Device) -> None:
    ada.disk.write("it", "file")
    await ada.scan()
    await offer(
        ada, BOB, ("it/to", link("x", 2, 2)), ("it", version(2, 1, after=await held(ada, "it")))
    )
    await pull(ada)
    assert ada.disk.tree() == {"it": None, "it/to": "x"}


async def test_a_directory_gives_way_when_its_children_are_deleted_too(ada: Device) -> None:
    ada.disk.write("it/a", "1")
    ada.disk.write("it/b/c", "1")
    await ada.scan()
    await offer(ada, BOB, ("it", link("x", 2, 1, after=await held(ada, "it"))))
    for path in ("it/a", "it/b", "it/b/c"):
        await offer(ada, BOB, (path, tombstone(2, 2, after=await held(ada, path))))
    await pull(ada)
    assert ada.disk.tree() == {"it": "x"}
    assert await wanted(ada) == []


@pytest.mark.parametrize("child", ["file", "directory"])
async def test_a_child_that_nobody_deleted_keeps_its_directory(ada: Device, child: str) -> None:
    ada.disk.make_directory("it")
    await ada.scan()
    deleted = tombstone(2, 1, after=await held(ada, "it"))
    if child == "file":
        ada.disk.write("it/mine", "1")
    else:
        ada.disk.make_directory("it/mine")
    await ada.scan()
    await offer(ada, BOB, ("it", deleted))
    await pull(ada)
    kept = await held(ada, "it")
    assert set(ada.disk.tree()) == {"it", "it/mine"}
    assert kept.kind == Kind.DIRECTORY and kept.version.covers(deleted.version.dot)
    assert await wanted(ada) == []


async def test_what_was_to_replace_a_directory_that_stays_is_kept_beside_it(ada: Device) -> None:
    ada.disk.write("it/mine", "1")
    await ada.scan()
    offered = link("x", 2, 1, after=await held(ada, "it"))
    await offer(ada, BOB, ("it", offered))
    await pull(ada)
    name, entry = conflict_copy(RelPath("it"), offered)
    assert ada.disk.tree() == {"it": None, "it/mine": b"1", name: "x"}
    assert await held(ada, name) == entry
    assert await wanted(ada) == []


async def test_files_that_nobody_knows_keep_a_directory_and_are_told_of(
    lab: Lab, ada: Device
) -> None:
    ada.disk.make_directory("it")
    await ada.scan()
    await offer(ada, BOB, ("it", tombstone(2, 1, after=await held(ada, "it"))))
    ada.disk.write("it/unreadable", "1")
    ada.disk.fail("hash_file", "it/unreadable")
    await scan_and_pull(lab, ada)
    assert set(ada.disk.tree()) == {"it", "it/unreadable"}
    assert {problem.path for problem in ada.problems.listed()} == {"it", "it/unreadable"}
    ada.disk.remove("it/unreadable")
    lab.clock.advance(400)
    await scan_and_pull(lab, ada)
    assert ada.disk.tree() == {}
    assert ada.problems.listed() == []


# --- edits meanwhile ------------------------------------------------------------------------------


async def test_an_edit_just_before_the_commit_is_kept(lab: Lab, ada: Device) -> None:
    ada.disk.write("it", "old")
    await ada.scan()
    offered = link("x", 2, 1, after=await held(ada, "it"))
    await offer(ada, BOB, ("it", offered))
    ada.disk.before("commit", lambda: ada.disk.write("it", "edited"))
    await scan_and_pull(lab, ada)
    tree = ada.disk.tree()
    assert tree["it"] == b"edited"
    assert [tree[path] for path in conflicts(tree)] == ["x"]
    assert await wanted(ada) == []


async def test_what_the_disk_refuses_for_ever_is_not_tried_without_end(
    lab: Lab, ada: Device
) -> None:
    ada.disk.write("it", "file")
    await ada.scan()
    # Its holder knows that it is no directory any more, so this cannot come from a sane peer.
    await offer(ada, BOB, ("it/child", link("x", 2, 1)))
    before = ada.disk.calls.count("commit")
    for _ in range(100):
        await ada.work()
        lab.clock.advance(0.1)
    assert ada.disk.calls.count("commit") - before < 20
    assert await wanted(ada) == ["it/child"]


async def test_an_offer_that_comes_during_the_commit_of_an_older_one_is_not_lost(
    ada: Device,
) -> None:
    first = link("one", 2, 1)
    await offer(ada, BOB, ("it", first))
    loop = asyncio.get_running_loop()

    def offer_more() -> None:
        later = offer(ada, BOB, ("it", link("two", 2, 2, after=first)))
        asyncio.run_coroutine_threadsafe(later, loop).result()

    ada.disk.before("commit", offer_more)
    await pull(ada)
    await pull(ada)
    assert ada.disk.tree() == {"it": "two"}
    assert await wanted(ada) == []


async def test_a_racy_file_is_read_again_before_it_is_replaced(lab: Lab, ada: Device) -> None:
    ada.disk.write("it", "old")
    await ada.scan()
    mine = (await ada.index.held([RelPath("it")]))[RelPath("it")]
    assert mine.fingerprint is not None
    await ada.index.refresh([(RelPath("it"), mine.fingerprint._replace(racy=True))])
    await offer(ada, BOB, ("it", link("x", 2, 1, after=mine.entry)))
    await pull(ada)
    assert ada.disk.tree() == {"it": b"old"}
    assert ada.puller.next_retry() is not None
    await scan_and_pull(lab, ada)
    assert ada.disk.tree() == {"it": "x"}


# --- conflicts ------------------------------------------------------------------------------------


async def test_the_loser_is_held_before_the_winner_is_recorded(ada: Device) -> None:
    ada.disk.link("it", "mine")
    await ada.scan()
    mine = await held(ada, "it")
    later = first_version(Dot(2, 1), stamp=mine.version.stamp + 1, author="bob")
    theirs = Entry(Kind.SYMLINK, later, b"theirs")
    await offer(ada, BOB, ("it", theirs))
    await pull(ada)
    name, copy = conflict_copy(RelPath("it"), mine)
    entries = {path: (number, entry) for number, path, entry in await ada.index.entries_after(0, 9)}
    assert ada.disk.tree() == {"it": "theirs", name: "mine"}
    assert entries[name][1] == copy
    assert entries[name][0] < entries[RelPath("it")][0]
    assert await wanted(ada) == []
    assert await ada.index.participants() == [BOB]


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_loser_that_only_this_device_has_is_copied_from_the_path_itself(
    ada: Device, size: int
) -> None:
    data = b"m" * size
    ada.disk.write("it", data)
    await ada.scan()
    mine = await held(ada, "it")
    await offer(ada, BOB, ("it", version(2, 1)))
    await pull(ada)
    name, copy = conflict_copy(RelPath("it"), mine)
    assert ada.disk.tree() == {"it": None, name: data}
    assert await held(ada, name) == copy
    assert await wanted(ada) == []


async def test_a_loser_that_was_edited_meanwhile_is_looked_at_again(lab: Lab, ada: Device) -> None:
    ada.disk.write("it", "mine")
    await ada.scan()
    await offer(ada, BOB, ("it", version(2, 1)))
    ada.disk.write("it", "edited")
    await scan_and_pull(lab, ada)
    tree = ada.disk.tree()
    assert tree["it"] is None
    assert [tree[path] for path in conflicts(tree)] == [b"edited"]


async def test_losers_of_several_peers_are_each_kept(ada: Device) -> None:
    one, two, three = (link(f"by {number}", number, 1) for number in (2, 3, 4))
    await offer(ada, BOB, ("it", one))
    await offer(ada, CYD, ("it", two))
    await offer(ada, device_id("dan"), ("it", three))
    await pull(ada)
    tree = ada.disk.tree()
    assert set(tree.values()) == {"by 2", "by 3", "by 4"}
    assert len(conflicts(tree)) == 2


async def test_a_loser_that_nobody_has_now_holds_up_nothing_and_is_kept_later(lab: Lab) -> None:
    ada, cyd = await lab.devices("ada cyd")
    cyd.disk.write("it", "lost for now")
    await cyd.scan()
    loser = await held(cyd, "it")
    later = first_version(Dot(2, 1), stamp=loser.version.stamp + 1, author="bob")
    await offer(ada, cyd.id, ("it", loser))
    await offer(ada, BOB, ("it", Entry(Kind.SYMLINK, later, b"theirs")))
    await pull(ada)
    assert ada.disk.tree() == {"it": "theirs"}
    # Nobody may take it for settled yet.
    assert not (await held(ada, "it")).version.covers(loser.version.dot)
    assert await wanted(ada) == ["it"]
    lab.connect(ada, cyd)
    tree = await lab.converge([ada, cyd])
    assert tree["it"] == "theirs"
    assert [tree[path] for path in conflicts(tree)] == [b"lost for now"]


async def test_a_loser_is_tried_again_though_the_winner_cannot_be_had(lab: Lab) -> None:
    ada, cyd = await lab.devices("ada cyd")
    cyd.disk.write("it", "to be kept")
    await cyd.scan()
    loser = await held(cyd, "it")
    later = first_version(Dot(2, 1), stamp=loser.version.stamp + 1, author="bob")
    known = Cursor(cyd.index.epoch, cyd.index.sequence)
    await ada.index.receive(cyd.id, known, [(known.sequence, RelPath("it"), loser)], after=0)
    await offer(ada, BOB, ("it", Entry(Kind.FILE, later, bytes(32), 5)))
    await pull(ada)
    assert ada.disk.tree() == {}
    lab.connect(ada, cyd)
    async with asyncio.timeout(5):
        while not conflicts(ada.disk.tree()):
            await ada.work()
            await asyncio.sleep(0)
    tree = ada.disk.tree()
    assert [tree[path] for path in conflicts(tree)] == [b"to be kept"]


def nowhere(replica: int, *, stamp: int) -> Entry:
    """A file whose content no device has."""
    made = first_version(Dot(replica, 1), stamp=stamp, author="nobody")
    return Entry(Kind.FILE, made, bytes([replica]) * 32, 5)


async def test_a_loser_that_was_heard_of_last_is_kept_later_too(lab: Lab) -> None:
    ada, cyd = await lab.devices("ada cyd")
    cyd.disk.write("it", "lost for now")
    await cyd.scan()
    loser = await held(cyd, "it")
    later = first_version(Dot(2, 1), stamp=loser.version.stamp + 1, author="bob")
    await offer(ada, BOB, ("it", Entry(Kind.SYMLINK, later, b"theirs")))
    known = Cursor(cyd.index.epoch, cyd.index.sequence)
    await ada.index.receive(cyd.id, known, [(known.sequence, RelPath("it"), loser)], after=0)
    await pull(ada)
    assert ada.disk.tree() == {"it": "theirs"}
    # Cyd itself does nothing meanwhile.
    lab.connect(ada, cyd)
    await lab.until(lambda: bool(conflicts(ada.disk.tree())), ada)
    tree = ada.disk.tree()
    assert tree["it"] == "theirs"
    assert [tree[path] for path in conflicts(tree)] == [b"lost for now"]


async def test_what_was_to_go_on_without_a_loser_may_be_withdrawn(ada: Device) -> None:
    await offer(ada, BOB, ("it", nowhere(2, stamp=9)))
    await offer(ada, CYD, ("it", nowhere(3, stamp=5)))
    stage_small = ada.contents.stage_small

    async def stage_and_forget(files: Sequence[FileWanted]) -> dict[RelPath, Staged | OSError]:
        outcomes = await stage_small(files)
        await ada.index.forget_peer(BOB)
        return outcomes

    ada.contents.stage_small = stage_and_forget  # type: ignore[method-assign]
    await pull(ada)
    assert await wanted(ada) == ["it"]


async def test_a_wrong_size_for_a_content_holds_up_nothing(lab: Lab) -> None:
    ada, cyd = await lab.devices("ada cyd")
    cyd.disk.write("it", "good")
    await cyd.scan()
    lie = first_version(Dot(2, 1), stamp=1, author="bob")
    good = await held(cyd, "it")
    await offer(ada, BOB, ("it", msgspec.structs.replace(good, size=77, version=lie)))
    lab.connect(ada, cyd)
    await lab.until(lambda: bool(ada.disk.tree()), ada)
    assert ada.disk.tree() == {"it": b"good"}


async def test_a_file_is_not_read_again_for_a_loser_that_it_never_was(ada: Device) -> None:
    ada.disk.write("it", "mine")
    await ada.scan()
    await offer(ada, BOB, ("it", nowhere(2, stamp=1)))
    await pull(ada)
    assert ada.puller.next_retry() is None
    assert not ada.local.pending


async def test_a_copy_that_a_peer_has_deleted_is_not_made_again(ada: Device) -> None:
    ada.disk.link("it", "mine")
    await ada.scan()
    mine = await held(ada, "it")
    later = first_version(Dot(2, 1), stamp=mine.version.stamp + 1, author="bob")
    name, copy = conflict_copy(RelPath("it"), mine)
    await offer(
        ada,
        BOB,
        (name, tombstone(2, 2, after=copy)),
        ("it", Entry(Kind.SYMLINK, later, b"theirs")),
    )
    await pull(ada)
    assert ada.disk.tree() == {"it": "theirs"}
    assert (await held(ada, name)).kind == Kind.TOMBSTONE
    assert await wanted(ada) == []


async def test_a_file_of_someone_at_the_name_of_a_copy_is_kept_too(ada: Device) -> None:
    ada.disk.link("it", "mine")
    await ada.scan()
    mine = await held(ada, "it")
    name, _ = conflict_copy(RelPath("it"), mine)
    await offer(ada, BOB, (name, link("precious", 2, 1)))
    await pull(ada)
    await offer(ada, BOB, ("it", version(2, 2)))
    await pull(ada)
    assert set(ada.disk.tree().values()) == {None, "mine", "precious"}
    assert await wanted(ada) == []


async def test_equal_content_with_other_metadata_is_no_conflict(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    ada.disk.write("it", "same", mtime_ns=1_000)
    bob.disk.write("it", "same", mtime_ns=2_000)
    bob.disk.make_executable("it")
    lab.connect(ada, bob)
    assert await lab.converge(devices) == {"it": b"same"}
    assert ada.disk.is_executable("it") == bob.disk.is_executable("it")
    assert ada.requests == bob.requests == 0


# --- contents -------------------------------------------------------------------------------------


async def test_files_come_from_a_peer_large_ones_beside_small_ones(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    ada.disk.write("large", bytes(range(256)) * 8_000)
    for number in range(30):
        ada.disk.write(f"d/{number}", f"content {number}")
    lab.connect(ada, bob)
    await lab.converge(devices)
    assert bob.disk.staged_names() == []


async def test_large_files_of_equal_content_come_once(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    data = bytes(range(256)) * 4_000
    for name in ("one", "two", "three"):
        ada.disk.write(name, data)
    lab.connect(ada, bob)
    assert set((await lab.converge(devices)).values()) == {data}
    hashed = ada.disk.hash_file(RelPath("one"))
    assert hashed.manifest is not None
    assert ada.requests == len(set(hashed.manifest))


@pytest.mark.parametrize("size", [10, 300_000])
async def test_a_renamed_file_is_not_sent_again(lab: Lab, size: int) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    ada.disk.write("old", b"x" * size)
    lab.connect(ada, bob)
    await lab.converge(devices)
    asked = ada.requests
    ada.disk.rename("old", "new")
    assert set(await lab.converge(devices)) == {"new"}
    assert ada.requests == asked


async def _renamed(lab: Lab, size: int) -> list[Device]:
    """ada and bob have a file, and bob has renamed it, which ada has not heard of."""
    ada, bob = devices = await lab.devices("ada bob")
    bob.disk.write("old", b"x" * size)
    connection = lab.connect(ada, bob)
    await lab.converge(devices)
    await connection.cut()
    bob.disk.rename("old", "new")
    await bob.scan()
    ada.disk.calls.clear()
    return devices


def _inode(device: Device, path: str) -> int:
    found = device.disk.look([RelPath(path)])[RelPath(path)]
    assert found is not None
    return found.fingerprint.inode


@pytest.mark.parametrize("size", [0, 100, 3 * SINGLE_CHUNK_MAX])
async def test_a_renamed_file_is_renamed_and_neither_read_nor_put_away(lab: Lab, size: int) -> None:
    ada, bob = devices = await _renamed(lab, size)
    inode = _inode(ada, "old")
    lab.connect(ada, bob)
    assert set(await lab.converge(devices)) == {"new"}
    assert _inode(ada, "new") == inode
    assert not {"read", "stage_whole", "stage_copy", "hash_file"}.intersection(ada.disk.calls)
    assert ada.disk.trash() == []


@pytest.mark.parametrize("size", [100, 3 * SINGLE_CHUNK_MAX])
async def test_what_cannot_be_renamed_is_copied_and_deleted(
    lab: Lab, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As between two file systems."""
    ada, bob = devices = await _renamed(lab, size)
    carry_out = ada.disk._carry_out
    refused = []

    def refuse(step: Step) -> Result:
        if step.action is not Action.MOVE:
            return carry_out(step)
        refused.append(step.path)
        error = OSError(errno.EXDEV, "Invalid cross-device link")
        return Result(step, Outcome.FAILED, problem=ada.disk.kind_of_problem(error, step.path))

    monkeypatch.setattr(ada.disk, "_carry_out", refuse)
    lab.connect(ada, bob)
    assert set(await lab.converge(devices)) == {"new"}
    assert refused == ["new"]
    assert ada.problems.listed() == []


async def test_an_edit_of_what_is_to_be_renamed_stays(lab: Lab) -> None:
    ada, bob = devices = await _renamed(lab, 100)
    ada.disk.before("commit", lambda: ada.disk.write("old", "edited"))
    lab.connect(ada, bob)
    assert await lab.converge(devices) == {"new": b"x" * 100, "old": b"edited"}


async def test_what_was_renamed_to_where_something_else_has_come_stays_too(lab: Lab) -> None:
    ada, bob = devices = await _renamed(lab, 100)
    ada.disk.before("commit", lambda: ada.disk.write("new", "mine"))
    lab.connect(ada, bob)
    tree = await lab.converge(devices)
    assert set(tree.values()) == {b"x" * 100, b"mine"}
    assert "old" not in tree and len(conflicts(tree)) == 1


async def test_damage_moves_with_no_file(lab: Lab) -> None:
    """What is known to be damaged is fetched anew."""
    ada, bob = devices = await _renamed(lab, 100)
    mark = (await ada.index.held([RelPath("old")]))[RelPath("old")].fingerprint
    assert mark is not None
    ada.disk.rot("old")
    await ada.index.mark_damaged([Damage(RelPath("old"), mark, b"")], now_ns=1)
    lab.connect(ada, bob)
    assert await lab.converge(devices) == {"new": b"x" * 100}


async def test_a_move_that_is_heard_of_just_before_deletions_finds_its_content_still_here(
    ada: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada.disk.write("old", "content")
    await ada.scan()
    mine = await held(ada, "old")
    moved = msgspec.structs.replace(mine, version=version(2, 1).version)
    pull_deletions = ada.puller._pull_deletions

    async def hear_and_pull_deletions() -> None:
        if not await ada.index.applied(BOB):
            await offer(ada, BOB, ("new", moved), ("old", tombstone(2, 2, after=mine)))
            ada.offers_arrived()
        await pull_deletions()

    monkeypatch.setattr(ada.puller, "_pull_deletions", hear_and_pull_deletions)
    await pull(ada)
    assert ada.disk.tree() == {"new": b"content"}
    assert await wanted(ada) == []


async def test_what_nobody_has_now_waits_without_being_tried(lab: Lab, ada: Device) -> None:
    bob = await lab.device("bob")
    bob.disk.write("it", "1")
    await bob.scan()
    await offer(ada, BOB, ("it", await held(bob, "it")), ("to", link("x", 2, 1)))
    await pull(ada)
    assert ada.disk.tree() == {"to": "x"}
    assert ada.puller.next_retry() is None
    assert ada.problems.listed() == []
    lab.connect(ada, bob)
    await lab.converge([ada, bob])


async def test_a_full_disk_is_told_and_tried_again(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    ada.disk.write("small", "1")
    ada.disk.write("large", bytes(300_000))
    ada.disk.link("to", "x")
    lab.connect(ada, bob)
    for method in ("stage_whole", "prepare"):
        bob.disk.fail(method, "", errno.ENOSPC)
    await ada.work()
    async with asyncio.timeout(5):
        while len(bob.problems.listed()) < 2:
            await lab.changed.wait()
            lab.changed.clear()
            await bob.puller.run_until_idle()
    assert bob.disk.tree() == {"to": "x"}
    bob.disk.mend()
    lab.clock.advance(10)
    await lab.converge(devices)
    assert bob.problems.listed() == []


async def test_one_file_that_cannot_be_placed_blocks_no_other(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    for name in ("a", "bad", "c", "d/e"):
        ada.disk.write(name, f"content of {name}")
    bob.disk.fail("commit", "bad")
    lab.connect(ada, bob)
    await ada.scan()
    async with asyncio.timeout(5):
        while len(bob.disk.tree()) < 4 or not bob.problems.listed():
            await lab.changed.wait()
            lab.changed.clear()
            await bob.puller.run_until_idle()
    assert set(bob.disk.tree()) == {"a", "c", "d", "d/e"}
    assert [problem.path for problem in bob.problems.listed()] == ["bad"]
    assert not bob.disk.staged_names()
    bob.disk.mend()
    lab.clock.advance(400)
    await lab.converge(devices)


async def test_a_problem_goes_when_nothing_is_wanted_there_any_more(lab: Lab, ada: Device) -> None:
    ada.disk.fail("commit", "bad")
    await offer(ada, BOB, ("bad", link("x", 2, 1)))
    await pull(ada)
    assert ada.problems.listed()
    await ada.index.forget_peer(BOB)
    lab.clock.advance(10)
    await pull(ada)
    assert ada.problems.listed() == []


async def test_leftovers_of_a_crash_are_not_taken_for_content(lab: Lab) -> None:
    ada, bob = devices = await lab.devices("ada bob")
    stage(bob.disk, "s-1", b"9")
    ada.disk.write("it", "1")
    lab.connect(ada, bob)
    assert await lab.converge(devices) == {"it": b"1"}


# --- when things fail -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["commit", "prepare", "read"])
async def test_a_lost_root_ends_the_pull_as_such(ada: Device, method: str) -> None:
    ada.disk.write("it", bytes(300_000))
    ada.disk.write("small", "1")
    await ada.scan()
    for name in ("it", "small"):
        mine = await held(ada, name)
        await offer(ada, BOB, (f"copy of {name}", mine))
    ada.disk.before(method, ada.disk.lose_root)
    with pytest.raises(RootUnavailableError):
        await pull(ada)
    assert not ada.puller.busy
    ada.disk.root_is_lost = False
    await ada.scan()
    await pull(ada)
    assert len(ada.disk.tree()) == 4


async def test_a_pull_that_is_cancelled_records_what_it_did(ada: Device) -> None:
    await offer(ada, BOB, ("to", link("x", 2, 1)))
    pulling = asyncio.create_task(ada.puller.run_until_idle())
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        loop.call_soon_threadsafe(pulling.cancel)

    ada.disk.before("commit", cancel)
    with pytest.raises(asyncio.CancelledError):
        await pulling
    assert not ada.turn.locked()
    assert ada.disk.tree() == {"to": "x"}
    assert (await held(ada, "to")).kind == Kind.SYMLINK
    assert await wanted(ada) == []


async def test_deletions_pass_though_offers_come_without_an_end(
    ada: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada.disk.link("old", "target")
    await ada.scan()
    mine = await held(ada, "old")
    await offer(ada, BOB, ("old", tombstone(2, 1, after=mine)))
    hold = ada.puller.deletions.hold
    heard = 0

    async def hear_and_hold(outvoted: Sequence[Wanted]) -> bool:
        nonlocal heard
        heard += 1
        if heard < 100:
            await offer(ada, CYD, ("log", link(f"{heard}", 3, heard)))
            ada.offers_arrived()
        elif "old" in ada.disk.tree():
            pytest.fail("It is not deleted.")
        return await hold(outvoted)

    monkeypatch.setattr(ada.puller.deletions, "hold", hear_and_hold)
    await pull(ada)
    assert ada.disk.tree() == {"log": "99"}


# --- the brake ------------------------------------------------------------------------------------


async def deleted_by_bob(lab: Lab, *, files: int, deleted: int, brakes: Brakes) -> Device:
    ada = await lab.device("ada", brakes=brakes)
    for number in range(files):
        ada.disk.write(f"{number:03}", f"content {number}")
    await ada.scan()
    await delete(ada, 0, deleted)
    return ada


async def delete(ada: Device, first: int, end: int) -> None:
    for number in range(first, end):
        path = f"{number:03}"
        await offer(ada, BOB, (path, tombstone(2, number + 1, after=await held(ada, path))))


async def test_many_deletions_wait_for_approval(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=40, deleted=20, brakes=Brakes(files=5, percent=10))
    await pull(ada)
    assert ada.puller.next_retry() is not None
    lab.clock.advance(1)
    await pull(ada)
    assert ada.puller.deletions.waiting == 20
    assert len(ada.disk.tree()) == 40
    assert ada.puller.next_retry() is None
    assert ada.puller.deletions.approve() == 20
    await pull(ada)
    assert len(ada.disk.tree()) == 20
    assert ada.puller.deletions.waiting == 0


async def test_few_deletions_do_not_wait(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=40, deleted=5, brakes=Brakes(files=5, percent=10))
    await pull(ada)
    assert len(ada.disk.tree()) == 35


async def test_deletions_of_a_minute_are_counted_together(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=40, deleted=4, brakes=Brakes(files=5, percent=10))
    await pull(ada)
    lab.clock.advance(50)
    await delete(ada, 4, 6)
    await pull(ada)
    assert ada.puller.deletions.waiting == 2
    lab.clock.advance(120)
    await pull(ada)
    assert len(ada.disk.tree()) == 36
    assert ada.puller.deletions.approve() == 2
    await pull(ada)
    # What a person approved does not count against what comes next.
    await delete(ada, 6, 10)
    await pull(ada)
    assert len(ada.disk.tree()) == 30


async def test_deletions_that_are_far_apart_pass(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=40, deleted=4, brakes=Brakes(files=5, percent=10))
    await pull(ada)
    lab.clock.advance(61)
    await delete(ada, 4, 8)
    await pull(ada)
    assert len(ada.disk.tree()) == 32


async def test_moves_of_a_minute_are_not_counted(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=40, deleted=0, brakes=Brakes(files=5, percent=10))
    for number in range(12):
        was = await held(ada, f"{number:03}")
        moved = first_version(Dot(2, 2 * number + 1), stamp=1, author="bob")
        await offer(ada, BOB, (f"new {number}", msgspec.structs.replace(was, version=moved)))
        await offer(ada, BOB, (f"{number:03}", tombstone(2, 2 * number + 2, after=was)))
        await pull(ada)
    assert ada.puller.deletions.waiting == 0
    assert len(ada.disk.tree()) == 40


async def test_a_burst_of_deletions_is_counted_as_one(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=40, deleted=6, brakes=Brakes(files=5, percent=20))
    await pull(ada)
    await delete(ada, 6, 20)
    lab.clock.advance(1)
    await pull(ada)
    lab.clock.advance(1)
    await pull(ada)
    assert ada.puller.deletions.waiting == 20
    assert len(ada.disk.tree()) == 40


async def test_deletions_count_though_someone_still_offers_an_older_version(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=40, deleted=0, brakes=Brakes(files=5, percent=10))
    for number in range(20):
        path, was = f"{number:03}", await held(ada, f"{number:03}")
        touched = msgspec.structs.replace(was, version=version(3, number + 1, after=was).version)
        await offer(ada, CYD, (path, touched))
        await offer(ada, BOB, (path, tombstone(2, number + 1, after=touched)))
    await scan_and_pull(lab, ada)
    assert ada.puller.deletions.waiting == 20
    assert len(ada.disk.tree()) == 40
    assert ada.puller.deletions.approve() == 20
    await scan_and_pull(lab, ada)
    assert len(ada.disk.tree()) == 20
    assert await wanted(ada) == []


async def test_directories_go_though_someone_still_offers_older_versions_below(ada: Device) -> None:
    ada.disk.make_directory("d")
    ada.disk.link("d/it", "target")
    await ada.scan()
    was = await held(ada, "d/it")
    touched = msgspec.structs.replace(was, version=version(3, 1, after=was).version)
    await offer(ada, CYD, ("d/it", touched))
    gone = tombstone(2, 2, after=await held(ada, "d"))
    await offer(ada, BOB, ("d/it", tombstone(2, 1, after=touched)), ("d", gone))
    await pull(ada)
    assert ada.disk.tree() == {}
    assert await wanted(ada) == []


async def test_deletions_that_come_without_an_end_do_not_wait_for_more(lab: Lab) -> None:
    ada = await deleted_by_bob(lab, files=200, deleted=10, brakes=Brakes(files=5, percent=100))
    for number in range(10, 100):
        await pull(ada)
        if len(ada.disk.tree()) < 200:
            break
        lab.clock.advance(0.2)
        await delete(ada, number, number + 1)
    assert len(ada.disk.tree()) < 200
    assert ada.puller.deletions.waiting == 0


async def test_a_copy_that_lost_at_its_own_name_is_missing_only_until_it_is_kept_under_another(
    ada: Device,
) -> None:
    """Else its original would be planned again for ever."""
    path = RelPath("it (conflict)")
    lost = link("lost", 2, 1)
    won = link("won", 5, 2)
    seen = msgspec.structs.replace(
        won.version, vector=((2, 1), (5, 2)), kept=(lost.version.origin,)
    )
    mark = Fingerprint(Kind.SYMLINK, 1, 1, 1, 1, executable=False, racy=False)
    await ada.index.record([Row(path, msgspec.structs.replace(won, version=seen), mark)])
    planner = ada.puller._planner
    copy = Copy(path, lost, ())

    assert [each for each, _ in await planner._missing([copy])] == [copy]
    name, entry = conflict_copy(path, lost)
    await ada.index.record([Row(name, entry, mark)])
    assert await planner._missing([copy]) == []

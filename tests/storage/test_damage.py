"""Files that are held and damaged: what is said of them, and to whom."""

import os
from pathlib import Path

from p2psync.core.entry import SINGLE_CHUNK_MAX, Entry, Fingerprint
from p2psync.core.ids import Digest
from p2psync.core.relpath import RelPath
from p2psync.ports import Damage, Finding, Place, Scrub
from p2psync.storage import damage
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index
from tests.storage.builders import big_file, content, file, fingerprint_of, paths, row, tombstone


def mark(entry: Entry) -> Fingerprint:
    found = fingerprint_of(entry)
    assert found is not None
    return found


def rotten(path: str, entry: Entry) -> Damage:
    return Damage(RelPath(path), mark(entry), content("rot"))


async def test_what_is_damaged_is_held_and_needed_and_told(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("a")), row("b", file("b", counter=2))])

    await index.mark_damaged([rotten("a", file("a"))], now_ns=5)

    ((path, held),) = await index.damaged(10)
    assert (path, held.entry, held.sequence) == ("a", file("a"), 1)
    assert held.damage == content("rot")
    assert (await index.held([RelPath("a")]))[RelPath("a")] == held
    assert [path for _, path, _ in await index.entries_after(0, 10)] == ["a", "b"]
    counts = await index.counts()
    assert (counts.files, counts.need_files, counts.need_bytes, counts.damaged) == (2, 1, 10, 1)
    assert index.sequence == 2


async def test_recording_the_path_again_ends_it_and_tells_everybody(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("a"))])
    await index.mark_damaged([rotten("a", file("a"))], now_ns=5)
    await index.refresh([(RelPath("a"), mark(file("a"))._replace(ctime_ns=9))])
    assert (await index.counts()).damaged == 1

    await index.record([row("a", file("a"))])

    assert await index.damaged(10) == []
    assert await index.entries_after(0, 10) == [(2, "a", file("a"))]
    assert (await index.counts()).need_files == 0
    assert await index.findings() == [Finding(RelPath("a"), 5, is_damaged=False)]


async def test_a_row_may_say_that_the_damage_stays(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("a"))])
    await index.mark_damaged([rotten("a", file("a"))], now_ns=5)

    await index.record([row("a", file("a", counter=2))._replace(damage=b"")])

    assert [held.damage for _, held in await index.damaged(10)] == [b""]
    assert (await index.counts()).damaged == 1
    assert [path for _, path, _ in await index.entries_after(0, 10)] == ["a"]


async def test_damage_outlives_the_process(tmp_path: Path) -> None:
    index = await open_folder_index(tmp_path / "index.db", randomness=os.urandom)
    await index.record([row("a", file("a"))])
    await index.mark_damaged([rotten("a", file("a"))], now_ns=5)
    await index.save_scrub(Scrub(1, 2, "a", 3, 4, 5))
    before = await index.counts()
    await index.close()

    index = await open_folder_index(tmp_path / "index.db", randomness=os.urandom)
    assert await index.counts() == before
    assert paths(await index.damaged(10)) == ["a"]
    assert await index.scrub() == Scrub(1, 2, "a", 3, 4, 5)
    await index.close()


async def test_contents_are_not_looked_for_where_they_are_damaged(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("x")), row("b", file("x", counter=2))])
    await index.mark_damaged([rotten("a", file("x"))], now_ns=5)

    assert await index.find_contents([content("x")]) == {content("x"): [RelPath("b")]}
    assert await index.find_chunks([content("x")]) == {content("x"): [Place(RelPath("b"), 0, 10)]}


async def test_chunks_of_a_damaged_file_are_told_after_all_others(
    index: SqliteFolderIndex,
) -> None:
    one, manifest = big_file("x", "y")
    other, of_other = big_file("z", "x")
    await index.record([row("a", one, manifest=manifest), row("b", other, manifest=of_other)])
    await index.mark_damaged([rotten("a", one)], now_ns=5)
    await index.collect_garbage()
    await index.collect_garbage()

    assert await index.manifest(one.content) == manifest
    places = await index.find_chunks([Digest(content("x"))])
    size = SINGLE_CHUNK_MAX
    assert places[content("x")] == [Place(RelPath("b"), size, size), Place(RelPath("a"), 0, size)]


async def test_what_was_deleted_meanwhile_cannot_be_damaged(index: SqliteFolderIndex) -> None:
    await index.record([row("a", tombstone())])
    await index.mark_damaged([rotten("a", file("a"))], now_ns=5)

    assert await index.damaged(10) == []
    assert (await index.counts()).damaged == 0


async def test_files_are_read_in_path_order(index: SqliteFolderIndex) -> None:
    rows = [row(name, file(name, counter=at)) for at, name in enumerate("cab", start=1)]
    await index.record([*rows, row("bb", tombstone(counter=9))])

    assert paths(await index.files_after("", 2)) == ["a", "b"]
    assert paths(await index.files_after("b", 2)) == ["c"]


async def test_what_still_is_damaged_is_told_first_and_never_forgotten(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("a"))])
    await index.mark_damaged([rotten("a", file("a"))], now_ns=1)
    for number in range(damage.MAX_FINDINGS + 5):
        await index.mark_damaged([rotten(f"{number}", file("a"))], now_ns=number + 2)

    assert (await index.findings())[0] == Finding(RelPath("a"), 1, is_damaged=True)


async def test_what_was_moved_is_a_finding_where_it_is_now(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("a"))])
    await index.mark_damaged([rotten("a", file("a"))], now_ns=5)

    moved = row("b", file("a", counter=2))._replace(damage=content("rot"))
    await index.record([moved, row("a", tombstone(counter=3))])

    assert await index.findings() == [
        Finding(RelPath("b"), 5, is_damaged=True),
        Finding(RelPath("a"), 5, is_damaged=False),
    ]


async def test_old_findings_are_forgotten(index: SqliteFolderIndex) -> None:
    many = damage.MAX_FINDINGS + 5
    for number in range(many):
        await index.mark_damaged([rotten(f"{number}", file("a"))], now_ns=number)

    found = await index.findings()
    assert len(found) == damage.MAX_FINDINGS
    assert (found[0].path, found[-1].found_ns) == (f"{many - 1}", 5)

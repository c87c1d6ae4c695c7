import sqlite3

from p2psync.core.entry import SINGLE_CHUNK_MAX, Chunk
from p2psync.core.ids import Digest
from p2psync.core.relpath import RelPath
from p2psync.ports import Cursor, Place
from p2psync.storage.contents import find_chunks
from p2psync.storage.folder_index import SqliteFolderIndex
from tests.storage.builders import ANNA, big_file, content, file, row, tombstone, trace

FULL = SINGLE_CHUNK_MAX


async def test_contents_are_found_in_live_files(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("one")), row("b", file("one")), row("c", file("two"))])
    found = await index.find_contents([content("one"), content("two"), content("none")])
    assert {key: sorted(paths) for key, paths in found.items()} == {
        content("one"): ["a", "b"],
        content("two"): ["c"],
    }
    await index.record([row("a", tombstone()), row("c", file("three"))])
    assert await index.find_contents([content("one"), content("two")]) == {content("one"): ["b"]}


async def test_at_most_four_places_are_told(index: SqliteFolderIndex) -> None:
    entry, manifest = big_file("x", "y")
    await index.record([row(f"small {number}", file("one")) for number in range(9)])
    await index.record([row(f"big {number}", entry, manifest=manifest) for number in range(9)])
    assert len((await index.find_contents([content("one")]))[content("one")]) == 4
    found = await index.find_chunks([content("one"), content("x")])
    assert [len(places) for places in found.values()] == [4, 4]


async def test_contents_that_share_a_key_are_not_mixed_up(index: SqliteFolderIndex) -> None:
    one = file("one")
    other = content("one")[:16] + bytes(16)
    await index.record([row("a", one)])
    assert await index.find_contents([other]) == {}
    assert await index.find_chunks([Digest(other)]) == {}


async def test_a_small_file_is_its_own_chunk(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("one", size=123))])
    assert await index.find_chunks([content("one"), content("none")]) == {
        content("one"): [Place(RelPath("a"), 0, 123)]
    }


async def test_who_has_a_big_file_is_looked_up_once_for_all_its_chunks(
    index: SqliteFolderIndex,
) -> None:
    entry, manifest = big_file(*map(str, range(50)))
    await index.record([row(name, entry, manifest=manifest) for name in "ab"])
    said: list[str] = []

    def find(connection: sqlite3.Connection) -> dict[Digest, list[Place]]:
        connection.set_trace_callback(said.append)
        try:
            return find_chunks(connection, [chunk.digest for chunk in manifest])
        finally:
            connection.set_trace_callback(None)

    found = await index._database.run(find)
    assert [len(places) for places in found.values()] == [2] * 50
    # Each digest may also be of a small file, or of many large ones.
    assert len([words for words in said if words.startswith("SELECT")]) <= 2 * 50 + 2


async def test_chunks_of_a_big_file_are_found_at_their_offsets(index: SqliteFolderIndex) -> None:
    entry, manifest = big_file("x", "y", "x", "z")
    await index.record([row("big", entry, manifest=manifest)])
    assert await index.find_chunks([content(name) for name in "xyz"]) == {
        content("x"): [Place(RelPath("big"), 0, FULL)],
        content("y"): [Place(RelPath("big"), FULL, FULL)],
        content("z"): [Place(RelPath("big"), 3 * FULL, FULL)],
    }


async def test_the_content_id_of_a_big_file_is_no_chunk(index: SqliteFolderIndex) -> None:
    entry, manifest = big_file("x", "y")
    await index.record([row("big", entry, manifest=manifest)])
    assert await index.find_chunks([Digest(entry.content)]) == {}


async def test_a_chunk_is_found_while_any_live_file_has_it(index: SqliteFolderIndex) -> None:
    old, old_manifest = big_file("x", "y")
    new, new_manifest = big_file("z", "x")
    await index.record([row("old", old, manifest=old_manifest)])
    await index.record([row("new", new, manifest=new_manifest)])
    await index.record([row("new", tombstone())])
    for _ in range(2):
        await index.collect_garbage()
    assert await index.find_chunks([content("x"), content("z")]) == {
        content("x"): [Place(RelPath("old"), 0, FULL)]
    }


async def test_chunks_of_a_manifest_whose_file_is_not_held_are_nowhere(
    index: SqliteFolderIndex,
) -> None:
    entry, manifest = big_file("x", "y")
    await index.save_manifest(entry.content, manifest)
    assert await index.find_chunks([content("x")]) == {}
    await index.record([row("copied", entry)])
    assert await index.find_chunks([content("x")]) == {
        content("x"): [Place(RelPath("copied"), 0, FULL)]
    }


async def test_a_manifest_comes_back_as_it_was(index: SqliteFolderIndex) -> None:
    manifest = (
        Chunk(content("x"), FULL),
        Chunk(content("y"), 1),
        Chunk(content("x"), FULL),
    )
    assert await index.manifest(content("m")) is None
    await index.save_manifest(content("m"), manifest)
    await index.save_manifest(content("m"), manifest)
    assert await index.manifest(content("m")) == manifest


async def test_garbage_is_what_nothing_names_at_two_collections(
    index: SqliteFolderIndex,
) -> None:
    held, held_manifest = big_file("x", "y")
    wanted, wanted_manifest = big_file("x", "z")
    left, left_manifest = big_file("p", "q")
    await index.record([row("held", held, manifest=held_manifest)])
    await index.receive(ANNA, Cursor(1, 1), [(1, RelPath("wanted"), wanted)], after=0)
    await index.save_manifest(wanted.content, wanted_manifest)
    await index.record([row("left", left, manifest=left_manifest)])
    await index.record([row("left", file("replaced"))])

    assert await index.collect_garbage() == 0
    assert await index.collect_garbage() == 1
    assert await index.collect_garbage() == 0
    assert await index.manifest(held.content) == held_manifest
    assert await index.manifest(wanted.content) == wanted_manifest
    assert await index.manifest(left.content) is None


async def test_a_manifest_that_someone_asked_for_is_spared_once_more(
    index: SqliteFolderIndex,
) -> None:
    entry, manifest = big_file("x", "y")
    await index.save_manifest(entry.content, manifest)
    assert await index.collect_garbage() == 0
    await index.manifest(entry.content)
    assert await index.collect_garbage() == 0
    await index.record([row("moved", entry)])
    assert await index.collect_garbage() == 0
    assert await index.manifest(entry.content) == manifest


async def test_collected_chunks_leave_no_rows(index: SqliteFolderIndex) -> None:
    entry, manifest = big_file("x", "y", "x")
    await index.save_manifest(entry.content, manifest)
    for _ in range(2):
        await index.collect_garbage()
    rows = await index._database.run(
        lambda connection: connection.execute("SELECT count(*) FROM chunks").fetchone()
    )
    assert rows == (0,)


async def test_manifests_are_looked_through_only_when_something_changed(
    index: SqliteFolderIndex,
) -> None:
    entry, manifest = big_file("x", "y")
    await index.record([row("held", entry, manifest=manifest)])
    assert await index.collect_garbage() == 0
    asked: list[str] = []
    await trace(index, asked.append)

    assert await index.collect_garbage() == 0
    assert not any("manifests" in statement for statement in asked)

    await index.record([row("held", file("replaced"))])
    assert [await index.collect_garbage() for _ in range(3)] == [0, 1, 0]

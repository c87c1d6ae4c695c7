import sqlite3
from functools import partial

import msgspec

from p2psync.core.entry import Fingerprint, Kind
from p2psync.core.relpath import RelPath
from p2psync.ports import Held, Row
from p2psync.storage.folder_index import SqliteFolderIndex
from tests.storage.builders import (
    directory,
    file,
    fingerprint_of,
    paths,
    row,
    tombstone,
    trace,
)

TREE = [
    row("a", directory()),
    row("a/b", directory()),
    row("a/b/c", file("c")),
    row("a/d", file("d")),
    row("a/gone", tombstone()),
    row("a b", file("space sorts before the slash")),
    row("a-b", file("so does the dash")),
    row("a0", file("zero sorts after the slash")),
    row("b", file("b")),
]


async def test_held_finds_what_is_there_and_leaves_out_what_is_not(
    index: SqliteFolderIndex,
) -> None:
    await index.record(TREE)
    found = await index.held([RelPath("a/b/c"), RelPath("nowhere"), RelPath("a/gone")])
    assert set(found) == {"a/b/c", "a/gone"}
    assert found[RelPath("a/b/c")] == Held(file("c"), fingerprint_of(file("c")), 3)
    assert found[RelPath("a/gone")].fingerprint is None
    assert await index.held([]) == {}


async def test_what_is_underway_is_remembered_until_it_is_told_what_is_at_its_path(
    index: SqliteFolderIndex,
) -> None:
    a, b, c, d = map(RelPath, "abcd")
    await index.note_underway({a: file("old"), b: file("b")})
    await index.note_underway({a: file("a"), c: directory(), d: file("d")})
    assert await index.underway() == {a: file("a"), b: file("b"), c: directory(), d: file("d")}
    await index.record([row("b", file("another"))])
    await index.refresh([(c, Fingerprint(Kind.DIRECTORY, 0, 0, 0, 0, False, False))])
    await index.forget_underway([d])
    assert await index.underway() == {a: file("a")}
    await index.renew_replica()
    assert await index.underway() == {}


async def test_names_that_look_like_syntax_are_only_names(index: SqliteFolderIndex) -> None:
    names = ["it's", 'say "hi"', "100%", "back\\slash", "new\nline", "\x01", "[a]", "ä", "😀", "*"]
    await index.record([row(name, file(name)) for name in names])
    for name in names:
        assert set(await index.held([RelPath(name)])) == {name}


async def test_a_name_is_found_in_its_own_spelling_alone(index: SqliteFolderIndex) -> None:
    await index.record([row("Straße", file("a")), row("é", file("b"))])
    assert await index.held([RelPath("straße"), RelPath("e\u0301")]) == {}


async def test_under_a_directory_is_all_that_lives_below_it(index: SqliteFolderIndex) -> None:
    await index.record(TREE)
    assert paths(await index.held_under(RelPath("a"))) == ["a/b", "a/b/c", "a/d"]
    assert paths(await index.held_under(RelPath("a/b"))) == ["a/b/c"]
    assert await index.held_under(RelPath("b")) == []


async def test_fingerprints_are_of_what_lives_at_and_below_a_path(
    index: SqliteFolderIndex,
) -> None:
    await index.record(TREE)
    live = sorted(row.path for row in TREE if row.entry.is_live)
    assert paths(await index.fingerprints(limit=99)) == live
    assert paths(await index.fingerprints(RelPath("a"), limit=99)) == ["a", "a/b", "a/b/c", "a/d"]
    assert paths(await index.fingerprints(RelPath("b"), limit=99)) == ["b"]
    assert await index.fingerprints(RelPath("a/gone"), limit=99) == []
    assert dict(await index.fingerprints(limit=99))[RelPath("b")] == fingerprint_of(file("b"))


async def test_fingerprints_come_in_batches_that_go_on_where_the_last_one_ended(
    index: SqliteFolderIndex,
) -> None:
    await index.record(TREE)
    for under in (None, RelPath("a")):
        whole = await index.fingerprints(under, limit=99)
        after, together = "", []
        while batch := await index.fingerprints(under, after=after, limit=1):
            together += batch
            after = batch[-1][0]
        assert together == whole


async def test_a_batch_of_fingerprints_is_one_statement_that_reads_in_order(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row(f"d/{number:03d}", file(str(number))) for number in range(100)])
    asked: list[str] = []
    await trace(index, asked.append)
    for under in (None, RelPath("d")):
        asked.clear()
        await index.fingerprints(under, after="d/050", limit=20)
        (statement,) = asked
        plan = await index._database.run(partial(_plan_of, statement))
        assert len(plan) == 1 and "USING INDEX held_by_path (path>" in plan[0]
        # And where the first of them is: not at its beginning.
        assert "path >= 'd/050'" in statement
    asked.clear()
    await index.fingerprints(RelPath("d"), limit=20)
    assert "path >= 'd'" in asked[0] and "path > ''" not in asked[0]


def _plan_of(statement: str, connection: sqlite3.Connection) -> list[str]:
    return [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


async def test_refreshing_replaces_fingerprints_and_nothing_else(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("a")), row("gone", tombstone())])
    before = await index.entries_after(0, 10)
    fresh = fingerprint_of(file("a"), inode=(1 << 64) - 1)
    assert fresh is not None
    await index.refresh([(RelPath("a"), fresh), (RelPath("gone"), fresh), (RelPath("no"), fresh)])
    assert await index.fingerprints(limit=99) == [(RelPath("a"), fresh)]
    assert await index.entries_after(0, 10) == before
    assert index.sequence == 2
    assert (await index.held([RelPath("gone")]))[RelPath("gone")].fingerprint is None


async def test_entries_after_a_sequence_are_in_order_and_include_tombstones(
    index: SqliteFolderIndex,
) -> None:
    await index.record(TREE)
    assert [number for number, _, _ in await index.entries_after(4, 3)] == [5, 6, 7]
    assert (await index.entries_after(4, 1))[0] == (5, RelPath("a/gone"), tombstone())
    assert await index.entries_after(len(TREE), 3) == []


async def test_conflicts_are_the_copies_that_live(index: SqliteFolderIndex) -> None:
    copy = file("copy", copy_of="a")
    gone = msgspec.structs.replace(tombstone(), copy_of="a")
    await index.record([row("z", copy), row("a", file("a")), row("b", copy), row("c", gone)])
    assert paths(await index.conflicts()) == ["b", "z"]
    assert (await index.counts()).conflicts == 2


# --- digest -------------------------------------------------------------------------------------


async def test_the_digest_does_not_depend_on_order_or_history(index: SqliteFolderIndex) -> None:
    await index.record(TREE)
    first = await index.digest()
    await index.record([row("b", file("other")), row("gone too", tombstone())])
    assert await index.digest() != first
    await index.record(list(reversed(TREE)))
    assert await index.digest() == first


async def test_the_digest_sees_path_kind_content_and_executable_alone(
    index: SqliteFolderIndex,
) -> None:
    async def digest_of(name: str, entry: object) -> bytes:
        await index.record([row("only", tombstone()), row("other", tombstone())])
        await index.record([Row(RelPath(name), entry, None)])  # type: ignore[arg-type]
        return await index.digest()

    plain = file("a")
    same = msgspec.structs.replace(file("a", replica=9, counter=9), mtime_ns=5)
    assert await digest_of("only", same) == await digest_of("only", plain)
    others = [
        ("other", plain),
        ("only", file("b")),
        ("only", msgspec.structs.replace(plain, executable=True)),
        ("only", msgspec.structs.replace(plain, kind=Kind.SYMLINK)),
    ]
    digests = {await digest_of(name, entry) for name, entry in others}
    assert len(digests | {await digest_of("only", plain)}) == 5


async def test_two_equal_files_do_not_cancel_out(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("same"))])
    one = await index.digest()
    await index.record([row("b", file("same"))])
    assert await index.digest() not in (one, bytes(32))


async def test_the_digest_is_what_devices_of_released_versions_compute(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", directory()), row("a/b", file("b"))])
    assert (await index.digest()).hex() == (
        "94aa8c4469ea5e96fed18877462e61013da2b64ab1f65456025515293746cb0a"
    )

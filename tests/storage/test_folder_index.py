import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.relpath import RelPath
from p2psync.core.version import Dot, first_version
from p2psync.errors import ConfigError, DamagedError
from p2psync.ports import Cursor, FolderIndex, Held, Offer, Row
from p2psync.storage.database import StorageError
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index
from tests.storage.builders import (
    ANNA,
    big_file,
    content,
    entries,
    file,
    fingerprint_of,
    fingerprints,
    relpaths,
    row,
    tombstone,
)


def constant(byte: int) -> Callable[[int], bytes]:
    return lambda size: bytes([byte]) * size


async def test_it_is_a_folder_index(index: SqliteFolderIndex) -> None:
    as_port: FolderIndex = index
    assert (as_port.sequence, as_port.counter) == (0, 0)
    assert await as_port.digest() == bytes(32)


# --- who the index is -------------------------------------------------------------------------


@pytest.mark.parametrize("byte", [0x00, 0x01, 0x80, 0xFF])
async def test_a_new_index_draws_ids_that_are_not_zero_and_fit_a_column(
    tmp_path: Path, byte: int
) -> None:
    index = await open_folder_index(tmp_path / "index.db", randomness=constant(byte))
    assert 0 < index.replica < 1 << 63
    assert 0 < index.epoch < 1 << 63
    await index.close()


async def test_an_index_goes_on_where_it_was_under_a_new_replica(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = await open_folder_index(path, randomness=os.urandom)
    await index.record([row("a", file("a", replica=index.replica, counter=5))])
    replica, epoch = index.replica, index.epoch
    await index.close()

    index = await open_folder_index(path, randomness=os.urandom)
    assert (index.epoch, index.sequence, index.counter) == (epoch, 1, 5)
    assert index.replica != replica
    assert index.recovered is None
    await index.close()


async def test_renewing_draws_new_ids_and_keeps_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = await open_folder_index(path, randomness=os.urandom)
    old = (index.replica, index.epoch)
    await index.record([row("a", file("a", replica=index.replica, counter=5))])
    await index.renew_replica()
    new = (index.replica, index.epoch)
    assert not set(old) & set(new)
    assert (index.sequence, index.counter) == (1, 0)
    await index.close()

    index = await open_folder_index(path, randomness=os.urandom)
    assert (index.epoch, index.sequence, index.counter) == (new[1], 1, 0)
    assert RelPath("a") in await index.held([RelPath("a")])
    await index.close()


async def test_renewing_forgets_what_was_received_of_peers(tmp_path: Path) -> None:
    """What they offered may be gone from their indexes since, and so would never be settled."""
    index = await open_folder_index(tmp_path / "index.db", randomness=os.urandom)
    offers = [(3, RelPath("a"), file("a")), (4, RelPath("b"), file("b"))]
    await index.receive(ANNA, Cursor(7, 4), offers, after=0)
    assert (await index.counts()).need_files == 2
    await index.renew_replica()
    assert (await index.counts()).need_files == 0
    assert await index.wanted(limit=9, tombstones=False) == []
    assert await index.cursor(ANNA) == Cursor(7, 0)
    assert await index.participants() == [ANNA]
    await index.close()


async def test_a_damaged_index_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = await open_folder_index(path, randomness=os.urandom)
    await index.record([row(f"file {number}", file("a")) for number in range(100)])
    old = (index.replica, index.epoch)
    await index.close()
    with path.open("r+b") as opened:
        opened.seek(2 * 4096)
        opened.write(b"\xff" * 40960)

    index = await open_folder_index(path, randomness=os.urandom)
    assert index.recovered is not None
    assert "index.db.damaged-1" in index.recovered
    assert (tmp_path / "index.db.damaged-1").exists()
    assert not set(old) & {index.replica, index.epoch}
    assert (index.sequence, index.counter) == (0, 0)
    await index.record([row("a", file("a"))])
    await index.close()

    index = await open_folder_index(path, randomness=os.urandom)
    assert index.recovered is None
    assert index.sequence == 1
    await index.close()


async def test_damage_that_shows_only_in_use_is_repaired_at_the_next_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "index.db"
    index = await open_folder_index(path, randomness=os.urandom)
    await index.record([row("a", file("a"))])
    await index.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE held SET entry = x'c1'")
    connection.close()

    index = await open_folder_index(path, randomness=os.urandom)
    with pytest.raises(DamagedError, match="restart the daemon"):
        await index.entries_after(0, 10)
    await index.close()
    index = await open_folder_index(path, randomness=os.urandom)
    assert index.recovered is not None
    assert await index.entries_after(0, 10) == []
    await index.close()


async def test_an_index_of_a_newer_version_is_not_taken_for_damaged(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    await (await open_folder_index(path, randomness=os.urandom)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="newer p2psync"):
        await open_folder_index(path, randomness=os.urandom)
    assert path.exists()
    assert not (tmp_path / "index.db.damaged-1").exists()


# --- record -----------------------------------------------------------------------------------


async def test_rows_are_numbered_in_the_order_given(index: SqliteFolderIndex) -> None:
    assert await index.record([row("b", file("b")), row("a", file("a"))]) == 2
    assert await index.record([row("c", file("c"))]) == 3
    assert [(number, path) for number, path, _ in await index.entries_after(0, 10)] == [
        (1, "b"),
        (2, "a"),
        (3, "c"),
    ]


async def test_a_row_that_is_replaced_moves_to_the_end(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("one")), row("b", file("b"))])
    assert await index.record([row("a", file("two"))]) == 3
    assert await index.entries_after(0, 10) == [
        (2, RelPath("b"), file("b")),
        (3, RelPath("a"), file("two")),
    ]


async def test_the_last_row_of_a_path_given_twice_wins(index: SqliteFolderIndex) -> None:
    assert await index.record([row("a", file("one")), row("a", file("two", size=30))]) == 2
    assert await index.entries_after(0, 10) == [(2, RelPath("a"), file("two", size=30))]
    assert (await index.counts())[:2] == (1, 30)


async def test_the_counter_follows_own_dots_alone(index: SqliteFolderIndex) -> None:
    own = index.replica
    await index.record([row("a", file("a", replica=own, counter=3))])
    await index.record([row("b", file("b", replica=own, counter=2))])
    await index.record([row("c", file("c", replica=own ^ 1, counter=99))])
    assert index.counter == 3


async def test_the_counter_passes_own_writes_that_a_peers_version_has_seen(
    index: SqliteFolderIndex,
) -> None:
    other = file("a", replica=1, counter=9)
    seen = msgspec.structs.replace(other.version, vector=((1, 9), (index.replica, 40)))
    assert other.version.dot == Dot(1, 9)
    await index.record([row("a", msgspec.structs.replace(other, version=seen))])
    assert index.counter == 40


async def test_a_sequence_is_not_used_again_when_its_row_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    index = await open_folder_index(path, randomness=os.urandom)
    await index.record([row("a", tombstone())])
    await index.set_acknowledged(ANNA, Cursor(index.epoch, 1))
    assert await index.drop_tombstones([ANNA]) == 1
    await index.close()
    index = await open_folder_index(path, randomness=os.urandom)
    assert (index.sequence, index.forgotten) == (1, 1)
    assert await index.record([row("b", file("b"))]) == 2
    await index.close()


async def test_a_record_that_fails_changes_nothing(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("a"))])
    before = (index.sequence, index.counter, await index.counts())
    entry, manifest = big_file("x", "y")
    nonsense = Row(RelPath("c"), entry, None, ((1, 2, 3),))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unpack"):
        await index.record([row("b", file("b", replica=index.replica, counter=8)), nonsense])
    assert (index.sequence, index.counter, await index.counts()) == before
    assert len(await index.entries_after(0, 10)) == 1
    assert await index.record([row("c", entry, manifest=manifest)]) == 2


async def test_a_full_disk_is_told_and_uses_up_no_sequence(index: SqliteFolderIndex) -> None:
    await index.record([row("a", file("a"))])
    await index._database.run(lambda c: c.execute("PRAGMA max_page_count = 1").fetchall())
    with pytest.raises(StorageError, match="disk is full"):
        await index.record([row(f"file {number}", file("b")) for number in range(1000)])
    assert (index.sequence, (await index.counts()).files) == (1, 1)
    await index._database.run(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchall())
    assert await index.record([row("b", file("b"))]) == 2


async def test_sequence_and_counter_are_right_though_the_caller_was_cancelled(
    index: SqliteFolderIndex,
) -> None:
    recording = asyncio.ensure_future(
        index.record([row("a", file("a", replica=index.replica, counter=4))])
    )
    await asyncio.sleep(0)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    stored = len(await index.entries_after(0, 10))
    assert (index.sequence, index.counter) == ((1, 4) if stored else (0, 0))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(relpaths, entries, st.none() | fingerprints), max_size=30))
def test_any_rows_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[RelPath, Entry, Fingerprint | None]],
) -> None:
    path = tmp_path_factory.mktemp("any") / "index.db"

    async def there_and_back() -> tuple[dict[RelPath, Held], dict[RelPath, Entry]]:
        index = await open_folder_index(path, randomness=os.urandom)
        offers = [(number, path, entry) for number, (path, entry, _) in enumerate(rows, start=1)]
        await index.record([Row(*columns) for columns in rows])
        await index.receive(ANNA, Cursor(1, len(rows)), offers, after=0)
        held = await index.held([path for path, _, _ in rows])
        wanted = [
            wanted
            for tombstones in (False, True)
            for wanted in await index.wanted(limit=100, tombstones=tombstones)
        ]
        assert {found.path: found.held for found in wanted} == held
        await index.close()
        return held, {found.path: found.offers[0].entry for found in wanted}

    held, offered = asyncio.run(there_and_back())
    expected = {path: (entry, fingerprint) for path, entry, fingerprint in rows}
    assert {path: found[:2] for path, found in held.items()} == expected
    assert offered == {path: entry for path, (entry, _) in expected.items()}


async def test_settled_offers_go_with_the_rows_that_settle_them(index: SqliteFolderIndex) -> None:
    await index.receive(
        ANNA,
        Cursor(1, 2),
        [(1, RelPath("a"), file("a")), (2, RelPath("b"), file("b"))],
        after=0,
    )
    await index.record([row("a", file("a"))], settled=[(RelPath("a"), Offer(ANNA, 1, file("a")))])
    assert [wanted.path for wanted in await index.wanted(limit=9, tombstones=False)] == ["b"]
    assert (await index.counts()).need_files == 1


async def test_a_long_index_is_read_in_pages(
    index: SqliteFolderIndex,
) -> None:
    rows = [
        Row(RelPath(f"d{number % 100}/{number}"), entry, fingerprint_of(entry))
        for number, entry in ((number, file(str(number))) for number in range(2000))
    ]
    await index.record(rows)
    read: list[RelPath] = []
    after = 0
    while page := await index.entries_after(after, 300):
        assert len(page) <= 300
        read.extend(path for _, path, _ in page)
        after = page[-1][0]
    assert read == [row.path for row in rows]


async def test_an_index_from_a_backup_gives_out_no_number_twice(tmp_path: Path) -> None:
    now_ns = 1_700_000_000 * 10**9
    path = tmp_path / "index.db"
    index = await open_folder_index(path, randomness=os.urandom, now_ns=now_ns)
    await index.close()
    shutil.copy(path, tmp_path / "backup")
    index = await open_folder_index(path, randomness=os.urandom, now_ns=now_ns)
    replica = index.replica
    entry = file("a", replica=replica, counter=index.counter + 1)
    for name in "abcdefghij":
        await index.record([row(name, entry)])
    used = index.counter, index.sequence
    await index.close()

    shutil.copy(tmp_path / "backup", path)
    index = await open_folder_index(path, randomness=os.urandom, now_ns=now_ns + 10**9)
    assert index.replica != replica
    assert index.counter > used[0]
    assert index.sequence > used[1]
    assert not index.has_reached(used[1])
    await index.close()


async def test_an_index_knows_which_numbers_it_has_stood_at(tmp_path: Path) -> None:
    reached = []
    for second in range(1, 4):
        index = await open_folder_index(
            tmp_path / "index.db", randomness=os.urandom, now_ns=second * 10**9
        )
        reached.append(index.sequence)
        reached.append(await index.record([row("a", file("a")), row("b", file("b"))]))
        assert all(index.has_reached(number) for number in [0, *reached])
        assert not any(index.has_reached(number + 1) for number in [0, *reached[1::2]])
        await index.close()
    index = await open_folder_index(tmp_path / "index.db", randomness=os.urandom)
    assert not index.has_reached(reached[1] + 1)
    await index.renew_replica()
    assert index.has_reached(reached[1] + 1)
    await index.close()


async def test_a_small_file_takes_at_most_300_bytes_of_the_index(tmp_path: Path) -> None:
    """30 MB for 100 000 files."""
    path, count, now_ns = tmp_path / "index.db", 3000, 1_900_000_000_123_456_789
    index = await open_folder_index(path, randomness=os.urandom, now_ns=now_ns)
    empty = path.stat().st_size
    rows = []
    for number in range(count):
        version = first_version(
            Dot(index.replica, index.counter + 1 + number), stamp=now_ns + number, author="anna"
        )
        mtime_ns = now_ns - 10**12 * number
        entry = Entry(Kind.FILE, version, content(str(number)), 4096, mtime_ns)
        mark = Fingerprint(
            Kind.FILE, 4096, mtime_ns, now_ns + number, 1 << 31, executable=False, racy=False
        )
        rows.append(Row(RelPath(f"{number // 100:03d}/file-{number:05d}.bin"), entry, mark))
    for at in range(0, count, 1000):
        await index.record(rows[at : at + 1000])
    await index.close()

    assert (path.stat().st_size - empty) / count <= 300

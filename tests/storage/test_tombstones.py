import os
import sqlite3
from pathlib import Path

from p2psync.core.relpath import RelPath
from p2psync.ports import Cursor, Offer
from p2psync.storage.database import open_database
from p2psync.storage.folder_index import SqliteFolderIndex, open_folder_index
from p2psync.storage.schema import FOLDER_MIGRATIONS
from tests.storage.builders import ANNA, BERT, file, row, tombstone


async def acknowledged(index: SqliteFolderIndex, *, anna: int, bert: int) -> None:
    await index.set_acknowledged(ANNA, Cursor(index.epoch, anna))
    await index.set_acknowledged(BERT, Cursor(index.epoch, bert))


async def test_tombstones_that_all_members_acknowledged_are_dropped(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("a")), *(row(name, tombstone()) for name in "bcd")])
    await acknowledged(index, anna=4, bert=3)
    assert index.forgotten == 0
    assert await index.drop_tombstones([ANNA, BERT]) == 2
    assert {path for _, path, _ in await index.entries_after(0, 10)} == {"a", "d"}
    assert index.forgotten == 3


async def test_where_none_is_to_be_dropped_nothing_is_written(index: SqliteFolderIndex) -> None:
    """It is asked every minute."""
    await index.record([row("a", tombstone()), row("b", file("b"))])
    await acknowledged(index, anna=2, bert=2)
    assert await index.drop_tombstones([ANNA, BERT]) == 1

    async def changes() -> int:
        return await index._database.run(lambda connection: connection.total_changes)

    before = await changes()
    assert await index.drop_tombstones([ANNA, BERT]) == 0
    assert await changes() == before
    assert index.forgotten == 1


async def test_of_an_older_index_any_tombstone_may_have_been_dropped(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    number = next(
        number for number, script in enumerate(FOLDER_MIGRATIONS) if "forgotten" in script
    )
    database = await open_database(path, FOLDER_MIGRATIONS[:number])

    def fill(connection: sqlite3.Connection) -> None:
        meta = {"epoch": 1, "replica": 2, "sequence": 40, "counter": 3}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())

    await database.run(fill)
    await database.close()
    index = await open_folder_index(path, randomness=os.urandom)
    assert (index.sequence, index.forgotten) == (40, 40)
    await index.close()


async def test_none_are_dropped_while_a_member_acknowledged_nothing_of_this_epoch(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", tombstone())])
    await index.set_acknowledged(ANNA, Cursor(index.epoch, 1))
    assert await index.drop_tombstones([ANNA, BERT]) == 0
    await index.set_acknowledged(BERT, Cursor(index.epoch + 1, 1))
    assert await index.drop_tombstones([ANNA, BERT]) == 0
    assert await index.drop_tombstones([]) == 0


async def test_a_tombstone_stays_while_its_path_is_offered(index: SqliteFolderIndex) -> None:
    await index.record([row("a", tombstone()), row("b", tombstone())])
    await acknowledged(index, anna=2, bert=2)
    await index.receive(ANNA, Cursor(1, 1), [(1, RelPath("a"), file("a"))], after=0)
    assert await index.drop_tombstones([ANNA]) == 1
    assert set(await index.held([RelPath("a"), RelPath("b")])) == {"a"}
    await index.settle([(RelPath("a"), Offer(ANNA, 1, file("a")))])
    assert await index.drop_tombstones([ANNA]) == 1


async def test_who_was_no_member_when_tombstones_went_acknowledged_nothing(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", file("a")), *(row(name, tombstone()) for name in "bcd")])
    await acknowledged(index, anna=3, bert=2)
    assert await index.drop_tombstones([ANNA]) == 2
    assert await index.acknowledged(ANNA) == Cursor(index.epoch, 3)
    assert await index.acknowledged(BERT) == Cursor(0, 0)


async def test_who_was_no_member_keeps_what_it_acknowledged_if_it_missed_nothing(
    index: SqliteFolderIndex,
) -> None:
    await index.record([row("a", tombstone()), row("b", file("b")), row("c", file("c"))])
    await acknowledged(index, anna=3, bert=2)
    assert await index.drop_tombstones([ANNA]) == 1
    assert await index.drop_tombstones([ANNA]) == 0
    assert await index.acknowledged(BERT) == Cursor(index.epoch, 2)

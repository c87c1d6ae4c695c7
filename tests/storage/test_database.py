import asyncio
import sqlite3
import stat
import threading
from functools import partial
from pathlib import Path

import msgspec
import pytest

from p2psync.errors import ConfigError, DamagedError
from p2psync.storage.database import (
    StorageError,
    is_marked,
    open_database,
    reading,
    set_aside,
    shrink,
    transaction,
)

NOTES = ("CREATE TABLE notes (note TEXT UNIQUE)",)


def add(connection: sqlite3.Connection, note: str) -> None:
    connection.execute("INSERT INTO notes VALUES (?)", (note,))


def notes(connection: sqlite3.Connection) -> list[str]:
    return [note for (note,) in connection.execute("SELECT note FROM notes ORDER BY note")]


async def noted(path: Path, *written: str) -> None:
    database = await open_database(path, NOTES)
    for note in written:
        await database.run(partial(add, note=note))
    await database.close()


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    await noted(tmp_path / "a.db", "one")
    database = await open_database(tmp_path / "a.db", NOTES)
    assert await database.run(notes) == ["one"]
    await database.close()


async def test_commits_are_synced_to_the_disk(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)

    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.run(pragmas) == ["wal", 2, 1, 2]
    await database.close()


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    await database.run(lambda connection: add(connection, "secret"))
    for name in ("a.db", "a.db-wal", "a.db-shm"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    await database.close()


async def test_all_work_is_done_in_one_other_thread(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    threads = {await database.run(lambda _: threading.get_ident()) for _ in range(5)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    await database.close()


async def test_the_loop_runs_on_while_the_database_works(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    proceed = threading.Event()
    working = asyncio.ensure_future(database.run(lambda _: proceed.wait(5)))
    await asyncio.sleep(0)
    proceed.set()
    assert await working
    await database.close()


async def test_opening_and_closing_leaves_no_thread_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    for _ in range(5):
        await noted(tmp_path / "a.db")
    assert threading.active_count() == before


async def test_closing_waits_for_work_that_was_asked_for(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    writing = asyncio.ensure_future(database.run(lambda connection: add(connection, "last")))
    await asyncio.sleep(0)
    await database.close()
    await database.close()
    await writing
    with sqlite3.connect(tmp_path / "a.db") as connection:
        assert notes(connection) == ["last"]
    connection.close()


async def test_work_asked_for_after_closing_is_refused_with_a_sentence(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    await database.close()
    with pytest.raises(StorageError, match="is closed"):
        await database.run(notes)


async def test_work_that_was_begun_is_finished_though_the_caller_is_cancelled(
    tmp_path: Path,
) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    begun, proceed = threading.Event(), threading.Event()

    def slow(connection: sqlite3.Connection) -> None:
        begun.set()
        proceed.wait(5)
        add(connection, "kept")

    writing = asyncio.ensure_future(database.run(slow))
    await asyncio.to_thread(begun.wait, 5)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    proceed.set()
    assert await database.run(notes) == ["kept"]
    await database.close()


async def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)

    def fail(connection: sqlite3.Connection) -> None:
        with transaction(connection):
            add(connection, "one")
            add(connection, "one")

    with pytest.raises(sqlite3.IntegrityError):
        await database.run(fail)
    assert await database.run(notes) == []
    await database.run(lambda connection: add(connection, "one"))
    await database.close()


async def test_later_migrations_are_applied_to_an_older_file(tmp_path: Path) -> None:
    await noted(tmp_path / "a.db", "old")
    more = (*NOTES, "ALTER TABLE notes ADD COLUMN stars INTEGER DEFAULT 3")
    for _ in range(2):
        database = await open_database(tmp_path / "a.db", more)
        rows = await database.run(
            lambda connection: connection.execute("SELECT * FROM notes").fetchall()
        )
        assert rows == [("old", 3)]
        await database.close()


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    await noted(tmp_path / "a.db", "old")
    broken = (*NOTES, "CREATE TABLE more (x); CREATE TABLE notes (y)")
    with pytest.raises(sqlite3.OperationalError):
        await open_database(tmp_path / "a.db", broken)
    working = (*NOTES, "CREATE TABLE more (x)")
    database = await open_database(tmp_path / "a.db", working)
    assert await database.run(notes) == ["old"]
    await database.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    newer = (*NOTES, "CREATE TABLE future (x)")
    await (await open_database(tmp_path / "a.db", newer)).close()
    before = (tmp_path / "a.db").read_bytes()
    with pytest.raises(ConfigError, match=r"newer p2psync \(format 2; .* up to 1\)"):
        await open_database(tmp_path / "a.db", NOTES)
    assert (tmp_path / "a.db").read_bytes() == before


async def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"not a database, yet long enough to hold a header" * 100)
    with pytest.raises(DamagedError, match=r"a\.db is damaged"):
        await open_database(tmp_path / "a.db", NOTES)


async def test_a_page_that_was_overwritten_is_found_at_the_start(tmp_path: Path) -> None:
    await noted(tmp_path / "a.db", *(f"{number:0500}" for number in range(40)))
    with (tmp_path / "a.db").open("r+b") as file:
        file.seek(4 * 4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(DamagedError):
        await open_database(tmp_path / "a.db", NOTES)


async def test_damage_met_while_working_is_told_and_marked_for_the_next_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    database = await open_database(path, NOTES)
    assert not is_marked(path)
    with pytest.raises(DamagedError):
        await database.run(lambda _: msgspec.msgpack.decode(b"\xc1"))
    await database.close()
    assert is_marked(path)
    set_aside(path)
    assert not is_marked(path)


async def test_a_database_that_another_program_locks_is_told_as_a_sentence(
    tmp_path: Path,
) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    await database.run(lambda connection: connection.execute("PRAGMA busy_timeout = 0"))
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="in use by another program"):
        await database.run(lambda connection: add(connection, "one"))
    other.close()
    await database.run(lambda connection: add(connection, "two"))
    assert await database.run(notes) == ["two"]
    await database.close()


async def test_a_full_disk_is_told_as_a_sentence_and_the_database_goes_on(
    tmp_path: Path,
) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    limit = await database.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await database.run(lambda c: c.execute(f"PRAGMA max_page_count = {limit}").fetchall())

    def fill(connection: sqlite3.Connection) -> None:
        with transaction(connection):
            add(connection, "x" * 100_000)

    with pytest.raises(StorageError, match="disk is full"):
        await database.run(fill)
    await database.run(lambda connection: add(connection, "small"))
    assert await database.run(notes) == ["small"]
    await database.close()


async def test_a_directory_that_is_missing_is_told_as_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        await open_database(tmp_path / "missing" / "a.db", NOTES)


async def test_a_commit_survives_a_crash_right_after_it(tmp_path: Path) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    await database.run(lambda connection: add(connection, "one"))
    for suffix in ("", "-wal"):
        (tmp_path / f"b.db{suffix}").write_bytes((tmp_path / f"a.db{suffix}").read_bytes())
    await database.close()
    database = await open_database(tmp_path / "b.db", NOTES)
    assert await database.run(notes) == ["one"]
    await database.close()


async def test_the_log_of_a_vanished_database_is_not_replayed_into_a_new_one(
    tmp_path: Path,
) -> None:
    database = await open_database(tmp_path / "a.db", NOTES)
    await database.run(lambda connection: add(connection, "old"))
    log = (tmp_path / "a.db-wal").read_bytes()
    await database.close()
    (tmp_path / "a.db").unlink()
    (tmp_path / "a.db-wal").write_bytes(log)
    database = await open_database(tmp_path / "a.db", NOTES)
    assert await database.run(notes) == []
    await database.close()


def test_damaged_files_are_set_aside_under_free_names(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for number in (1, 2):
        path.write_bytes(b"damaged %d" % number)
        (tmp_path / "a.db-wal").write_bytes(b"log %d" % number)
        (tmp_path / "a.db-shm").write_bytes(b"")
        assert set_aside(path) == tmp_path / f"a.db.damaged-{number}"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "a.db.damaged-1": b"damaged 1",
        "a.db.damaged-1-wal": b"log 1",
        "a.db.damaged-2": b"damaged 2",
        "a.db.damaged-2-wal": b"log 2",
    }


async def test_a_file_that_is_mostly_empty_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = await open_database(path, NOTES)
    await database.run(lambda connection: add(connection, "x" * 500_000))
    await database.run(lambda connection: connection.execute("DELETE FROM notes"))
    await database.run(shrink)
    await database.close()
    assert path.stat().st_size < 50_000


async def test_what_is_read_in_one_go_is_of_one_state(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await noted(path, "old")
    database = await open_database(path, NOTES)
    other = sqlite3.connect(path)

    def read_twice(connection: sqlite3.Connection) -> list[list[str]]:
        with reading(connection):
            before = notes(connection)
            begun.set()
            written.wait()
            return [before, notes(connection)]

    begun, written = threading.Event(), threading.Event()
    reads = asyncio.create_task(database.run(read_twice))
    await asyncio.to_thread(begun.wait)
    with other:
        add(other, "new")
    written.set()
    assert await reads == [["old"], ["old"]]
    assert await database.run(notes) == ["new", "old"]
    other.close()
    await database.close()

"""One SQLite file and the one thread that speaks to it.

A transaction that was committed survives a power cut (WAL with `synchronous=FULL`): version
counters are handed out by it, and a counter that is used twice loses someone's update.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from p2psync import failpoints
from p2psync.errors import ConfigError, DamagedError, P2psyncError

T = TypeVar("T")

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 5000",
    # A daemon has a database per folder, so each gets little memory: the page cache of the
    # operating system does the rest.
    "PRAGMA cache_size = -4096",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 8388608",
)

_MARK = ".is-damaged"


class StorageError(P2psyncError):
    """The database could not do what was asked; nothing was changed."""


class Database:
    """An open SQLite file; `open_database` makes it."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, executor: ThreadPoolExecutor
    ) -> None:
        self._path = path
        self._connection = connection
        self._executor = executor
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work(connection)` in the database's thread, one call at a time, in order of asking.

        Work that was begun is finished even when the caller is cancelled. Raises DamagedError
        when the file does not read back as it was written (and marks it so for `is_marked`),
        StorageError when it cannot be used or was closed.
        """
        if self._closed:
            # A peer's message may still be on its way through when its folder ends.
            raise StorageError(f"{self._path} is closed: the folder or the daemon is ending.")

        def work_with_sentences() -> T:
            try:
                try:
                    return work(self._connection)
                except Exception:
                    # Only now: nearly all work goes well.
                    with _sentences(self._path):
                        raise
            except DamagedError:
                _beside(self._path, _MARK).touch()
                raise

        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, work_with_sentences)

    async def close(self) -> None:
        """Finish what was asked, then close the file and end the thread. May be repeated."""
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        closing = loop.run_in_executor(self._executor, self._connection.close)
        try:
            # Shielded: a close that is dropped from the queue would leave the file open.
            await asyncio.shield(closing)
        finally:
            self._executor.shutdown(wait=True)


async def open_database(path: Path, migrations: Sequence[str]) -> Database:
    """Open or create `path` (readable by its owner alone) and bring its tables up to date.

    `migrations[n]` is a script that takes a database from format n to n + 1. Raises ConfigError
    when a newer p2psync made the file, DamagedError when it is damaged, StorageError.
    """
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"p2psync-{path.name}")
    loop = asyncio.get_running_loop()
    try:
        connection = await loop.run_in_executor(executor, _open, path, migrations)
    except BaseException:
        executor.shutdown(wait=False)
        raise
    return Database(path, connection, executor)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything in the block is stored, durably, or nothing is."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """All that the block reads is of one state, and the file is locked once and not each time."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def shrink(connection: sqlite3.Connection) -> None:
    """Give free pages back to the file system where they are a quarter of the file or more."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if 4 * free >= pages:
        # Not execute(), which would stop after the first page.
        connection.executescript("PRAGMA incremental_vacuum")


def is_marked(path: Path) -> bool:
    """Whether damage was met in the database while it was in use: not all of it shows at a start,
    for SQLite has no checksums."""
    return path.exists() and _beside(path, _MARK).exists()


def set_aside(path: Path) -> Path:
    """Rename a closed, damaged database to the first free `<name>.damaged-<n>`; its new path.

    Raises StorageError.
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with _sentences(path):
        # The database first: should the power fail here, `_create` removes the log that is left,
        # while a database that lost its log would pass for a good one in an earlier state.
        path.rename(aside)
        failpoints.reach("database.set-aside")
        _sync_directory(path.parent)
        with suppress(FileNotFoundError):
            _beside(path, "-wal").rename(_beside(aside, "-wal"))
        for suffix in ("-shm", _MARK):
            _beside(path, suffix).unlink(missing_ok=True)
        _sync_directory(path.parent)
    return aside


def _open(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    with _sentences(path):
        if not path.exists():
            _create(path)
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            _prepare(connection, path, migrations)
        except BaseException:
            connection.close()
            raise
        return connection


def _create(path: Path) -> None:
    for suffix in ("-wal", "-shm", _MARK):
        # SQLite would replay the log of a vanished database into the new one.
        _beside(path, suffix).unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    failpoints.reach("database.created")
    _sync_directory(path.parent)


def _prepare(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise ConfigError(
            f"{path} was written by a newer p2psync (format {version}; this one knows up to "
            f"{len(migrations)}). Install that version again, or start with another home."
        )
    if version == 0:
        # For `shrink`; it can only be chosen before the first table is made.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    # Damage is looked for at every start, because here it can be repaired: one pass over the
    # file, about as long as reading it.
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamagedError(_damage(path, verdict))
    for number, script in enumerate(migrations[version:], start=version + 1):
        try:
            connection.executescript(
                f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;"
            )
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a database into what a person can be told."""
    try:
        yield
    except msgspec.DecodeError as error:
        raise DamagedError(_damage(path, str(error))) from error
    except OSError as error:
        raise StorageError(
            f"{path} could not be used: {error.strerror}. Check its permissions and the disk."
        ) from error
    except sqlite3.DatabaseError as error:
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                raise DamagedError(_damage(path, str(error))) from error
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise StorageError(
                    f"{path} is in use by another program. Stop it, then try again."
                ) from error
            case sqlite3.SQLITE_FULL:
                raise StorageError(
                    f"{path} could not be written: the disk is full. Free some space."
                ) from error
            case (
                sqlite3.SQLITE_IOERR
                | sqlite3.SQLITE_CANTOPEN
                | sqlite3.SQLITE_READONLY
                | sqlite3.SQLITE_PERM
                | sqlite3.SQLITE_NOMEM
            ):
                raise StorageError(
                    f"{path} could not be used: {error}. Check its permissions and the disk."
                ) from error
        raise


def _damage(path: Path, detail: str) -> str:
    return f"{path} is damaged ({detail}). Check the disk, then restart the daemon."


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

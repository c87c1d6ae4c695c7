"""What this device holds at each path: the table `held`.

Functions over a connection, for use in the database's thread; those that write are called
inside a transaction.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import blake3

from p2psync.core.entry import Entry, Fingerprint, Kind
from p2psync.core.relpath import RelPath
from p2psync.ports import Held, Row
from p2psync.storage.packing import (
    column_size,
    content_key,
    pack,
    pack_entry,
    path_list,
    unpack_entry,
    unpack_fingerprint,
    unpack_held,
)


def held_at(connection: sqlite3.Connection, paths: Collection[RelPath]) -> dict[RelPath, Held]:
    if not paths:
        return {}
    condition = "path IN (SELECT value FROM json_each(:paths))"
    return dict(_select(connection, condition, {"paths": path_list(paths)}))


def held_under(connection: sqlite3.Connection, directory: RelPath) -> list[tuple[RelPath, Held]]:
    condition = "path > :low AND path < :high AND kind > 0 ORDER BY path"
    return _select(connection, condition, _bounds(directory))


def held_copies(connection: sqlite3.Connection) -> list[tuple[RelPath, Held]]:
    return _select(connection, "is_copy = 1 AND kind > 0 ORDER BY path", {})


def files_after(
    connection: sqlite3.Connection, path: str, limit: int
) -> list[tuple[RelPath, Held]]:
    condition = "path > :path AND kind = 2 ORDER BY path LIMIT :limit"
    return _select(connection, condition, {"path": path, "limit": limit})


def load_fingerprints(
    connection: sqlite3.Connection, under: RelPath | None, after: str, limit: int
) -> list[tuple[RelPath, Fingerprint]]:
    # With one lower bound, the best: of two SQLite would take the one that it sees first, and read
    # the index from there.
    condition = "path >= :from AND path != :after AND kind > 0 AND fingerprint IS NOT NULL"
    names: dict[str, str | int] = {
        "from": max(under or "", after),
        "after": after,
        "limit": limit,
    }
    if under is not None:
        condition += " AND path < :high AND (path = :path OR path > :low)"
        names |= {"path": under, **_bounds(under)}
    rows = connection.execute(
        f"SELECT path, fingerprint FROM held WHERE {condition} ORDER BY path LIMIT :limit", names
    )
    return [(RelPath(path), unpack_fingerprint(packed)) for path, packed in rows]


def entries_after(
    connection: sqlite3.Connection, sequence: int, limit: int
) -> list[tuple[int, RelPath, Entry]]:
    rows = connection.execute(
        "SELECT sequence, path, entry FROM held WHERE sequence > ? ORDER BY sequence LIMIT ?",
        (sequence, limit),
    )
    return [(number, RelPath(path), unpack_entry(entry)) for number, path, entry in rows]


def recorded_after(connection: sqlite3.Connection, sequence: int) -> tuple[int, int]:
    """How many rows come after `sequence`, and the bytes of their files."""
    count, size = connection.execute(
        "SELECT count(*), total(iif(kind = 2, size, 0)) FROM held WHERE sequence > ?", (sequence,)
    ).fetchone()
    return count, int(size)


def digest_of_live(connection: sqlite3.Connection) -> bytes:
    """The sum, modulo 2^256, of the BLAKE3 of each (path, kind, content, executable) in msgpack.

    Devices compare these, so the bytes that are hashed are part of the protocol.
    """
    total = 0
    for path, packed in connection.execute("SELECT path, entry FROM held WHERE kind > 0"):
        entry = unpack_entry(packed)
        row = pack((path, entry.kind, entry.content, entry.executable))
        total += int.from_bytes(blake3.blake3(row).digest(), "big")
    return (total % (1 << 256)).to_bytes(32, "big")


def store_rows(connection: sqlite3.Connection, rows: Iterable[Row], *, start: int) -> None:
    """Each replaces what was held at its path; `start` is the first one's sequence."""
    connection.executemany(
        "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _columns(rows, start)
    )


def store_fingerprints(
    connection: sqlite3.Connection, fingerprints: Sequence[tuple[RelPath, Fingerprint]]
) -> None:
    connection.executemany(
        "UPDATE held SET fingerprint = ? WHERE path = ? AND kind > 0",
        [(pack(fingerprint), path) for path, fingerprint in fingerprints],
    )


def store_underway(connection: sqlite3.Connection, entries: Mapping[RelPath, Entry]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO underway VALUES (?, ?)",
        [(path, pack_entry(entry)) for path, entry in entries.items()],
    )


def load_underway(connection: sqlite3.Connection) -> dict[RelPath, Entry]:
    rows = connection.execute("SELECT path, entry FROM underway")
    return {RelPath(path): unpack_entry(packed) for path, packed in rows}


def drop_underway(connection: sqlite3.Connection, paths: Iterable[RelPath]) -> None:
    connection.execute(
        "DELETE FROM underway WHERE path IN (SELECT value FROM json_each(?))", (path_list(paths),)
    )


def counters_of(replica: int, rows: Iterable[Row]) -> Iterator[int]:
    """The replica's counters that the rows' versions have seen, their dots included."""
    for row in rows:
        version = row.entry.version
        for author, counter in (version.dot, *version.vector):
            if author == replica:
                yield counter


def _select(
    connection: sqlite3.Connection, condition: str, names: Mapping[str, str | int]
) -> list[tuple[RelPath, Held]]:
    rows = connection.execute(
        f"SELECT path, sequence, entry, fingerprint, damage FROM held WHERE {condition}", names
    )
    return [(RelPath(path), unpack_held(*columns)) for path, *columns in rows]


def _bounds(directory: RelPath) -> dict[str, str]:
    """Both excluded; between them sort all paths below the directory, and no other ("0" is the
    character after "/")."""
    return {"low": f"{directory}/", "high": f"{directory}0"}


def _columns(
    rows: Iterable[Row], start: int
) -> Iterator[tuple[int, str, int, int, bool, int | None, bytes, bytes | None, bytes | None]]:
    for sequence, (path, entry, fingerprint, _, damage) in enumerate(rows, start=start):
        yield (
            sequence,
            path,
            entry.kind,
            column_size(entry),
            entry.copy_of != "",
            content_key(entry.content) if entry.kind == Kind.FILE else None,
            pack_entry(entry),
            None if fingerprint is None else pack(fingerprint),
            damage,
        )

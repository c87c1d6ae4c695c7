"""Which held files are damaged, which were, and how far the reading of all files has come.

Functions over a connection, for use in the database's thread; those that write are called
inside a transaction.
"""

import sqlite3
from collections.abc import Sequence

from p2psync.core.relpath import RelPath
from p2psync.ports import Damage, Finding, Held, Scrub
from p2psync.storage.packing import pack, unpack_held

MAX_FINDINGS = 200
"""Of files that are damaged no more; the oldest are forgotten."""
MAX_TOLD = 1000


def store_damages(
    connection: sqlite3.Connection, damages: Sequence[Damage], *, now_ns: int
) -> None:
    connection.executemany(
        "UPDATE held SET fingerprint = ?, damage = ? WHERE path = ? AND kind = 2",
        [(pack(each.fingerprint), each.found, each.path) for each in damages],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO findings VALUES (?, ?)", [(each.path, now_ns) for each in damages]
    )
    connection.execute(
        "DELETE FROM findings "
        "WHERE path NOT IN (SELECT path FROM findings ORDER BY found_ns DESC, path LIMIT ?) "
        "AND path NOT IN (SELECT path FROM held WHERE damage IS NOT NULL)",
        (MAX_FINDINGS,),
    )


def store_moved(connection: sqlite3.Connection, paths: Sequence[RelPath]) -> None:
    """Damaged files were found at these paths: the ones that were found earlier elsewhere."""
    connection.executemany(
        "INSERT OR IGNORE INTO findings SELECT ?, coalesce(max(found_ns), 0) FROM findings",
        [(path,) for path in paths],
    )


def load_damaged(
    connection: sqlite3.Connection, limit: int, after: str
) -> list[tuple[RelPath, Held]]:
    rows = connection.execute(
        "SELECT path, sequence, entry, fingerprint, damage FROM held INDEXED BY held_damaged "
        "WHERE damage IS NOT NULL AND path > ? ORDER BY path LIMIT ?",
        (after, limit),
    )
    return [(RelPath(path), unpack_held(*columns)) for path, *columns in rows]


def load_findings(connection: sqlite3.Connection) -> list[Finding]:
    rows = connection.execute(
        "SELECT findings.path, found_ns, held.damage IS NOT NULL FROM findings "
        "LEFT JOIN held ON held.path = findings.path "
        "ORDER BY held.damage IS NULL, found_ns DESC, findings.path LIMIT ?",
        (MAX_TOLD,),
    )
    return [Finding(RelPath(path), found_ns, bool(damaged)) for path, found_ns, damaged in rows]


def load_scrub(connection: sqlite3.Connection) -> Scrub:
    row = connection.execute(
        "SELECT begun_ns, finished_ns, position, files, bytes, damaged FROM scrub"
    ).fetchone()
    return Scrub() if row is None else Scrub(*row)


def store_scrub(connection: sqlite3.Connection, scrub: Scrub) -> None:
    connection.execute("INSERT OR REPLACE INTO scrub VALUES (1, ?, ?, ?, ?, ?, ?)", scrub)

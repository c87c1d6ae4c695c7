"""Counts of an index, measured over all its paths or over a few.

The index keeps its totals by measuring the paths of a change before and after it: counting anew
would read every row each time someone asks.
"""

import sqlite3
from collections.abc import Collection

from p2psync.core.relpath import RelPath
from p2psync.ports import Counts
from p2psync.storage.packing import path_list

# total() and not sum(): offers may claim sizes whose sum overflows, and sum() then fails.
_HELD = """
SELECT total(kind = 2), total(iif(kind = 2, size, 0)), total(is_copy AND kind > 0),
       total(damage IS NOT NULL), total(iif(damage IS NULL, 0, size))
FROM held WHERE {paths}
"""
_WANTED = """
SELECT count(*), total(largest), total(NOT live) FROM (
    SELECT max(iif(kind > 0, size, 0)) AS largest, max(kind > 0) AS live
    FROM wanted WHERE {paths} GROUP BY path
)
"""


def measure(
    connection: sqlite3.Connection,
    *,
    held: Collection[RelPath] | None,
    wanted: Collection[RelPath] | None,
) -> Counts:
    """The counts over these paths of the two tables alone (None: over all)."""
    files = size = conflicts = damaged = damaged_size = 0
    need_files = need_size = deletes = 0
    if held is None or held:
        files, size, conflicts, damaged, damaged_size = _select(connection, _HELD, held)
    if wanted is None or wanted:
        need_files, need_size, deletes = _select(connection, _WANTED, wanted)
    return Counts(
        files=files,
        bytes=size,
        need_files=need_files + damaged,
        need_bytes=need_size + damaged_size,
        need_deletes=deletes,
        conflicts=conflicts,
        damaged=damaged,
    )


def shifted(totals: Counts, *, before: Counts, after: Counts) -> Counts:
    """`totals` once the part that measured `before` measures `after`."""
    return Counts(*(t + a - b for t, a, b in zip(totals, after, before, strict=True)))


def _select(
    connection: sqlite3.Connection, query: str, paths: Collection[RelPath] | None
) -> list[int]:
    if paths is None:
        row = connection.execute(query.format(paths="TRUE")).fetchone()
    else:
        some = query.format(paths="path IN (SELECT value FROM json_each(?))")
        row = connection.execute(some, (path_list(paths),)).fetchone()
    return [int(value) for value in row]

"""What peers hold and this device has not settled, and how far each peer is followed.

Functions over a connection, for use in the database's thread; those that write are called
inside a transaction.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from p2psync.core.entry import SINGLE_CHUNK_MAX, Entry
from p2psync.core.ids import DeviceID
from p2psync.core.relpath import RelPath, depth
from p2psync.ports import Cursor, Offer, Wanted
from p2psync.storage.packing import (
    column_size,
    content_key,
    is_chunked,
    pack_entry,
    path_list,
    unpack_entry,
    unpack_held,
)

# Of a path's offers that qualify only the least leads, so that each path is chosen once. Within a
# class of sizes the order is that of arrival, which is mostly by directory: rows that are settled
# together then lie together.
_CHOSEN_LIVE = """
SELECT path FROM wanted AS lead
WHERE kind > 0 AND path NOT IN (SELECT value FROM json_each(:skip)) AND NOT EXISTS (
    SELECT 1 FROM wanted AS other WHERE other.path = lead.path AND other.kind > 0
    AND (other.size_class, other.peer) < (lead.size_class, lead.peer))
ORDER BY depth, size_class, id LIMIT :limit
"""
_CHOSEN_TOMBSTONES = """
SELECT path FROM wanted AS lead
WHERE kind = 0 AND path NOT IN (SELECT value FROM json_each(:skip)) AND NOT EXISTS (
    SELECT 1 FROM wanted AS other WHERE other.path = lead.path
    AND (other.kind > 0 OR other.peer < lead.peer))
ORDER BY depth DESC, id DESC LIMIT :limit
"""
_DETAILS = """
SELECT wanted.path, held.sequence, held.entry, held.fingerprint,
       peers.device, wanted.sequence, wanted.entry
FROM wanted JOIN peers ON peers.id = wanted.peer LEFT JOIN held ON held.path = wanted.path
WHERE wanted.path IN (SELECT value FROM json_each(:paths)) ORDER BY wanted.path, wanted.peer
"""


def choose_wanted(
    connection: sqlite3.Connection, *, limit: int, tombstones: bool, skip: Iterable[RelPath]
) -> list[Wanted]:
    """As `ports.FolderIndex.wanted`."""
    chosen = connection.execute(
        _CHOSEN_TOMBSTONES if tombstones else _CHOSEN_LIVE,
        {"limit": limit, "skip": path_list(skip)},
    )
    paths = [RelPath(path) for (path,) in chosen]
    rows = connection.execute(_DETAILS, {"paths": path_list(paths)})
    wanted = {
        path: Wanted(
            path=RelPath(path),
            held=None if sequence is None else unpack_held(sequence, entry, fingerprint),
            offers=tuple(
                Offer(DeviceID(device), number, unpack_entry(offered))
                for *_, device, number, offered in offers
            ),
        )
        for (path, sequence, entry, fingerprint), offers in groupby(rows, key=lambda row: row[:4])
    }
    return [wanted[path] for path in paths]


def store_offers(
    connection: sqlite3.Connection,
    peer: DeviceID,
    offers: Sequence[tuple[int, RelPath, Entry]],
) -> None:
    """Each replaces what the peer offered for that path before."""
    number = _number_of(connection, peer)
    connection.executemany(
        "INSERT OR REPLACE INTO wanted "
        "(path, peer, sequence, kind, depth, size, size_class, content_key, entry) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        _offer_columns(number, offers),
    )


def drop_offers(
    connection: sqlite3.Connection, settled: Iterable[tuple[RelPath, DeviceID]]
) -> None:
    connection.executemany(
        "DELETE FROM wanted WHERE path = ? AND peer = (SELECT id FROM peers WHERE device = ?)",
        settled,
    )


def drop_all_offers(connection: sqlite3.Connection, peer: DeviceID) -> None:
    connection.execute(
        "DELETE FROM wanted WHERE peer = (SELECT id FROM peers WHERE device = ?)", (peer,)
    )


def load_cursor(connection: sqlite3.Connection, peer: DeviceID) -> Cursor:
    row = connection.execute(
        "SELECT epoch, sequence FROM peers WHERE device = ?", (peer,)
    ).fetchone()
    return Cursor(0, 0) if row is None else Cursor(*row)


def store_cursor(connection: sqlite3.Connection, peer: DeviceID, cursor: Cursor) -> None:
    connection.execute(
        "UPDATE peers SET epoch = ?, sequence = ? WHERE id = ?",
        (*cursor, _number_of(connection, peer)),
    )


def load_acknowledged(connection: sqlite3.Connection, peer: DeviceID) -> Cursor:
    row = connection.execute(
        "SELECT acknowledged_epoch, acknowledged_sequence FROM peers WHERE device = ?", (peer,)
    ).fetchone()
    return Cursor(0, 0) if row is None else Cursor(*row)


def store_acknowledged(connection: sqlite3.Connection, peer: DeviceID, cursor: Cursor) -> None:
    connection.execute(
        "UPDATE peers SET acknowledged_epoch = ?, acknowledged_sequence = ? WHERE id = ?",
        (*cursor, _number_of(connection, peer)),
    )


def drop_peer(connection: sqlite3.Connection, peer: DeviceID) -> None:
    """With all its offers."""
    connection.execute("DELETE FROM peers WHERE device = ?", (peer,))


def applied_sequence(connection: sqlite3.Connection, peer: DeviceID) -> int:
    """The peer's sequence up to which none of its offers is unsettled."""
    received = load_cursor(connection, peer).sequence
    (unsettled,) = connection.execute(
        "SELECT min(sequence) FROM wanted WHERE peer = (SELECT id FROM peers WHERE device = ?)",
        (peer,),
    ).fetchone()
    return received if unsettled is None else min(received, unsettled - 1)


def _number_of(connection: sqlite3.Connection, peer: DeviceID) -> int:
    """The short number that stands for the device in `wanted`; given to it if it has none."""
    connection.execute("INSERT INTO peers (device) VALUES (?) ON CONFLICT DO NOTHING", (peer,))
    (number,) = connection.execute("SELECT id FROM peers WHERE device = ?", (peer,)).fetchone()
    return int(number)


def _offer_columns(
    peer: int, offers: Sequence[tuple[int, RelPath, Entry]]
) -> Iterator[tuple[str, int, int, int, int, int, int, int | None, bytes]]:
    for sequence, path, entry in offers:
        size = column_size(entry)
        yield (
            path,
            peer,
            sequence,
            entry.kind,
            depth(path),
            size,
            size.bit_length() if size > SINGLE_CHUNK_MAX else 0,
            content_key(entry.content) if is_chunked(entry) else None,
            pack_entry(entry),
        )

"""What peers hold and this device has not settled, and how far each peer is followed.

Functions over a connection, for use in the database's thread; those that write are called
inside a transaction.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_STAMP = "(SELECT max(id) FROM wanted AS other WHERE other.path = lead.path)"
_CHOSEN_LIVE = f"""
SELECT path, {_STAMP}, depth, size_class, id FROM wanted AS lead
WHERE kind > 0 AND (depth, size_class, id) > (?, ?, ?) AND NOT EXISTS (
    SELECT 1 FROM wanted AS other WHERE other.path = lead.path AND other.kind > 0
    AND (other.size_class, other.peer) < (lead.size_class, lead.peer))
ORDER BY depth, size_class, id
"""
_CHOSEN_TOMBSTONES = f"""
SELECT path, {_STAMP}, depth, id FROM wanted AS lead
WHERE kind = 0 AND (depth, id) < (?, ?) AND NOT EXISTS (
    SELECT 1 FROM wanted AS other WHERE other.path = lead.path
    AND (other.kind > 0 OR other.peer < lead.peer))
ORDER BY depth DESC, id DESC
"""
_BEFORE_LIVE = (-1, -1, -1)
_BEFORE_TOMBSTONES = (1 << 62, 1 << 62)
_DETAILS = """
SELECT wanted.path, held.sequence, held.entry, held.fingerprint, held.damage,
       peers.device, wanted.id, wanted.sequence, wanted.entry
FROM wanted JOIN peers ON peers.id = wanted.peer LEFT JOIN held ON held.path = wanted.path
WHERE wanted.path IN (SELECT value FROM json_each(:paths)) ORDER BY wanted.path, wanted.peer
"""
_APPLIED = """
SELECT sequence, (SELECT min(sequence) FROM wanted WHERE wanted.peer = peers.id)
FROM peers WHERE device = ?
"""


def choose_wanted(
    connection: sqlite3.Connection,
    *,
    limit: int,
    tombstones: bool,
    after: tuple[int, ...],
    skip: Mapping[RelPath, int],
) -> list[Wanted]:
    """As `ports.FolderIndex.wanted`."""
    query = _CHOSEN_TOMBSTONES if tombstones else _CHOSEN_LIVE
    places: dict[RelPath, tuple[int, ...]] = {}
    rows = connection.execute(query, after or (_BEFORE_TOMBSTONES if tombstones else _BEFORE_LIVE))
    for path, stamp, *place in rows:
        if skip.get(path) != stamp:
            places[path] = tuple(place)
            if len(places) == limit:
                break
    found = wanted_at(connection, list(places))
    return [found[path]._replace(place=place) for path, place in places.items()]


def wanted_at(connection: sqlite3.Connection, paths: Sequence[RelPath]) -> dict[RelPath, Wanted]:
    """As `ports.FolderIndex.wanted_at`."""
    if not paths:
        return {}
    rows = connection.execute(_DETAILS, {"paths": path_list(paths)})
    wanted = {}
    for (path, *columns), group in groupby(rows, key=lambda row: row[:5]):
        listed = list(group)
        wanted[RelPath(path)] = Wanted(
            path=RelPath(path),
            held=None if columns[0] is None else unpack_held(*columns),
            offers=tuple(
                Offer(DeviceID(device), number, unpack_entry(offered))
                for *_, device, _, number, offered in listed
            ),
            stamp=max(row[6] for row in listed),
        )
    return wanted


def receive(
    connection: sqlite3.Connection,
    peer: DeviceID,
    cursor: Cursor,
    offers: Sequence[tuple[int, RelPath, Entry]],
    *,
    after: int,
    seen: Iterable[RelPath],
) -> bool:
    """As `ports.FolderIndex.receive`."""
    known = load_cursor(connection, peer)
    if known.epoch not in (0, cursor.epoch) or not after <= known.sequence <= cursor.sequence:
        return False
    drop_offers_at(connection, peer, seen)
    store_offers(connection, peer, offers)
    store_cursor(connection, peer, cursor)
    return True


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


def drop_offers(connection: sqlite3.Connection, settled: Iterable[tuple[RelPath, Offer]]) -> None:
    """Exactly these: a peer may have offered another version since."""
    connection.executemany(
        "DELETE FROM wanted WHERE path = ? AND peer = (SELECT id FROM peers WHERE device = ?) "
        "AND sequence = ? AND entry = ?",
        ((path, offer.peer, offer.sequence, pack_entry(offer.entry)) for path, offer in settled),
    )


def drop_offers_at(
    connection: sqlite3.Connection, peer: DeviceID, paths: Iterable[RelPath]
) -> None:
    """Whatever the peer offers there."""
    connection.executemany(
        "DELETE FROM wanted WHERE path = ? AND peer = (SELECT id FROM peers WHERE device = ?)",
        ((path, peer) for path in paths),
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


def begin_anew(connection: sqlite3.Connection) -> None:
    """Drop all offers, as if nothing had been received of any peer's index yet."""
    connection.execute("DELETE FROM wanted")
    connection.execute("UPDATE peers SET sequence = 0")


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


def load_participants(connection: sqlite3.Connection) -> list[DeviceID]:
    rows = connection.execute("SELECT device FROM peers WHERE epoch > 0 ORDER BY id")
    return [DeviceID(device) for (device,) in rows]


def drop_peer(connection: sqlite3.Connection, peer: DeviceID) -> None:
    """With all its offers."""
    connection.execute("DELETE FROM peers WHERE device = ?", (peer,))


def applied_sequence(connection: sqlite3.Connection, peer: DeviceID) -> int:
    """The peer's sequence up to which none of its offers is unsettled."""
    row = connection.execute(_APPLIED, (peer,)).fetchone()
    if row is None:
        return 0
    received, unsettled = row
    return int(received if unsettled is None else min(received, unsettled - 1))


def _number_of(connection: sqlite3.Connection, peer: DeviceID) -> int:
    """The short number that stands for the device in `wanted`; given to it if it has none."""
    row = connection.execute("SELECT id FROM peers WHERE device = ?", (peer,)).fetchone()
    if row is None:
        insert = "INSERT INTO peers (device) VALUES (?) RETURNING id"
        row = connection.execute(insert, (peer,)).fetchone()
    return int(row[0])


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

"""Tombstones that nobody needs any more, and who may have missed one of them.

Over a connection, for use in the database's thread, inside a transaction.
"""

import sqlite3
from collections.abc import Collection

from p2psync.core.ids import DeviceID
from p2psync.ports import Cursor
from p2psync.storage.offers import load_acknowledged, store_acknowledged


def drop(connection: sqlite3.Connection, members: Collection[DeviceID], epoch: int) -> list[int]:
    """As `ports.FolderIndex.drop_tombstones`; their sequences."""
    acknowledged = [load_acknowledged(connection, device) for device in members]
    if not acknowledged or any(cursor.epoch != epoch for cursor in acknowledged):
        return []
    rows = connection.execute(
        "DELETE FROM held WHERE kind = 0 AND sequence <= ? "
        "AND NOT EXISTS (SELECT 1 FROM wanted WHERE wanted.path = held.path) RETURNING sequence",
        (min(cursor.sequence for cursor in acknowledged),),
    )
    dropped = [sequence for (sequence,) in rows]
    if dropped:
        # Only of those that are no members.
        connection.execute(
            "UPDATE peers SET acknowledged_epoch = 0, acknowledged_sequence = 0 "
            "WHERE acknowledged_sequence < ?",
            (max(dropped),),
        )
    return dropped


def resume(connection: sqlite3.Connection, peer: DeviceID, known: Cursor, forgotten: int) -> bool:
    """As `ports.FolderIndex.resume`."""
    acknowledged = load_acknowledged(connection, peer)
    is_behind = known.epoch == acknowledged.epoch and known < acknowledged
    # Who began at 0 and has not got beyond `forgotten` yet has missed nothing: since it began
    # nothing was dropped that it had not acknowledged.
    has_begun = known.epoch == acknowledged.epoch and not is_behind
    if 0 < known.sequence < forgotten and not has_begun:
        return False
    if known.sequence == 0 or is_behind:
        store_acknowledged(connection, peer, known)
    return True

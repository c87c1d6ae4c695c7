"""What the device as a whole remembers: the group's roster, its folders, where peers were seen."""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2psync.core.ids import DeviceID
from p2psync.errors import DamagedError
from p2psync.storage.database import Database, open_database, transaction
from p2psync.storage.schema import DEVICE_MIGRATIONS

ADDRESSES_MAX = 16
"""Addresses kept for one device."""

_DEVICE_ID_SIZE = 32


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """A folder that this device takes part in."""

    name: str
    path: Path
    mode: str
    paused: bool
    token: str
    """What the marker in the folder's root must say."""
    index_file: str
    """Of its index, inside the home."""
    shared_with: tuple[DeviceID, ...] | None
    """None: with every paired device."""


class DeviceStore:
    """`open_device_store` makes it. Each method that writes is one durable transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def close(self) -> None:
        await self._database.close()

    async def roster(self) -> bytes:
        """As last saved; empty when none ever was."""

        def read(connection: sqlite3.Connection) -> bytes:
            row = connection.execute("SELECT body FROM roster").fetchone()
            return b"" if row is None else bytes(row[0])

        return await self._database.run(read)

    async def save_roster(self, body: bytes) -> None:
        await self._write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO roster VALUES (1, ?)", (body,)
            )
        )

    async def folders(self) -> list[FolderRecord]:
        """In order of name."""

        def read(connection: sqlite3.Connection) -> list[FolderRecord]:
            rows = connection.execute(
                "SELECT name, path, mode, paused, token, index_file, shared_with "
                "FROM folders ORDER BY name"
            )
            return [_folder_of(*columns) for columns in rows]

        return await self._database.run(read)

    async def save_folder(self, record: FolderRecord) -> None:
        """Add the folder, or replace the one of that name."""
        shared_with = None if record.shared_with is None else b"".join(record.shared_with)
        await self._write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO folders "
                "(name, path, mode, paused, token, index_file, shared_with) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    record.name,
                    os.fsencode(record.path),
                    record.mode,
                    record.paused,
                    record.token,
                    record.index_file,
                    shared_with,
                ),
            )
        )

    async def remove_folder(self, name: str) -> None:
        """Forget the folder; nothing happens where there is none of that name."""
        await self._write(
            lambda connection: connection.execute("DELETE FROM folders WHERE name = ?", (name,))
        )

    async def addresses(self) -> dict[DeviceID, list[tuple[str, int, int | None]]]:
        """(host, port, when it last worked in ns) by device: the last to work first, then those
        that never did, the newest first."""

        def read(
            connection: sqlite3.Connection,
        ) -> dict[DeviceID, list[tuple[str, int, int | None]]]:
            known = defaultdict(list)
            for device, *address in connection.execute(
                "SELECT device, host, port, last_ok_ns FROM addresses "
                "ORDER BY device, last_ok_ns DESC NULLS LAST, number DESC"
            ):
                host, port, last_ok_ns = address
                known[DeviceID(device)].append((host, port, last_ok_ns))
            return dict(known)

        return await self._database.run(read)

    async def save_address(
        self, device: DeviceID, host: str, port: int, last_ok_ns: int | None
    ) -> None:
        """Keep an address; `last_ok_ns` is when it worked, or None where it is only a sighting.

        Over `ADDRESSES_MAX` the oldest of the others are dropped, those that never worked first:
        rumours must not push out what is known to work.
        """

        def write(connection: sqlite3.Connection) -> None:
            (number,) = connection.execute(
                "SELECT coalesce(max(number), 0) + 1 FROM addresses"
            ).fetchone()
            connection.execute(
                "INSERT INTO addresses VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (device, host, port) DO UPDATE SET number = excluded.number, "
                "last_ok_ns = coalesce(excluded.last_ok_ns, last_ok_ns)",
                (number, device, host, port, last_ok_ns),
            )
            connection.execute(
                "DELETE FROM addresses WHERE number IN ("
                "    SELECT number FROM addresses WHERE device = ? AND number <> ?"
                "    ORDER BY last_ok_ns DESC NULLS LAST, number DESC LIMIT -1 OFFSET ?)",
                (device, number, ADDRESSES_MAX - 1),
            )

        await self._write(write)

    async def forget_device(self, device: DeviceID) -> None:
        """Drop its addresses and take it off the folders that are shared with it by name."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM addresses WHERE device = ?", (device,))
            for name, packed in connection.execute(
                "SELECT name, shared_with FROM folders WHERE shared_with IS NOT NULL"
            ).fetchall():
                rest = b"".join(other for other in _device_ids(packed) if other != device)
                connection.execute(
                    "UPDATE folders SET shared_with = ? WHERE name = ?", (rest, name)
                )

        await self._write(write)

    async def setting(self, name: str) -> str | None:
        """As last set; None when it is not."""

        def read(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                "SELECT value FROM settings WHERE name = ?", (name,)
            ).fetchone()
            return None if row is None else str(row[0])

        return await self._database.run(read)

    async def set_setting(self, name: str, value: str) -> None:
        await self._write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value)
            )
        )

    async def _write(self, write: Callable[[sqlite3.Connection], object]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                write(connection)

        await self._database.run(work)


async def open_device_store(path: Path) -> DeviceStore:
    """Open or create the store in the file `path`.

    Raises ConfigError when a newer p2psync wrote it, DamagedError, StorageError.
    """
    try:
        return DeviceStore(await open_database(path, DEVICE_MIGRATIONS))
    except DamagedError as error:
        raise DamagedError(
            f"{path}, which lists your devices and folders, is damaged. Check the disk and restore "
            "the file from a backup; or move it away, pair the devices again and add the folders "
            "again. The files in them are not affected."
        ) from error


def _folder_of(
    name: str,
    path: bytes,
    mode: str,
    paused: int,
    token: str,
    index_file: str,
    packed: bytes | None,
) -> FolderRecord:
    return FolderRecord(
        name=name,
        path=Path(os.fsdecode(path)),
        mode=mode,
        paused=bool(paused),
        token=token,
        index_file=index_file,
        shared_with=None if packed is None else _device_ids(packed),
    )


def _device_ids(packed: bytes) -> tuple[DeviceID, ...]:
    return tuple(
        DeviceID(packed[at : at + _DEVICE_ID_SIZE]) for at in range(0, len(packed), _DEVICE_ID_SIZE)
    )
